"""Results as tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from notetune.audit import Finding, FlowCount
from notetune.metrics.best import Standing
from notetune.metrics.bootstrap import Estimate
from notetune.metrics.results import (
    Cost,
    HeadlineRow,
    MethodRow,
    ModelRow,
    Results,
    SplitCount,
    TaskResult,
)
from notetune.report.numbers import NOT_AVAILABLE, count, duration, number, share
from notetune.report.table import NOT_RUN, Cell, Table, estimate_cell, in_cells, number_cell

BEST_MARK, TIE_MARK = "★", "≈"
MARKS_LEGEND = (
    f"{BEST_MARK} and bold: better than every other model. {TIE_MARK}: cannot be told from the "
    "best. No mark: worse than the best. (Model confidence set, 95 %.)"
)
_OF_METHODS = (
    "Perplexities are held against those on the same backbone, over patients alone: one training "
    "of each method is measured."
)
TRAINING_SET = "All intervals are for this training set: another one would change the models too."
_ONE_RUN = (
    "A retrained model falls outside its interval more often: 8, 15 or 25 % instead of 5 % where "
    "runs vary a quarter, once or twice as much as patients. So no comparison with it is tested."
)
_BRIER_LEGEND = {
    "binary": "Brier loss: mean squared error; lower is better.",
    "multiclass": "Macro: mean over classes, each against the rest. Brier loss: squared error "
    "summed over the classes; lower is better.",
    "multilabel": "Macro: mean over the evaluated labels. Micro: all their notes as one. Brier "
    "loss: mean squared error over all labels; lower is better.",
}
_ALL_WORDS = (
    "tf-idf-all has every word that two patients share, and no bundle; tf-idf, and the hybrids "
    "with it, have those that enough patients share for one (evaluate.tfidf_min_patients)."
)
_AT_LEAST_3 = "at least 3 test patients have and lack"
_ALL_LABELS = (
    f"Macro AUROC is over the {{judged}} labels that {_AT_LEAST_3}: rarer "
    "ones make its interval too narrow. All labels: every one with both values, as others report."
)
_NO_PRECISION_INTERVAL = (
    "Average precision has no interval here: the bootstrap overstates it for rare labels."
)
_LABELS_SHOWN = 15
_CLASSES_SHOWN = 6


def runs_in_words(rows: Iterable[ModelRow]) -> tuple[str, tuple[str, ...]]:
    """What the values and intervals of a table are about, and a note on what one run means."""
    trained: dict[str, int] = {}
    for row in rows:
        if not row.is_deterministic:
            trained[row.model] = min(len(row.runs), trained.get(row.model, len(row.runs)))
    if not trained:
        return "95 % interval over patients", ()
    fewest, most = min(trained.values()), max(trained.values())
    if most == 1:
        return "ONE run of each model, 95 % interval over patients alone", (_ONE_RUN,)
    runs = f"{most}" if fewest == most else f"{fewest} to {most}"
    head = f"mean over {runs} runs, 95 % interval over patients and runs"
    if fewest > 1:
        return head, ()
    single = ", ".join(model for model, runs_ in trained.items() if runs_ == 1)
    return head, (f"One run only, and an interval over patients alone: {single}. {_ONE_RUN}",)


def headline_table(results: Results) -> Table:
    """Every model against every task, and the mean over tasks."""
    columns = {
        task.task: {row.model: auroc_cell(row) for row in task.rows} for task in results.tasks
    }
    models = dict.fromkeys(model for cells in columns.values() for model in cells)
    counted = len(results.headline[0].tasks) if results.headline else 0
    if counted > 1:
        means = {row.model: auroc_cell(row) for row in results.headline}
        columns[f"Mean of {count(counted)} tasks"] = means
    head, of_one_run = runs_in_words(row for task in results.tasks for row in task.rows)
    return Table(
        f"Test AUROC of every model on every task: {head}.",
        ("Model", *columns),
        in_cells((m, *(cells.get(m, NOT_RUN) for cells in columns.values())) for m in models),
        notes=(
            *marks(results.tasks),
            *_judged_labels(results),
            *(_ALL_WORDS,) * ("tf-idf-all" in models),
            *(f"{hybrid} joins {', '.join(parts)}." for hybrid, parts in results.hybrids.items()),
            *of_one_run,
            TRAINING_SET,
        ),
    )


def _judged_labels(results: Results) -> Iterator[str]:
    for task in results.tasks:
        if task.labels_judged < task.labels_evaluated:
            judged, total = count(task.labels_judged), count(task.labels_total)
            yield f"{task.task}: over {judged} of {total} labels, those that {_AT_LEAST_3}."


def perplexity_cell(row: MethodRow, split: str, digits: int = 2) -> Cell:
    """Perplexity of a method on a split, with its interval over patients where it has one."""
    value, ends = row.perplexity.get(split), row.intervals.get(split)
    detail = f"[{number(ends[0], digits)}, {number(ends[1], digits)}]" if ends else ""
    return Cell(number(value, digits), detail, value)


def perplexity_cells(row: MethodRow, splits: Iterable[str], digits: int = 2) -> Iterator[Cell]:
    """Perplexities of a method, that on the test notes with how it stands."""
    for split in splits:
        cell = perplexity_cell(row, split, digits)
        yield _marked(cell, row.standing) if split == "test" else cell


def marks_of_methods(methods: Sequence[MethodRow]) -> tuple[str, ...]:
    """What the marks of perplexities mean, if there are any."""
    return (MARKS_LEGEND, _OF_METHODS) if any(row.standing for row in methods) else ()


def flow_table(flow: Sequence[FlowCount]) -> Table:
    """The cohort, stage by stage, and under it the changes of characters."""
    return Table(
        "What each stage read and kept, and why it rejected the rest.",
        ("Stage", "Rejected because", "Read", "Kept", "Rejected"),
        in_cells(
            (
                stage.stage,
                _listed(f"{why}: {count(n)}" for why, n in stage.rejected.items()),
                *(stage.read, stage.kept, sum(stage.rejected.values())),
            )
            for stage in flow
        ),
        text_columns=2,
        notes=tuple(f"{stage.changes}." for stage in flow if stage.changes),
    )


def splits_table(results: Results) -> Table:
    """Sizes of the splits, with positives per class or their spread."""
    return Table(
        "Notes, patients and positives of each split.",
        ("Task", "Split", "Positives", "Notes", "Patients"),
        in_cells(
            (split.task, split.split, _positives(split), split.notes, split.patients)
            for split in results.splits
        ),
        text_columns=3,
    )


def task_table(task: TaskResult) -> Table:
    """The models of one task."""
    titles = {name: field.title for name, field in ModelRow.model_fields.items() if field.title}
    further = [name for name in titles if any(getattr(r, name) is not None for r in task.rows)]
    has_all = "auroc_all_labels" in further
    head, _ = runs_in_words(task.rows)
    columns = ["Model", "AUROC of each run", "AUROC" if task.kind == "binary" else "Macro AUROC"]
    columns += [titles[name] for name in further]
    lacks_interval = any(
        row.average_precision is not None and row.average_precision_interval is None
        for row in task.rows
    )
    return Table(
        f"{task.task}: scores on {count(task.notes)} {task.unit} of {count(task.patients)} "
        f"patients ({task.split} split): {head}.",
        (*columns, "Average precision", "Brier loss"),
        in_cells(
            (
                *(row.model, _runs(row), auroc_cell(row)),
                *(getattr(row, name) for name in further),
                *(_precision_cell(row), estimate_cell(row.brier)),
            )
            for row in task.rows
        ),
        text_columns=2,
        notes=(
            *marks([task]),
            _BRIER_LEGEND[task.kind],
            *([_ALL_LABELS.format(judged=count(task.labels_judged))] if has_all else []),
            *([_NO_PRECISION_INTERVAL] if lacks_interval else []),
        ),
    )


def calibration_table(task: TaskResult) -> Table:
    """Calibration of each model on a binary task."""
    return Table(
        f"{task.task}: calibration. Ideal are 1, 0, 1, 1 and 0.",
        ("Model", "Observed : expected", "Intercept", "Slope", "Scaled Brier", "ECE"),
        in_cells(
            (
                *(row.model, found.observed_expected, found.intercept, found.slope),
                *(found.scaled_brier, found.expected_calibration_error),
            )
            for row in task.rows
            if (found := row.calibration)
        ),
        notes=(
            "ECE: expected calibration error, over bins of equal size; chance alone keeps it above "
            "0 (a perfect model in simulations: near .1 with 100 notes, .04 with 500). Intercept "
            "of the logistic refit with the slope fixed at 1: below 0, risks are overestimated. "
            "Slope below 1: predictions are too extreme; n/a: constant, or separating the classes "
            "perfectly.",
        ),
    )


def labels_table(task: TaskResult) -> Table:
    """AUROC of every label and model."""
    models = [row.model for row in task.rows]
    return Table(
        f"{task.task}: AUROC of each of {count(len(task.labels))} labels "
        f"({count(task.labels_evaluated)} evaluated, {count(task.labels_skipped)} skipped).",
        ("Label", "Positives", *models),
        in_cells(
            (
                *(Cell(label.label, label.description), label.positives),
                *(label.aurocs.get(model) for model in models),
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
        in_cells(
            (
                *(cost.model, cost.stage, parameters_cell(cost), time_cell(cost.seconds)),
                number_cell(cost.tokens_per_second, 0),
                number_cell(cost.peak_memory_mib, 0),
            )
            for cost in results.costs
        ),
        text_columns=2,
        notes=("Tokens exclude padding. Features are computed once for all tasks and runs.",),
    )


def kept_table(results: Results) -> Table:
    """Which state of each training run was kept, and how it did on the validation notes."""
    found = [
        (kept, next((one for one in kept.evaluations if one.steps == kept.steps), None))
        for kept in results.kept
    ]
    return Table(
        "Which state of each training was kept.",
        ("Training", "Why", "Kept after step", "Steps", "Validation AUROC", "Validation loss"),
        in_cells(
            (
                *(kept.run, kept.why, kept.steps, kept.all_steps),
                *((one.auroc, one.loss) if one else (None, None)),
            )
            for kept, one in found
        ),
        text_columns=2,
        notes=(
            "Chosen on validation notes alone. The AUROC is macro over the labels with both values "
            "there, and too high an estimate, since it is the one chosen.",
        ),
        is_collapsed=len(results.kept) > _LABELS_SHOWN,
    )


def leakage_table(results: Results) -> Table:
    """Findings of the leak checks."""
    return Table(
        "Leak checks between sets of notes. The share is of the second set.",
        ("Check", "First set", "Second set", "Verdict", "Not judged", "Notes", "Share"),
        in_cells(
            (
                *(finding.check, finding.split_a, finding.split_b),
                Cell("blocks training", is_strong=True) if finding.blocks else "does not block",
                finding.not_judged,
                *_found(finding),
            )
            for finding in results.leakage
        ),
        text_columns=5,
    )


def _found(finding: Finding) -> tuple[Cell | int, Cell]:
    if not finding.is_judged:
        return Cell("not judged", sort=-1), Cell("", sort=-1)
    return finding.count, Cell(share(finding.share), sort=finding.share)


def provenance_table(results: Results) -> Table:
    """Versions, fingerprints and revision."""
    return Table(
        "Versions and fingerprints.",
        ("What", "Value"),
        in_cells(results.provenance.items()),
        text_columns=2,
    )


def marks(tasks: Sequence[TaskResult]) -> tuple[str, ...]:
    """What the marks mean, and where there are none because nothing can be judged."""
    lost = [task.task for task in tasks if not any(row.standing for row in task.rows)]
    meaning = [MARKS_LEGEND] if len(lost) < len(tasks) else []
    without = [f"Not judged, so without marks: {', '.join(lost)}."] if lost else []
    return (*meaning, *without)


def auroc_cell(row: ModelRow | HeadlineRow) -> Cell:
    """AUROC with its interval, and how it stands to the best."""
    return _marked(estimate_cell(row.auroc, row.reason), row.standing)


def _marked(cell: Cell, standing: Standing | None) -> Cell:
    mark = {"best": f" {BEST_MARK}", "tied": f" {TIE_MARK}"}.get(standing or "", "")
    return replace(cell, text=cell.text + mark, is_strong=standing == "best")


def _precision_cell(row: ModelRow) -> Cell:
    low_high = row.average_precision_interval
    if row.average_precision is None or low_high is None:
        return number_cell(row.average_precision)
    return estimate_cell(Estimate(row.average_precision, *low_high, row.brier.n))


def _runs(row: ModelRow) -> str:
    """The value of each run: few of them say little about their spread."""
    if row.is_deterministic and len(row.runs) == 1:
        return "always the same"
    return " ".join(map(number, row.auroc_per_run)) or NOT_AVAILABLE


def parameters_cell(row: MethodRow | Cost) -> Cell:
    """How many parameters trained, and their share of all."""
    trained, total, detail = row.trainable_parameters, row.total_parameters, ""
    if total:
        of_all = trained / total
        small = "< 0.01 %" if 0 < of_all < 1e-4 else f"{100 * of_all:.2f} %"
        detail = f"({small} of {count(total)})"
    return Cell(count(trained), detail, sort=trained)


def time_cell(seconds: float | None) -> Cell:
    """A time that sorts as one, or n/a."""
    return Cell(NOT_AVAILABLE if seconds is None else duration(seconds), sort=seconds)


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
