"""Notes and labels in a table of the user's own: CSV, JSON lines or Parquet."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from notetune.config import Config, Shown
from notetune.sources.cohort import NoteStream
from notetune.sources.tables.files import of_recipe, read_records, table_files
from notetune.sources.tables.records import Record
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import TaskedSource


class TableColumns(Config):
    """Which columns hold what."""

    text: Shown
    note_id: Shown | None = None
    """Without it, a note is named after its source and line (and the number of its file, if there
    are several)."""
    patient_id: Shown | None = None
    """Without it, each note, or each stay, counts as its own patient, and the flow says so."""
    stay_id: Shown | None = None
    """The stay (admission, visit, encounter) of each note, for `prepare.join` and
    `evaluate.combine`; no two patients may share one. An empty cell: the note is of no stay."""
    time: Shown | None = None


class TableSource(TaskedSource):
    """A row per note."""

    kind: Literal["table"]
    path: Path
    """.csv, .csv.gz, .jsonl, .jsonl.gz or .parquet; a folder of Parquet files; or a pattern such as
    `shards/*.parquet`."""
    columns: TableColumns
    source: Shown = "note"
    """What the notes are: it groups them in reports."""
    features: tuple[Shown, ...] = ()
    """Columns beside the text, such as [age, sex]: a column of numbers alone is standardised, any
    other is one feature for each level that enough patients share; empty cells have their own."""
    coded_features: tuple[str, ...] = ()
    """Those of `features` whose numbers are codes, so that each number is a level."""
    duplicate_texts: Literal["keep", "merge"] = "keep"
    """merge: notes of one patient, and of one stay, with the same text become one note with all
    their labels and the earliest of their times. It holds all notes in memory."""

    @model_validator(mode="after")
    def _codes_are_features(self) -> Self:
        if unknown := [name for name in self.coded_features if name not in self.features]:
            raise ValueError(f"coded_features: {unknown[0]} is none of the features; add it there")
        if len(set(self.features)) != len(self.features):
            raise ValueError("features: a column is named twice")
        outcomes = {
            task.column.lower(): task.name
            for task in self.tasks
            if task.column and not (task.labels or task.codes or task.samples)
        }
        if told := [name for name in self.features if name.lower() in outcomes]:
            raise ValueError(
                f"features: column {told[0]} is the outcome of task {outcomes[told[0].lower()]}, "
                "which would tell the answer"
            )
        return self

    @property
    def split_table(self) -> dict[str, Path | str | None]:
        """Where a split of kind column is when it does not say so: in the notes themselves."""
        return {"path": self.path, "patient_id": next(iter(self.patient_columns), None)}

    @property
    def patient_columns(self) -> tuple[str, ...]:
        """The columns that say whose a note is."""
        columns = self.columns
        named = (columns.patient_id,) if columns.patient_id else (columns.stay_id, columns.note_id)
        return tuple(name for name in named if name is not None)

    def patient_of(self) -> Callable[[Record], str]:
        """What gives the patient of a row with `patient_columns`, as the notes themselves have it.

        Without a column of patients that is the stay, and of a note of no stay the note.
        """
        columns, default_id = self.columns, self._default_id()

        def patient(row: Record) -> str:
            if columns.patient_id is not None:
                return row.id(columns.patient_id, "patient")
            stay = None if columns.stay_id is None else row.stay(columns.stay_id)
            if stay is not None:
                return stay
            return default_id(row) if columns.note_id is None else row.id(columns.note_id, "note")

        return patient

    def open(self) -> NoteStream:
        """Begin to read the table.

        An empty label cell is a missing label: the note stays, without that task (strict stops). An
        empty list (JSON lines, Parquet) says that a multilabel note has none of the classes.

        Raises:
            DataError: Here or while reading, if a file is missing or faulty; with policy strict at
                the first bad row; with quarantine if there are too many; if merged notes disagree
                on a binary or multiclass label; if nothing is left.
        """
        columns, default_id = self.columns, self._default_id()
        times = () if columns.time is None else (columns.time,)
        ids = (columns.note_id, columns.patient_id, columns.stay_id)
        layout = Layout(columns.text, *ids, times, self.features)
        reading = TableReading(self, self.path, layout, merges=self.duplicate_texts == "merge")
        asked = (reading.columns(), reading.rejections, self.max_note_chars)
        records = read_records(table_files(self.path), *asked)
        return reading.stream(
            self._named(records), lambda row: RawNote(row, self.source, default_id(row))
        )

    def _default_id(self) -> Callable[[Record], str]:
        """What names a note that has no id: its line and, of several, the number of its file."""
        files = table_files(self.path)
        prefixes = {file: f"{self.source}-{n}" for n, file in enumerate(files, start=1)}
        if len(files) == 1:
            prefixes = {files[0]: self.source}
        return lambda row: f"{prefixes[row.file]}-{row.line}"

    def _named(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records; a column that is missing is named with its key of the recipe."""
        tasks = {f"task {task.name}": task for task in self.tasks}
        with of_recipe({"columns": self.columns, **tasks, "source": self}):
            yield from records
