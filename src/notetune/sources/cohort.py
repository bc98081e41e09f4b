"""What every source gives: notes, task tables, and a count of every row that was left out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.outcomes import Task

NOTES_SCHEMA: Final = {
    "note_id": pl.String(),
    "patient_id": pl.String(),
    "stay_id": pl.String(),
    "source": pl.String(),
    "time": pl.Datetime("us"),
    "text": pl.String(),
}
"""A stay is an admission, visit or encounter of one patient; its id is null where none is known."""
TASK_SCHEMA: Final = {"note_id": pl.String(), "labels": pl.List(pl.String())}
PREDICTION_TIME: Final = "prediction_time"
"""Column that a task table may also have: the moment from which the outcome is to be foretold."""
TIMED_TASK_SCHEMA: Final = {**TASK_SCHEMA, PREDICTION_TIME: pl.Datetime("us")}
SAMPLE_ID: Final = "sample_id"
"""Column of a task table in which a note may stand several times: what tells its rows apart."""
SAMPLED_TASK_SCHEMA: Final = {**TIMED_TASK_SCHEMA, SAMPLE_ID: pl.String()}
REJECTIONS_SCHEMA: Final = {
    "file": pl.String(),
    "line": pl.Int64(),
    "note_id": pl.String(),
    "reason": pl.String(),
}
"""Rows that a source could not use; the note id is null where it was not read. Never any text."""


@dataclass(frozen=True)
class Finished:
    """What is known of a source when all its notes have been read.

    Each task comes with a table of `TASK_SCHEMA` on its notes (and `PREDICTION_TIME`, where it is
    known), or of `SAMPLED_TASK_SCHEMA`. `rejections` has the columns of `REJECTIONS_SCHEMA`.
    `patient_count` is the number of patients of the tasks' cohort, for sources that have one.
    `columns` has the cells beside each note as text, null where they are empty; it is None where
    the source was asked for none.
    """

    tasks: tuple[tuple[Task, pl.DataFrame], ...]
    flow: tuple[FlowCount, ...]
    rejections: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECTIONS_SCHEMA))
    patient_count: int = 0
    columns: pl.DataFrame | None = None


@dataclass(frozen=True)
class NoteStream:
    """A source that is being read: its notes in chunks, and the rest once they have all passed."""

    chunks: Iterator[pl.DataFrame]
    """Frames of `NOTES_SCHEMA`, the same chunks in the same order at every reading."""
    finish: Callable[[], Finished]
    """To be called when `chunks` is used up."""


def without_tasks(stream: NoteStream) -> NoteStream:
    """The same notes without their labels."""
    return NoteStream(stream.chunks, lambda: replace(stream.finish(), tasks=()))


@dataclass(frozen=True)
class Cohort(Finished):
    """A source that was read: also its notes, of `NOTES_SCHEMA` with unique ids."""

    notes: pl.DataFrame = field(kw_only=True)


def reject(
    stage: str, frame: pl.DataFrame, reasons: Mapping[str, pl.Expr]
) -> tuple[pl.DataFrame, FlowCount]:
    """The rows to which no reason applies, and the count of the others by first reason.

    Args:
        stage: Name of the stage in the flow.
        frame: Rows to filter; their order is kept.
        reasons: Reason to boolean expression, tried in order, each on the rows that the ones
            before it left; null counts as false.
    """
    rejected: dict[str, int] = {}
    kept = frame
    for reason, applies in reasons.items():
        before, kept = kept.height, kept.filter(~applies.fill_null(value=False))
        rejected[reason] = before - kept.height
    return kept, FlowCount(stage, frame.height, kept.height, rejected)


def label_table(note_ids: pl.Series, labels: Sequence[Sequence[str]]) -> pl.DataFrame:
    """A table of `TASK_SCHEMA`."""
    return pl.DataFrame({"note_id": note_ids, "labels": labels}, schema=TASK_SCHEMA)


def outcome_table(task: Task, note_ids: pl.Series, is_positive: pl.Series) -> pl.DataFrame:
    """The table of a binary task."""
    return label_table(note_ids, [task.classes if positive else () for positive in is_positive])


def refuse_repeated_ids(notes: pl.DataFrame) -> None:
    """Stop where two notes have the same id.

    Raises:
        DataError: With one such id and the number of its notes.
    """
    repeated = notes["note_id"].filter(notes["note_id"].is_duplicated())
    if len(repeated):
        raise DataError(
            f"note id {repeated[0]} is given to {(repeated == repeated[0]).sum()} notes "
            f"({repeated.n_unique()} ids are repeated). Make note ids unique."
        )


def stop_if_any(path: Path, table: pl.DataFrame, is_bad: pl.Expr, rule: str, remedy: str) -> None:
    """Stop at the first row of a table with `line` for which `is_bad` is true (null is false).

    Raises:
        DataError: With file, line, rule (it must not hold a cell), number of such rows and remedy.
    """
    lines = table.filter(is_bad)["line"]
    if lines.len():
        raise DataError(
            f"{path}, line {lines[0]}: {rule} ({lines.len()} of {table.height} rows); {remedy}."
        )
