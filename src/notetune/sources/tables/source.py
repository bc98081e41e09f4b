"""Notes and labels in a table of the user's own: CSV, JSON lines or Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from notetune.config import Config
from notetune.sources.cohort import NoteStream
from notetune.sources.rejections import ReadingPolicy, Rejections
from notetune.sources.tables.files import read_records, table_files
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import TableTask
from notetune.strict_csv import MAX_CELL_CHARS


class TableColumns(Config):
    """Which columns hold what."""

    text: str
    note_id: str | None = None
    """Without it, a note is named after its source and line (and the number of its file, if there
    are several)."""
    patient_id: str | None = None
    """Without it, each note counts as its own patient, and the flow says so."""
    time: str | None = None


class TaskedSource(ReadingPolicy):
    """A source whose tasks are described in the recipe."""

    tasks: tuple[TableTask, ...] = ()
    max_note_chars: PositiveInt = MAX_CELL_CHARS

    @model_validator(mode="after")
    def _task_names_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self

    @property
    def task_columns(self) -> list[str]:
        """The columns of the notes that the tasks need."""
        return [column for task in self.tasks for column in task.note_columns]


class TableSource(TaskedSource):
    """A row per note."""

    kind: Literal["table"]
    path: Path
    """.csv, .csv.gz, .jsonl, .jsonl.gz or .parquet; a folder of Parquet files; or a pattern such as
    `shards/*.parquet`."""
    columns: TableColumns
    source: str = "note"
    """What the notes are: it groups them in reports."""
    features: tuple[str, ...] = ()
    """Columns beside the text, such as [age, sex]: a column of numbers alone is standardised, any
    other is one feature for each level that enough patients share; empty cells have their own."""
    coded_features: tuple[str, ...] = ()
    """Those of `features` whose numbers are codes, so that each number is a level."""
    duplicate_texts: Literal["keep", "merge"] = "keep"
    """merge: notes of one patient with the same text become one note with all their labels. It
    holds all notes in memory."""

    @model_validator(mode="after")
    def _codes_are_features(self) -> Self:
        if unknown := [name for name in self.coded_features if name not in self.features]:
            raise ValueError(f"coded_features: {unknown[0]} is none of the features; add it there")
        if len(set(self.features)) != len(self.features):
            raise ValueError("features: a column is named twice")
        return self


def open_table(source: TableSource) -> NoteStream:
    """Begin to read the table.

    An empty label cell is a missing label: the note stays, without that task (strict stops). An
    empty list (JSON lines, Parquet) says that a multilabel note has none of the classes.

    Raises:
        DataError: Here or while reading, if a file is missing or faulty; with policy strict at the
            first bad row; with quarantine if there are too many; if merged notes disagree on a
            binary or multiclass label; if nothing is left.
    """
    columns = source.columns
    rejections = Rejections(source)
    times = () if columns.time is None else (columns.time,)
    reading = TableReading(
        source.path,
        Layout(columns.text, columns.note_id, columns.patient_id, times, source.features),
        source.tasks,
        source,
        rejections,
        max_chars=source.max_note_chars,
        merges=source.duplicate_texts == "merge",
    )
    return reading.stream(_rows(source, table_files(source.path), rejections))


def _rows(source: TableSource, files: Sequence[Path], rejections: Rejections) -> Iterator[RawNote]:
    mapped = [*source.columns.model_dump().values(), *source.task_columns, *source.features]
    wanted = list(dict.fromkeys(name for name in mapped if name is not None))
    for number, file in enumerate(files, start=1):
        prefix = source.source if len(files) == 1 else f"{source.source}-{number}"
        for record in read_records([file], wanted, rejections, source.max_note_chars):
            yield RawNote(record, source.source, f"{prefix}-{record.line}")
