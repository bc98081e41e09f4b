"""From rows to notes: ids, cleaning, labels and counts, in chunks; for every table-like source."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.clean import clean_text
from notetune.sources.cohort import NOTES_SCHEMA, Finished, NoteStream
from notetune.sources.rejections import Rejected, Rejections
from notetune.sources.tables.files import Record
from notetune.sources.tables.lookup import Lookup, load_lookup
from notetune.sources.tables.tasks import (
    LabelSet,
    TableTask,
    TaskedSource,
    TaskRows,
    label_set,
    read_cell,
    read_feature,
    read_id,
    read_time,
)

NOTES_PER_CHUNK: Final = 10_000
_CHARS_PER_CHUNK: Final = 64_000_000


@dataclass(frozen=True)
class Layout:
    """Which cells of a record hold what.

    Attributes:
        text: The text.
        note_id: The note id; without it, a note is named after its source and line.
        patient_id: The patient id; without it, each note counts as its own patient.
        times: The time, the first of these that is filled in.
        features: Columns beside the text.
    """

    text: str
    note_id: str | None = None
    patient_id: str | None = None
    times: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RawNote:
    """A record that should become a note of a source, with the name it gets if it has no id."""

    record: Record
    source: str
    default_id: str


@dataclass(slots=True)
class _Note:
    note_id: str
    patient_id: str
    source: str
    time: datetime | None
    text: str
    labels: dict[str, LabelSet | None]
    """Task name to labels; None where the label is missing."""
    features: tuple[str | None, ...]


class TableReading:
    """One pass over a table-like source.

    In memory are the note ids, the labels, the tables beside the notes and one chunk of notes; with
    `merges`, all notes.

    Args:
        source: Its tasks, whose tables are read at once; what to do with bad rows; the longest text
            accepted.
        origin: What is read, for messages.
        layout: Where a record holds what.
        merges: Make one note of the notes of a patient with the same text.

    Attributes:
        rejections: The count of rows that the reader of the records also uses.

    Raises:
        DataError: If a table beside the notes is missing or faulty.
    """

    def __init__(
        self, source: TaskedSource, origin: Path, layout: Layout, *, merges: bool = False
    ) -> None:
        self.rejections = Rejections(source)
        self._origin = origin
        self._layout = layout
        self._max_chars = source.max_note_chars
        self._merges = merges
        self._tasks = [TaskRows(task, []) for task in source.tasks]
        self._lookups = {task.name: load_lookup(task, source) for task in source.tasks}
        self._used: dict[str, set[str]] = {task.name: set() for task in source.tasks}
        self._text_of: dict[str, int] = {}  # note id to the hash of its text
        self._columns: list[tuple[str | None, ...]] = []
        self._kept = 0
        self._merged_away = 0

    def columns(self, *more: str | None) -> list[str]:
        """The columns of a record that notes and tasks are made of, and some more, each once."""
        layout = self._layout
        of_tasks = (column for task in self._tasks for column in task.spec.note_columns)
        own = (layout.note_id, layout.patient_id, *layout.times, layout.text)
        named = (*own, *of_tasks, *layout.features, *more)
        return list(dict.fromkeys(name for name in named if name is not None))

    def stream(self, records: Iterable[Record], note_of: Callable[[Record], RawNote]) -> NoteStream:
        """The notes of the records, and then their tasks and flow.

        Args:
            records: With the cells of `columns`, counted in `rejections`.
            note_of: What a record is; may raise `Rejected`.

        Raises:
            DataError: While reading, as the docstring of the source says.
        """
        return NoteStream(self._chunks(self._usable(records, note_of)), self._finish)

    def _chunks(self, notes: Iterator[_Note]) -> Iterator[pl.DataFrame]:
        if self._merges:
            notes = iter(self._merged(list(notes)))
        for chunk in _chunked(notes):
            self._kept += len(chunk)
            if self._layout.features:
                self._columns += [(note.note_id, *note.features) for note in chunk]
            for task in self._tasks:
                task.add([(note.note_id, note.labels[task.spec.name]) for note in chunk])
            frame = _frame(chunk)
            chunk.clear()  # or this text would stay while the next chunk is gathered
            yield frame
            del frame
        self.rejections.check_share(self._origin)
        if not self._kept:
            raise DataError(
                f"{self._origin}: none of its {self.rejections.rows_read} rows can be used; see "
                f"the column {self._layout.text} of the text."
            )

    def _usable(
        self, records: Iterable[Record], note_of: Callable[[Record], RawNote]
    ) -> Iterator[_Note]:
        for record in records:
            name = None
            try:
                raw = note_of(record)
                name = self._name(raw)
                note = self._note(raw, name)
            except Rejected as fault:
                self.rejections.reject((record.file, record.line), fault, name)
                continue
            self._text_of[name] = hash(note.text)
            yield note

    def _name(self, raw: RawNote) -> str:
        column, record = self._layout.note_id, raw.record
        if column is None:
            return raw.default_id
        return read_id(record.where, column, record.cells[column], "note")

    def _note(self, raw: RawNote, name: str) -> _Note:
        layout, record = self._layout, raw.record
        text = self._text(record)
        if name in self._text_of:
            is_same = self._text_of[name] == hash(text)
            rule = f"note id repeated with {'the same' if is_same else 'another'} text"
            raise Rejected(rule, "give each note its own id, once")
        patient_id = name
        if (column := layout.patient_id) is not None:
            patient_id = read_id(record.where, column, record.cells[column], "patient")
        times = (read_time(record.cells[column]) for column in layout.times)
        time = next((time for time in times if time is not None), None)
        labels = {task.spec.name: self._labels(task.spec, record) for task in self._tasks}
        features = tuple(
            read_feature(record.where, column, record.cells[column]) for column in layout.features
        )
        return _Note(name, patient_id, raw.source, time, text, labels, features)

    def _text(self, record: Record) -> str:
        column = self._layout.text
        text = record.cells[column] or ""
        if not isinstance(text, str):
            raise DataError(f"{record.where}: column {column} is not text; name the text column.")
        if len(text) > self._max_chars:
            rule = f"text over {self._max_chars:,} characters"
            raise Rejected(rule, "split the note, or raise max_note_chars")
        text = clean_text(text)
        if not text:
            raise Rejected("empty text", "fill in the text or remove the row")
        return text

    def _labels(self, task: TableTask, record: Record) -> LabelSet | None:
        lookup = self._lookups[task.name]
        if lookup is None:
            labels = label_set(task, record.where, record.cells)
            if labels is None and self.rejections.is_strict:
                rule = f"missing label of task {task.name}"
                raise Rejected(rule, "fill in the label or remove the row")
            return labels
        key = read_cell(record.where, task.column, record.cells[task.column])
        labels = lookup.by_id.get(key)
        if labels is None:
            return None
        self._used[task.name].add(key)
        moment = task.prediction_time if task.labels is None else None
        return labels if moment is None else (labels[0], read_time(record.cells[moment]))

    def _merged(self, notes: list[_Note]) -> list[_Note]:
        """One note per patient and text, in order of first appearance, with the union of labels.

        Without a patient column, the text alone decides.
        """
        by_patient = self._layout.patient_id is not None
        first: dict[tuple[str, str], _Note] = {}
        for note in notes:
            key = (note.patient_id if by_patient else "", note.text)
            kept = first.setdefault(key, note)
            if kept is not note:
                self._merged_away += 1
                for task in self._tasks:
                    self._unite(task.spec, kept, note)
        return list(first.values())

    def _unite(self, task: TableTask, kept: _Note, note: _Note) -> None:
        mine, theirs = kept.labels[task.name], note.labels[task.name]
        if mine is None or theirs is None:
            kept.labels[task.name] = mine or theirs
            return
        if mine[1] != theirs[1] or (task.kind != "multilabel" and mine[0] != theirs[0]):
            raise DataError(
                f"{self._origin}: notes {kept.note_id} and {note.note_id} have the same text and "
                f"different labels or prediction times of task {task.name}; mend one, or keep "
                "duplicate_texts."
            )
        kept.labels[task.name] = (sorted({*mine[0], *theirs[0]}), mine[1])

    def _finish(self) -> Finished:
        read, counts = self.rejections.rows_read, self.rejections.counts()
        usable = self._kept + self._merged_away
        flow = [FlowCount("notes", read, usable, counts)]
        if self._merges:
            repeated = {"same text as an earlier note": self._merged_away}
            flow.append(FlowCount("merge of equal texts", usable, self._kept, repeated))
        if self._layout.patient_id is None:
            stage = "no patient id: each note counts as its own patient"
            flow.append(FlowCount(stage, self._kept, self._kept))
        tasks, rejections = [], [self.rejections.table()]
        for rows in self._tasks:
            lookup = self._lookups[rows.spec.name]
            if lookup is not None:
                flow += [lookup.flow, self._met_flow(rows.spec, lookup)]
                rejections.append(lookup.rejections)
            task, table = rows.table(self._origin)
            tasks.append((task, table))
            without = {"missing label": self._kept - table.height}
            flow.append(FlowCount(f"task {task.name}", self._kept, table.height, without))
        columns = None
        if names := self._layout.features:
            schema = dict.fromkeys(("note_id", *names), pl.String)
            columns = pl.DataFrame(self._columns, schema=schema, orient="row")
        return Finished(tuple(tasks), tuple(flow), pl.concat(rejections), columns=columns)

    def _met_flow(self, task: TableTask, lookup: Lookup) -> FlowCount:
        """How many ids of a table beside the notes have a note.

        Raises:
            DataError: With policy strict, if a label is for a note id that does not exist.
        """
        ids, met = len(lookup.by_id), len(self._used[task.name])
        is_by_note = task.labels is not None and task.column == self._layout.note_id
        if is_by_note and met < ids and self.rejections.is_strict:
            raise DataError(
                f"{self._origin}: {ids - met} of the {ids} notes with a label of task {task.name} "
                "do not exist; write their ids alike in both tables, or set policy: quarantine to "
                "leave such labels out and count them."
            )
        return FlowCount(
            f"ids of the table for task {task.name}", ids, met, {"no such note": ids - met}
        )


def _chunked(notes: Iterable[_Note]) -> Iterator[list[_Note]]:
    chunk: list[_Note] = []
    chars = 0
    for note in notes:
        chunk.append(note)
        chars += len(note.text)
        if len(chunk) == NOTES_PER_CHUNK or chars >= _CHARS_PER_CHUNK:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _frame(notes: Sequence[_Note]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        name: [getattr(note, name) for note in notes] for name in NOTES_SCHEMA
    }
    return pl.DataFrame(columns, schema=NOTES_SCHEMA)
