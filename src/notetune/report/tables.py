"""Results as tables: one value per table, rendered the same way in HTML and in Markdown."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from notetune.metrics.intervals import Estimate
from notetune.metrics.results import HeadlineRow, ModelRow, Results, SplitCount, TaskResult
from notetune.report.numbers import (
    NOT_AVAILABLE,
    count,
    duration,
    interval,
    number,
    p_text,
    share,
    signed,
)

TIE_MARK = "≈"
TIE_LEGEND = (
    "Bold: best, and each paired interval against another model excludes 0. "
    f"{TIE_MARK}: the highest value, or one not distinguishable from it; then no model is best."
)
INTERVAL_LEGEND = (
    "Square brackets: 95 % interval, bootstrap over patients. It tells about other patients, not "
    "about other seeds."
)
_BRIER_LEGEND = {
    "binary": "Brier loss: mean squared error; lower is better.",
    "multiclass": "Macro: mean over classes, each against the rest. Brier loss: squared error "
    "summed over the classes; lower is better.",
    "multilabel": "Macro: mean over the evaluated labels. Micro: all their notes as one. Brier "
    "loss: mean squared error over all labels; lower is better.",
}
_NO_PRECISION_INTERVAL = (
    "Average precision has no interval here: the bootstrap overstates it for rare labels."
)
_TAG_OPENING = re.compile(r"<(?=[A-Za-z/!?])")
_LABELS_SHOWN = 15
_CLASSES_SHOWN = 6


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller detail under it, and how it sorts and looks."""

    text: str
    detail: str = ""
    sort: float | None = None
    is_strong: bool = False

    @property
    def plain(self) -> str:
        """Text and detail on one line."""
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True)
class Table:
    """A table; the first `text_columns` columns hold words, the others numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    notes: tuple[str, ...] = ()
    is_sortable: bool = False
    is_collapsed: bool = False
    kind: str = "table"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no cell border, no line break."""
    one_line = " ".join(text.split("\n")).replace("\\", "\\\\").replace("|", "\\|")
    return _TAG_OPENING.sub(r"\\<", one_line)


def markdown(table: Table) -> str:
    """The table as a Markdown pipe table with its caption and notes."""
    dashes = ["---" if i < table.text_columns else "---:" for i in range(len(table.columns))]
    rows = [table.columns, dashes]
    rows += [
        [f"**{cell.plain}**" if cell.is_strong else cell.plain for cell in row]
        for row in table.rows
    ]
    lines = ["| " + " | ".join(markdown_text(text) for text in row) + " |" for row in rows]
    return "\n".join([f"*{markdown_text(table.caption)}*", "", *lines, "", *table.notes]).rstrip()


def headline_table(results: Results) -> Table:
    """Every model against every task, and the mean over tasks."""
    by_model: dict[str, dict[str, Cell]] = {
        row.model: {} for task in results.tasks for row in task.rows
    }
    for task in results.tasks:
        for row in task.rows:
            by_model[row.model][task.task] = _auroc_cell(row)
    means = {row.model: _auroc_cell(row) for row in results.headline}
    not_run = Cell(NOT_AVAILABLE, "(not run)")
    counted = len(results.headline[0].tasks) if results.headline else 0
    return Table(
        "Test AUROC of every model on every task.",
        (
            "Model",
            *(task.task for task in results.tasks),
            *([f"Mean of {count(counted)} tasks"] if counted > 1 else []),
        ),
        tuple(
            (
                Cell(model),
                *(cells.get(task.task, not_run) for task in results.tasks),
                *([means.get(model, not_run)] if counted > 1 else []),
            )
            for model, cells in by_model.items()
        ),
        notes=(TIE_LEGEND, INTERVAL_LEGEND),
    )


def flow_table(results: Results) -> Table:
    """The cohort, stage by stage."""
    return Table(
        "What each stage read and kept, and why it rejected the rest.",
        ("Stage", "Rejected because", "Read", "Kept", "Rejected"),
        tuple(
            (
                Cell(stage.stage),
                Cell(_listed(f"{why}: {count(n)}" for why, n in stage.rejected.items())),
                count_cell(stage.read),
                count_cell(stage.kept),
                count_cell(sum(stage.rejected.values())),
            )
            for stage in results.flow
        ),
        text_columns=2,
    )


def splits_table(results: Results) -> Table:
    """Sizes of the splits, with positives per class or their spread."""
    return Table(
        "Notes, patients and positives of each split.",
        ("Task", "Split", "Positives", "Notes", "Patients"),
        tuple(
            (
                Cell(split.task),
                Cell(split.split),
                Cell(_positives(split)),
                count_cell(split.notes),
                count_cell(split.patients),
            )
            for split in results.splits
        ),
        text_columns=3,
    )


def task_table(task: TaskResult) -> Table:
    """The models of one task."""
    has_micro = any(row.auroc_micro is not None for row in task.rows)
    columns = ["Model", "Seeds (range)", "AUROC" if task.kind == "binary" else "Macro AUROC"]
    columns += ["Micro AUROC"] if has_micro else []
    rows = []
    for row in task.rows:
        cells = [Cell(row.model), _seeds_cell(row), _auroc_cell(row)]
        cells += [Cell(number(row.auroc_micro), sort=row.auroc_micro)] if has_micro else []
        cells += [_precision_cell(row), _estimate_cell(row.brier, None)]
        rows.append(tuple(cells))
    return Table(
        f"{task.task}: scores on {count(task.notes)} notes of {count(task.patients)} patients "
        f"({task.split} split).",
        (*columns, "Average precision", "Brier loss"),
        tuple(rows),
        notes=(
            TIE_LEGEND,
            f"{INTERVAL_LEGEND} Range: lowest and highest AUROC of a seed.",
            _BRIER_LEGEND[task.kind],
            *((_NO_PRECISION_INTERVAL,) if task.kind == "multilabel" else ()),
        ),
    )


def calibration_table(task: TaskResult) -> Table:
    """Calibration of each model on a binary task."""
    found = [(row.model, row.calibration) for row in task.rows if row.calibration]
    rows = []
    for model, figures in found:
        values = (
            figures.observed_expected,
            figures.intercept,
            figures.slope,
            figures.scaled_brier,
            figures.expected_calibration_error,
        )
        rows.append((Cell(model), *(Cell(number(value), sort=value) for value in values)))
    return Table(
        f"{task.task}: calibration. Ideal are 1, 0, 1, 1 and 0.",
        ("Model", "Observed : expected", "Intercept", "Slope", "Scaled Brier", "ECE"),
        tuple(rows),
        notes=(
            "ECE: expected calibration error, over bins of equal size. Intercept of the logistic "
            "refit with the slope fixed at 1: below 0, risks are overestimated. Slope below 1: "
            "predictions are too extreme; n/a: constant, or separating the classes perfectly.",
        ),
    )


def comparisons_table(task: TaskResult) -> Table:
    """Paired differences of one task."""
    rows = [
        (
            Cell(item.model),
            Cell(item.against),
            _difference_cell(item.difference, item.reason),
            Cell(p_text(item.p_value), sort=item.p_value),
            Cell(p_text(item.p_holm), sort=item.p_holm),
        )
        for item in task.comparisons
    ]
    return Table(
        f"{task.task}: paired differences in AUROC on the same patients.",
        ("Model", "Against", "Difference", "p", f"p, Holm over {len(rows)}"),
        tuple(rows),
        text_columns=2,
        notes=("Above 0: the model is better than the one it is compared with.",),
    )


def labels_table(task: TaskResult) -> Table:
    """AUROC of every label and model."""
    models = [row.model for row in task.rows]
    return Table(
        f"{task.task}: AUROC of each of {count(len(task.labels))} labels "
        f"({count(task.labels_evaluated)} evaluated, {count(task.labels_skipped)} skipped).",
        ("Label", "Positives", *models),
        tuple(
            (
                Cell(label.label),
                count_cell(label.positives),
                *(
                    Cell(number(label.aurocs.get(model)), sort=label.aurocs.get(model))
                    for model in models
                ),
            )
            for label in task.labels
        ),
        notes=(f"{NOT_AVAILABLE}: {task.skipped_reason}.",) if task.skipped_reason else (),
        is_sortable=True,
        is_collapsed=len(task.labels) > _LABELS_SHOWN,
    )


def costs_table(results: Results) -> Table:
    """Parameters, time, speed and memory."""
    return Table(
        "What training cost.",
        ("Model", "Stage", "Trained parameters", "Time", "Tokens per second", "Peak memory, MiB"),
        tuple(
            (
                Cell(cost.model),
                Cell(cost.stage),
                parameters_cell(cost.trainable_parameters, cost.total_parameters),
                Cell(duration(cost.seconds), sort=cost.seconds),
                Cell(number(cost.tokens_per_second, 0), sort=cost.tokens_per_second),
                Cell(number(cost.peak_memory_mib, 0), sort=cost.peak_memory_mib),
            )
            for cost in results.costs
        ),
        text_columns=2,
        notes=("Tokens exclude padding. Features are computed once for all tasks and seeds.",),
    )


def kept_table(results: Results) -> Table:
    """Which state of each training run was kept, and how it did on the validation notes."""
    rows = []
    for kept in results.kept:
        found = next((one for one in kept.evaluations if one.steps == kept.steps), None)
        auroc, loss = (found.auroc, found.loss) if found else (None, None)
        rows.append(
            (
                Cell(kept.run),
                Cell(kept.why),
                count_cell(kept.steps),
                count_cell(kept.all_steps),
                Cell(number(auroc), sort=auroc),
                Cell(number(loss), sort=loss),
            )
        )
    return Table(
        "Which state of each training was kept.",
        ("Training", "Why", "Kept after step", "Steps", "Validation AUROC", "Validation loss"),
        tuple(rows),
        text_columns=2,
        notes=(
            "Chosen on validation notes alone. The AUROC is macro over the labels with both values "
            "there, and too high an estimate, since it is the one chosen.",
        ),
        is_collapsed=len(rows) > _LABELS_SHOWN,
    )


def leakage_table(results: Results) -> Table:
    """Findings of the leak checks."""
    return Table(
        "Leak checks between sets of notes. The share is of the second set.",
        ("Check", "First set", "Second set", "Verdict", "Notes", "Share"),
        tuple(
            (
                Cell(finding.check),
                Cell(finding.split_a),
                Cell(finding.split_b),
                Cell(
                    "blocks training" if finding.blocks else "does not block",
                    is_strong=finding.blocks,
                ),
                count_cell(finding.count),
                Cell(share(finding.share), sort=finding.share),
            )
            for finding in results.leakage
        ),
        text_columns=4,
    )


def provenance_table(results: Results) -> Table:
    """Versions, fingerprints and revision."""
    return Table(
        "Versions and fingerprints.",
        ("What", "Value"),
        tuple((Cell(name), Cell(value)) for name, value in results.provenance.items()),
        text_columns=2,
    )


def _auroc_cell(row: ModelRow | HeadlineRow) -> Cell:
    return _estimate_cell(row.auroc, row.reason, is_best=row.is_best, is_tied=row.ties_with_best)


def _estimate_cell(
    estimate: Estimate | None, reason: str | None, *, is_best: bool = False, is_tied: bool = False
) -> Cell:
    if estimate is None:
        return Cell(NOT_AVAILABLE, f"({reason})" if reason else "")
    text = number(estimate.value) + (f" {TIE_MARK}" if is_tied else "")
    return Cell(text, interval(estimate), estimate.value, is_best)


def _precision_cell(row: ModelRow) -> Cell:
    low_high = row.average_precision_interval
    if row.average_precision is None or low_high is None:
        return Cell(number(row.average_precision), sort=row.average_precision)
    return _estimate_cell(Estimate(row.average_precision, *low_high, row.brier.n), None)


def _difference_cell(estimate: Estimate | None, reason: str | None) -> Cell:
    if estimate is None:
        return _estimate_cell(None, reason)
    return Cell(signed(estimate.value), interval(estimate, signed), estimate.value)


def _seeds_cell(row: ModelRow) -> Cell:
    """How many seeds, and the spread of their AUROCs."""
    if len(row.auroc_per_seed) < 2:
        return Cell(count(len(row.seeds)), sort=len(row.seeds))
    low, high = min(row.auroc_per_seed), max(row.auroc_per_seed)
    return Cell(count(len(row.seeds)), f"({number(low)} to {number(high)})", len(row.seeds))


def parameters_cell(trainable: int, total: int) -> Cell:
    """How many parameters trained, and their share of all."""
    share_of_all = f"({_small_share(trainable / total)} of {count(total)})" if total else ""
    return Cell(count(trainable), share_of_all, sort=trainable)


def _small_share(value: float) -> str:
    return "< 0.01 %" if 0 < value < 1e-4 else f"{100 * value:.2f} %"


def count_cell(value: int) -> Cell:
    """A whole number that sorts as one."""
    return Cell(count(value), sort=value)


def _positives(split: SplitCount) -> str:
    values = sorted(split.positives.values())
    if len(values) > _CLASSES_SHOWN:
        return (
            f"{count(len(values))} labels, median {count(values[len(values) // 2])} positives "
            f"({count(values[0])} to {count(values[-1])})"
        )
    return _listed(
        f"{name}: {count(n)} ({share(n / split.notes)})" if split.notes else f"{name}: {count(n)}"
        for name, n in split.positives.items()
    )


def _listed(items: Iterable[str]) -> str:
    return "; ".join(items) or "—"
