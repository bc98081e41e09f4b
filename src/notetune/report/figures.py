"""Results as figures: inline SVG that needs no network and is the same on every run."""

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from notetune.metrics.bootstrap import Estimate
from notetune.metrics.results import Results, TaskResult

_COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7e3f98", "#0f7c8a", "#8a6d00", "#b0295b", "#4b5563")
"""Told apart by the colour-blind too; beyond eight models the dashes change as well."""
_DASHES = ("-", "--", ":", "-.")
_INK, _FAINT = "#1f2937", "#cbd5e1"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "notetune",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # the whole list would stand in every label
    "font.size": 9,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.parse_math": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
_PANELS_PER_ROW = 3
_POINTS_PER_CURVE = 150
_WIDTH = 8.6


@dataclass(frozen=True)
class Figure:
    """A figure: its SVG element and the caption under it."""

    svg: str
    caption: str
    kind: str = "figure"


def headline_figure(results: Results) -> Figure | None:
    """Mean AUROC over tasks of each model; None when no model has one, or that of one task."""
    tasks = max((len(row.tasks) for row in results.headline), default=0)
    if tasks < 2:
        return None
    rows = [(row.model, row.auroc) for row in results.headline]
    mean = f"Mean test AUROC over {tasks} tasks"
    return _forest(rows, mean, f"{mean}, with 95 % intervals.")


def auroc_figure(task: TaskResult) -> Figure | None:
    """AUROC of each model on a task; None when no model has one."""
    caption = (
        f"{task.task}: AUROC with 95 % intervals. They may overlap although a "
        "difference on the same patients is clear: see the differences."
    )
    return _forest([(row.model, row.auroc) for row in task.rows], "AUROC", caption)


def differences_figure(task: TaskResult) -> Figure | None:
    """Primary differences of a task, then the others; None when there are none."""
    rows = [
        (f"{item.model}\nagainst {item.against}", item.difference)
        for item in (*task.primary, *task.exploratory)
    ]
    primary = sum(item.difference is not None for item in task.primary)
    caption = (
        f"{task.task}: differences on the same patients, the first {primary} of them primary. The "
        "95 % intervals are not corrected for their number."
    )
    return _forest(rows, "Difference in AUROC", caption, reference=0.0)


def roc_figure(task: TaskResult) -> Figure:
    """ROC curves of the models of a binary task; a constant model is the diagonal."""
    with mpl.rc_context(_STYLE):
        canvas, axes = _axes(_WIDTH * 0.62, _WIDTH * 0.58)
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
        for number, curve in enumerate(task.roc):
            if curve.true_positive_rates != curve.false_positive_rates:
                axes.plot(
                    curve.false_positive_rates,
                    curve.true_positive_rates,
                    label=curve.model,
                    color=_COLOURS[number % len(_COLOURS)],
                    linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
                    linewidth=1.3,
                )
        axes.set(xlabel="False positive rate", ylabel="True positive rate")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        if len(axes.lines) > 1:
            axes.legend(loc="lower right", fontsize=8)
        svg = _svg(canvas, f"ROC curves for {task.task}")
    return Figure(
        svg,
        f"{task.task}: ROC curves, averaged over runs at equal false positive rate. "
        "Constant predictions lie on the diagonal.",
    )


def reliability_figure(task: TaskResult) -> Figure:
    """Observed against predicted risk, one panel per model of a binary task."""
    with mpl.rc_context(_STYLE):
        canvas, panels = _panels(len(task.reliability), height=2.5)
        largest = max(max(*bins.predicted, *bins.high) for bins in task.reliability)
        top = min(1.0, math.ceil(largest * 10) / 10)
        for number, (axes, bins) in enumerate(zip(panels, task.reliability, strict=True)):
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot([0, top], [0, top], color=_FAINT, linewidth=1)
            axes.vlines(bins.predicted, bins.low, bins.high, color=colour, linewidth=1, alpha=0.6)
            axes.plot(bins.predicted, bins.observed, "o-", ms=3.5, color=colour, linewidth=1)
            axes.set(xlim=(-0.02 * top, top), ylim=(-0.02 * top, top), title=bins.model)
            axes.locator_params(nbins=5)
        canvas.supxlabel("Predicted risk", fontsize=9)
        canvas.supylabel("Observed share", fontsize=9)
        svg = _svg(canvas, f"Reliability of the risks predicted for {task.task}")
    return Figure(
        svg,
        f"{task.task}: reliability of the predicted risks in bins of equal size, with 95 % Wilson "
        "intervals; first run of each model. On the line, predicted is observed.",
    )


def learning_figure(results: Results) -> Figure | None:
    """Training loss by step, one panel per run; None when there are no points."""
    curves = {name: points for name, points in results.learning_curves.items() if points}
    if not curves:
        return None
    kept = {state.run: state for state in results.kept}
    with mpl.rc_context(_STYLE):
        canvas, panels = _panels(len(curves), height=2.4)
        for axes, (name, points) in zip(panels, curves.items(), strict=True):
            stride = math.ceil(len(points) / _POINTS_PER_CURVE)
            thin = [*points[:-1:stride], points[-1]]
            axes.plot([p.step for p in thin], [p.loss for p in thin], color=_COLOURS[0], lw=1.2)
            if state := kept.get(name):
                losses = {one.steps - 1: one.loss for one in state.evaluations}
                axes.plot([*losses], [*losses.values()], color=_COLOURS[1], lw=1.2, linestyle="--")
                axes.axvline(state.steps - 1, color=_INK, lw=0.8, linestyle=":")
            axes.set_title(name.replace(" · ", "\n"), fontsize=8)
            axes.grid(axis="y", color=_FAINT, linewidth=0.5)
            axes.locator_params(axis="x", nbins=4, integer=True)
        canvas.supxlabel("Optimizer step", fontsize=9)
        canvas.supylabel("Training loss", fontsize=9)
        svg = _svg(canvas, "Training loss by optimizer step")
    of_validation = " Dashed: validation loss; dotted: the state that was kept." if kept else ""
    return Figure(svg, f"Training loss by optimizer step of each run.{of_validation}")


def _forest(
    found: Sequence[tuple[str, Estimate | None]],
    title: str,
    caption: str,
    reference: float | None = None,
) -> Figure | None:
    """Estimates with their intervals, below one another; None where there is none."""
    rows = [(name, estimate) for name, estimate in found if estimate]
    if not rows:
        return None
    lines = 1 + max(name.count("\n") for name, _ in rows)
    with mpl.rc_context(_STYLE):
        canvas, axes = _axes(_WIDTH, 0.7 + len(rows) * (0.14 + 0.16 * lines))
        if reference is not None:
            axes.axvline(reference, color=_INK, linewidth=0.8, linestyle=":")
        for place, (_, estimate) in enumerate(rows):
            colour = _COLOURS[place % len(_COLOURS)] if reference is None else _INK
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.8)
            axes.plot([estimate.value], [place], marker="o", markersize=5.5, color=colour)
        axes.set_yticks(range(len(rows)), labels=[name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(title)
        axes.grid(axis="x", color=_FAINT, linewidth=0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        about = f"{title} of {len(rows)} rows with intervals; the numbers are in the table"
        return Figure(_svg(canvas, about), caption)


def _axes(width: float, height: float) -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, canvas.add_subplot()


def _panels(count: int, height: float) -> tuple[Canvas, list[Any]]:
    columns = min(_PANELS_PER_ROW, count)
    rows = math.ceil(count / columns)
    width = _WIDTH * max(columns, 2) / _PANELS_PER_ROW
    canvas = Canvas(figsize=(width, height * rows), layout="constrained")
    return canvas, [canvas.add_subplot(rows, columns, place + 1) for place in range(count)]


def _svg(canvas: Canvas, description: str) -> str:
    """The SVG element alone: no prolog, no metadata, no namespace addresses, a text for readers.

    Coordinates keep two decimals of a point.

    Group ids are dropped because several figures share one page; those that are referred to are
    made of the content and the fixed salt.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(canvas)
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\b(?:d|x|y|transform)="[^"]*"', _rounded, text)
    text = re.sub(r" *\n *", "\n", text)
    view_box = re.search(r'viewBox="[^"]*"', text)
    width = re.search(r'width="([\d.]+)pt"', text)
    assert view_box
    assert width
    opening = (
        f'<svg role="img" aria-label="{html.escape(description)}" {view_box.group()} '
        f'style="width:{float(width.group(1)):.0f}pt">'
    )
    return re.sub(r"<svg[^>]*>", opening, text, count=1).strip()


def _rounded(places: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found.group()):.2f}", places.group())
