"""The tasks of a source that a recipe wants, split by patient and fit to be taught."""

from collections.abc import Sequence

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import ConfigError
from notetune.notes import outcomes
from notetune.notes.outcomes import Task
from notetune.notes.overlap import LATE, SAME_DAY, UNFORETOLD
from notetune.prepare.checks import late_note_ids
from notetune.prepare.settings import Preparation
from notetune.sources import splits
from notetune.sources.cohort import SAMPLE_ID, Finished
from notetune.sources.mimic import published


def wanted_tasks(named: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The names of the tasks to prepare: all that are known where none is named.

    Raises:
        ConfigError: If one is named that is not known.
    """
    for name in named:
        if name not in known:
            raise ConfigError(
                f"downstream.tasks: the source has no task {name}; it has "
                f"{', '.join(known) or 'none'}."
            )
    return named or known


def split_tasks(
    spec: Preparation, finished: Finished, notes: pl.DataFrame, assignment: pl.DataFrame
) -> tuple[list[tuple[Task, pl.DataFrame]], list[FlowCount]]:
    """The wanted tasks, their tables with a split, and their flow."""
    by_name = {task.name: (task, table) for task, table in finished.tasks}
    tasks, flow = [], []
    for name in wanted_tasks(spec.tasks, list(by_name)):
        task, labels = by_name[name]
        table, lost = splits.split_table(labels, notes, assignment)
        what = "samples" if SAMPLE_ID in table.columns else "labelled notes"
        flow.append(split_flow(f"{task.name}: {what}", table.height + lost, table.height))
        if spec.config.late_notes == "drop":
            table, dropped = _in_time(task, table, notes)
            flow.append(dropped)
        tasks.append((task, table))
    return tasks, flow


def _in_time(
    task: Task, table: pl.DataFrame, notes: pl.DataFrame
) -> tuple[pl.DataFrame, FlowCount]:
    """The table without notes from after the prediction time, or of its day without an hour.

    And without those that have none, where others do: nobody can say what of them was known.
    """
    late, of_the_day, unforetold = (
        table["note_id"].is_in(late_note_ids(notes, table, reason).implode())
        for reason in (LATE, SAME_DAY, UNFORETOLD)
    )
    is_out = late | of_the_day
    reasons = {LATE: int(late.sum())}
    if unforetold.any() and not unforetold.all():
        is_out |= unforetold
        reasons[UNFORETOLD] = int(unforetold.sum())
    kept = table.filter(~is_out)
    if unknown := int((of_the_day & ~late).sum()):
        reasons[SAME_DAY] = unknown
    return kept, FlowCount(f"{task.name}: notes in time", table.height, kept.height, reasons)


def checked(
    tasks: Sequence[tuple[Task, pl.DataFrame]], min_train_positives: int
) -> tuple[list[tuple[Task, pl.DataFrame]], list[FlowCount]]:
    """Tasks that can be taught, with the classes that are frequent enough, and how many those are.

    Of a task that is not multilabel all classes stay, and nothing is counted.
    """
    kept, flow = [], []
    rare = f"fewer than {min_train_positives} training notes"
    for found, labels in tasks:
        task, table = outcomes.keep_frequent_classes(found, labels, min_train_positives)
        outcomes.check_labels(task, table)
        outcomes.check_train_classes(task, table)
        kept.append((task, table))
        if task.kind == "multilabel":
            read, left = len(found.classes), len(task.classes)
            flow.append(FlowCount(f"labels of task {task.name}", read, left, {rare: read - left}))
    return kept, flow


def split_flow(stage: str, read: int, kept: int) -> FlowCount:
    """Notes that a patient split kept."""
    return FlowCount(stage, read, kept, {"patient in no split": read - kept})


def is_labelled(notes: pl.DataFrame, tasks: list[tuple[Task, pl.DataFrame]]) -> pl.Series:
    """Boolean, which of the notes have a label of some task."""
    ids = [table["note_id"] for _, table in tasks] or [pl.Series([], dtype=pl.String)]
    return notes["note_id"].is_in(pl.concat(ids).unique().implode())


def published_counts(
    spec: Preparation, finished: Finished, tasks: Sequence[tuple[Task, pl.DataFrame]]
) -> dict[str, int | str]:
    """The figures of the cohort that are published too; its tasks are published for MIMIC-III."""
    kind = spec.source.kind
    if kind not in ("mimic3", "mimic4"):
        return {}
    counts = published.flow_counts(kind, finished.flow)
    if kind == "mimic3":
        counts["patients"] = finished.patient_count
        for task, table in tasks:
            counts |= published.task_counts(task, table)
    return counts
