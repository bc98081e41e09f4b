"""Results of the workflows as tables, or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from notetune.cli import terminal

if TYPE_CHECKING:
    from notetune.metrics.results import MethodRow, PerplexityRow, Results
    from notetune.sources.mimic.published import Comparison
    from notetune.workflows.estimate import Estimate
    from notetune.workflows.inspect import Needs
    from notetune.workflows.plan import Plan
    from notetune.workflows.prepare import Prepared
    from notetune.workflows.recipe import Recipe
    from notetune.workflows.recipe_keys import Key
    from notetune.workflows.study import Stage

_DIGITS_OF_A_HASH = 16


def prepared(
    prepared: "Prepared",
    comparisons: "Sequence[Comparison]",
    corpus: "tuple[Prepared, Sequence[Comparison]] | None" = None,
    *,
    as_json: bool,
) -> None:
    """Rows read and kept per stage, the leak checks, and the published figures if asked for.

    Args:
        prepared: The notes of the tasks.
        comparisons: Their figures beside the published ones.
        corpus: The notes of step 1 with theirs, where they are others.
        as_json: For machines.
    """
    if as_json:
        of_corpus = {"corpus": _prepared_as_json(*corpus)} if corpus else {}
        return terminal.show_json({**_prepared_as_json(prepared, comparisons), **of_corpus})
    _prepared(prepared, comparisons)
    if corpus:
        _prepared(*corpus)
    return None


def _prepared_as_json(
    prepared: "Prepared", comparisons: "Sequence[Comparison]"
) -> dict[str, object]:
    return {
        "folder": prepared.folder,
        "flow": [asdict(stage) for stage in prepared.flow],
        "findings": [asdict(finding) for finding in prepared.findings],
        "published": [asdict(row) for row in comparisons],
    }


def _prepared(prepared: "Prepared", comparisons: "Sequence[Comparison]") -> None:
    from notetune.metrics.results import FlowStage
    from notetune.report import tables

    flow = [FlowStage(**asdict(stage)) for stage in prepared.flow]
    terminal.show_report_table(tables.flow_table(flow))
    terminal.out.print("Leak checks: " + "; ".join(f.sentence for f in prepared.findings))
    if comparisons:
        _published(comparisons)
    terminal.out.print(f"{prepared.folder}: {len(prepared.store.ids):,} tokens", soft_wrap=True)


def _published(comparisons: "Sequence[Comparison]") -> None:
    """Our figures beside the published ones, and what usually explains each difference."""
    rows = [
        (row.what, _short(row.ours), _short(row.published), "agrees" if row.agrees else "differs")
        for row in comparisons
    ]
    title = "Beside the published figures"
    terminal.show_table(title, ("figure", "ours", "published", ""), rows)
    agreeing = sum(row.agrees for row in comparisons)
    terminal.out.print(f"{agreeing} of {len(comparisons)} figures agree.")
    for explanation in dict.fromkeys(row.explanation for row in comparisons if not row.agrees):
        figures = [row.what for row in comparisons if row.explanation == explanation]
        terminal.out.print(f"- {', '.join(figures)}: usually {explanation}.", soft_wrap=True)


def pretrained(
    methods: Sequence["MethodRow"],
    perplexity: Sequence["PerplexityRow"],
    folder: Path,
    *,
    as_json: bool,
) -> None:
    """The methods of step 1 side by side, and perplexity by source."""
    if as_json:
        return terminal.show_json(
            {
                "folder": folder,
                "methods": [row.model_dump(mode="json") for row in methods],
                "perplexity": [row.model_dump(mode="json") for row in perplexity],
            }
        )
    from notetune.report import adaptation

    terminal.show_report_table(adaptation.perplexity_table(perplexity))
    terminal.show_report_table(adaptation.methods_table(methods))
    terminal.out.print(f"Domain adapter: {folder}", soft_wrap=True)
    return None


def results(results: "Results", folder: Path, *, as_json: bool) -> None:
    """Step 1, AUROC of each model and task, the primary comparisons in words, and the report."""
    from notetune.report import adaptation, summary, tables

    if as_json:
        return terminal.show_json(results.model_dump(mode="json"))
    terminal.show_report_table(adaptation.methods_table(results.methods))
    if results.tasks:
        terminal.show_report_table(tables.headline_table(results))
    for said in summary.summary(results):
        if said.about in summary.ASKED.values():
            terminal.out.print("\n  ".join((said.about, *said.sentences)), soft_wrap=True)
    for notice in results.notices:
        terminal.out.print(f"Note: {notice}", soft_wrap=True)
    terminal.out.print(f"Report: {folder / 'report.html'}", soft_wrap=True)
    return None


def plan(recipe: "Recipe", plan: "Plan", *, as_json: bool) -> None:
    """The resolved recipe, and every training with its size and estimated time."""
    if as_json:
        return terminal.show_json({"recipe": recipe.as_json(), **asdict(plan)})
    terminal.show_json(recipe.as_json())
    rows = [
        (
            stage.name,
            f"{stage.documents:,}",
            f"{stage.tokens:,}",
            f"{stage.rows:,}",
            f"{stage.steps:,}",
            f"{stage.trainable_parameters:,}",
            _duration(stage.seconds),
        )
        for stage in plan.stages
    ]
    columns = ("training", "documents", "tokens", "rows", "steps", "trainable", "time")
    title = "Documents, tokens and rows per epoch; steps and time of all epochs"
    terminal.show_table(title, columns, rows)
    terminal.out.print(
        f"About {_duration(plan.seconds)} of training and {plan.peak_memory_mib:,.0f} MiB, "
        "measured on one row on this machine; evaluations, perplexities and baselines come on top. "
        "Nothing was written."
    )
    return None


def estimate(recipe: "Recipe", estimate: "Estimate", *, as_json: bool) -> None:
    """Every training on a named GPU, and what the estimate is based on."""
    if as_json:
        return terminal.show_json({"recipe": recipe.as_json(), **asdict(estimate)})
    columns = ("training", "seeds", "notes", "steps", "trained", "GiB", "hours each", "hours")
    for name, seconds in estimate.seconds.items():
        rows = [
            (
                training.model if training.task is None else f"{training.task} · {training.model}",
                " ".join(map(str, training.seeds)),
                f"{training.documents:,}",
                f"{training.steps:,}",
                f"{training.trainable_parameters:,}",
                f"{training.memory_gib:,.1f}" + ("" if training.fits else " !"),
                f"{training.seconds / 3600:,.2f}",
                f"{training.seconds * len(training.seeds) / 3600:,.1f}",
            )
            for training in estimate.trainings
            if training.backbone == name
        ]
        title = f"{name or recipe.name}: {seconds / 3600:,.1f} h on one {estimate.gpu}"
        terminal.show_table(title, columns, rows)
    count = sum(len(training.seeds) for training in estimate.trainings)
    too_large = sum(len(training.seeds) for training in estimate.trainings if not training.fits)
    hours = sum(estimate.seconds.values()) / 3600
    terminal.out.print(
        f"{count} trainings, {hours:,.0f} h in all on one {estimate.gpu} with "
        f"{estimate.memory_gib:g} GiB ({estimate.source}); not fitting into its memory (!): "
        f"{too_large}.\n"
        f"An estimate: operations counted without weights, at {estimate.share:.0%} of the card's "
        "highest rate, which is assumed; all epochs; without reading, encoding, TF-IDF and the "
        "perplexities of step 1. Memory: all tensors at the worst moment of a step.\n"
        f"Notes: {'; '.join(estimate.counts)}.\nNothing was written.",
        soft_wrap=True,
    )
    return None


def needs(needs: "Needs", *, as_json: bool) -> None:
    """What every training needs, and what that is based on."""
    if as_json:
        return terminal.show_json(asdict(needs))
    rows = [
        (
            training.name,
            f"{training.trainable_parameters:,}",
            f"{training.trainable_parameters / training.total_parameters:.4%}",
            f"{training.memory_mib:,.0f}",
            f"{training.flops_per_token / 1e9:.4g}",
            _duration(training.least_seconds),
        )
        for training in needs.trainings
    ]
    title = f"{needs.backbone}: {needs.parameters:,} parameters, {needs.dtype}"
    columns = ("training", "trained", "share", "MiB", "GFLOP/token", "per 1M tokens")
    terminal.show_table(title, columns, rows)
    process = ", with this process" if needs.device == "cpu" else ""
    terminal.out.print(
        f"Counted in one step of each training, without weights, on a row of documents of "
        f"{needs.document_tokens:,} tokens. A head adds {needs.head_per_class:,} parameters per "
        f"class. Memory: all tensors at their worst moment{process}; the allocator may keep up to "
        f"twice that. Time: at least, at the {needs.matrix_rate / 1e9:,.0f} GFLOP/s that a large "
        f"matrix product just reached on {needs.device}; `--dry-run` measures it on your notes.",
        soft_wrap=True,
    )
    return None


def stages(stages: Sequence["Stage"], *, as_json: bool) -> None:
    """Which stages are done."""
    if as_json:
        return terminal.show_json([asdict(stage) for stage in stages])
    rows = [(stage.name, "done" if stage.is_finished else "open") for stage in stages]
    terminal.show_table("Stages", ("stage", "state"), rows)
    return None


def _short(value: int | str) -> str:
    """A figure as it is read, a sha256 by its first digits."""
    return f"{value:,}" if isinstance(value, int) else value[:_DIGITS_OF_A_HASH]


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.1f} min"


def keys(found: Sequence["Key"], *, as_json: bool) -> None:
    """Keys of a recipe."""
    if as_json:
        return terminal.show_json([asdict(key) for key in found])
    rows = [(key.name, key.kind, key.default, key.about) for key in found]
    terminal.show_texts("Keys of a recipe", ("key", "of kind", "default", "what it is"), rows)
    return None
