"""From rows to notes: ids, cleaning, labels and counts, in chunks; for every table-like source."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.clean import Cleaned, cleaned
from notetune.sources.cohort import (
    NOTES_SCHEMA,
    PREDICTION_TIME,
    TIMED_TASK_SCHEMA,
    Finished,
    NoteStream,
)
from notetune.sources.rejections import Rejected, Rejections
from notetune.sources.tables.labels import LabelSet, label_set, moment
from notetune.sources.tables.lookup import ENDED, Lookup, absence_notice, load_lookup
from notetune.sources.tables.records import Record
from notetune.sources.tables.roll_up import load_roll_up
from notetune.sources.tables.samples import load_samples
from notetune.sources.tables.tasks import TableTask, TaskedSource, checked_task
from notetune.sources.tables.zones import Zones

NOTES_PER_CHUNK: Final = 10_000
_CHARS_PER_CHUNK: Final = 64_000_000
_MARKUP: Final = ("{\\rtf", "<html", "<HTML", "<!DOCTYPE html", "<!doctype html", "<?xml")


@dataclass(frozen=True)
class Layout:
    """Which cells of a record hold what."""

    text: str
    note_id: str | None = None
    """Without it, a note has the `default_id` of its `RawNote`."""
    patient_id: str | None = None
    """Without it, each note counts as its own patient; each stay, where that is known."""
    stay_id: str | None = None
    times: tuple[str, ...] = ()
    """The time is the first of these that is filled in."""
    features: tuple[str, ...] = ()


class RawNote(NamedTuple):
    """A record that should become a note of a source, with the name it gets if it has no id."""

    record: Record
    source: str
    default_id: str = ""


@dataclass(slots=True)
class _Note:
    note_id: str
    patient_id: str
    stay_id: str | None
    source: str
    time: datetime | None
    text: str
    labels: dict[str, LabelSet | None]
    """Task name to labels; None where the label is missing."""
    ids: dict[str, str]
    """Task name to the id that its labels, codes or samples are looked up by."""
    features: tuple[str | None, ...]
    changes: tuple[str, ...]


class TableReading:
    """One pass over a table-like source.

    In memory are the note ids, the labels, the tables beside the notes and one chunk of notes; with
    `merges`, which makes one note of the notes of a patient with the same text, all notes.
    `rejections` is the count of rows that the reader of the records also uses.

    Raises:
        DataError: If a table beside the notes is missing or faulty.
    """

    def __init__(
        self, source: TaskedSource, origin: Path, layout: Layout, *, merges: bool = False
    ) -> None:
        self.rejections = Rejections(source)
        self._source, self._origin, self._layout, self._merges = source, origin, layout, merges
        self._roll_ups = {task.name: load_roll_up(task, source) for task in source.tasks}
        self._lookups = {
            task.name: load_lookup(task, source, self._roll_ups[task.name]) for task in source.tasks
        }
        are_foretold = any(task.samples or task.prediction_time for task in source.tasks)
        are_compared = are_foretold or layout.stay_id is not None  # the notes of a stay
        self._zones = Zones(are_compared=are_compared)
        self._samples = {
            task.name: load_samples(task, source, self._roll_ups[task.name], self._zones)
            for task in source.tasks
            if task.samples
        }
        self._labelled: dict[str, list[pl.DataFrame]] = {
            task.name: [] for task in source.tasks if not task.samples
        }
        self._text_of: dict[str, int] = {}  # note id to the hash of its text
        self._columns: list[tuple[str | None, ...]] = []
        self._changed: Counter[str] = Counter()
        self._marked_up = 0
        self._absent: Counter[str] = Counter()  # task to its notes whose id the table lacks
        self._nearly: Counter[str] = Counter()  # task to its notes whose id it has in another form
        self._ended: Counter[str] = Counter()  # task to its notes of stays that had ended
        self._kept = 0
        self._merged_away = 0

    def columns(self, *more: str | None) -> list[str]:
        """The columns of a record that notes and tasks are made of, and some more, each once."""
        layout = self._layout
        of_tasks = (column for task in self._source.tasks for column in task.note_columns)
        own = (layout.note_id, layout.patient_id, layout.stay_id, *layout.times, layout.text)
        named = (*own, *of_tasks, *layout.features, *more)
        return list(dict.fromkeys(name for name in named if name is not None))

    def stream(
        self, records: Iterable[Record], note_of: Callable[[Record], RawNote | None]
    ) -> NoteStream:
        """The notes of records with the cells of `columns`, and then their tasks and flow.

        `note_of` may raise `Rejected`, and gives None for a record that it left out and counted.
        Errors are those that `TableSource.open` names.
        """
        return NoteStream(self._chunks(self._usable(records, note_of)), self._finish)

    def has(self, note_id: str) -> bool:
        """Whether a note of this id was kept."""
        return note_id in self._text_of

    def _chunks(self, notes: Iterator[_Note]) -> Iterator[pl.DataFrame]:
        if self._merges:
            notes = iter(self._merged(notes))
        for chunk in _chunked(notes):
            self._kept += len(chunk)
            if self._layout.features:
                self._columns += [(note.note_id, *note.features) for note in chunk]
            for name, samples in self._samples.items():
                for note in chunk:
                    samples.see(note.ids[name], note.time, note.note_id)
            for name, frames in self._labelled.items():
                found = ((note.note_id, note.labels[name]) for note in chunk)
                rows = [(note_id, *labels) for note_id, labels in found if labels is not None]
                frames.append(pl.DataFrame(rows, schema=TIMED_TASK_SCHEMA, orient="row"))
                if (lookup := self._lookups[name]) is not None:
                    for note in chunk:
                        key, is_labelled = note.ids[name], note.labels[name] is not None
                        self._absent[name] += is_labelled and key not in lookup.by_id
                        self._nearly[name] += lookup.nearly_has(key)
                        self._ended[name] += key in lookup.ended and not is_labelled
            frame = pl.DataFrame(
                {name: [getattr(note, name) for note in chunk] for name in NOTES_SCHEMA},
                schema=NOTES_SCHEMA,
            )
            chunk.clear()  # or this text would stay while the next chunk is gathered
            yield frame
            del frame
        self.rejections.check_share(self._origin)
        if not self._kept:
            counts, read = self.rejections.counts(), self.rejections.rows_read
            why = "; ".join(f"{rule}: {number}" for rule, number in counts.items())
            raise DataError(
                f"{self._origin}: none of its {read} rows can be used ({why}); check the path, and "
                f"the column {self._layout.text} of the text."
            )

    def _usable(
        self, records: Iterable[Record], note_of: Callable[[Record], RawNote | None]
    ) -> Iterator[_Note]:
        column = self._layout.note_id
        for record in records:
            name = None
            try:
                if (raw := note_of(record)) is None:
                    continue
                name = raw.default_id if column is None else raw.record.id(column, "note")
                note = self._note(raw, name)
            except Rejected as fault:
                self.rejections.reject(record.file, record.line, fault, name)
                continue
            self._text_of[name] = hash(note.text)
            self._changed.update(note.changes)
            self._marked_up += note.text.startswith(_MARKUP)
            yield note

    def _note(self, raw: RawNote, name: str) -> _Note:
        layout, record = self._layout, raw.record
        text, changes = self._text(record)
        if name in self._text_of:
            is_same = self._text_of[name] == hash(text)
            rule = f"note id repeated with {'the same' if is_same else 'another'} text"
            raise Rejected(rule, "give each note its own id, once")
        stay_id = None if layout.stay_id is None else record.stay(layout.stay_id)
        column = layout.patient_id
        patient_id = (stay_id or name) if column is None else record.id(column, "patient")
        time = self._time(record)
        labels, ids = {}, {}
        for task in self._source.tasks:
            if task.samples or self._lookups[task.name]:
                ids[task.name] = record.name(task.column)
            if not task.samples:
                found = self._labels(task, record)
                if found and task.prediction_time:  # comparable with those of the notes
                    moment = self._zones.without(found[1], task.prediction_time, record.where)
                    found = found[0], moment
                labels[task.name] = found
        features = tuple(map(record.feature, layout.features))
        about = (name, patient_id, stay_id, raw.source, time, text)
        return _Note(*about, labels, ids, features, changes)

    def _time(self, record: Record) -> datetime | None:
        for column in self._layout.times:
            if (time := record.time(column)) is not None:
                return self._zones.without(time, column, record.where, may_be_day=True)
        return None

    def _text(self, record: Record) -> Cleaned:
        column, most = self._layout.text, self._source.max_note_chars
        text = record.cells[column] or ""
        if not isinstance(text, str):
            raise DataError(f"{record.where}: column {column} is not text; name the text column.")
        if len(text) > most:
            rule = f"text over {most:,} characters"
            raise Rejected(rule, "split the note, or raise max_note_chars")
        found = cleaned(text)
        if not found.text:
            raise Rejected("empty text", "fill in the text or remove the row")
        return found

    def _labels(self, task: TableTask, record: Record) -> LabelSet | None:
        lookup = self._lookups[task.name]
        if lookup is None:
            labels = label_set(task, record, self._roll_ups[task.name].classes)
            if labels is None and self.rejections.is_strict:
                rule = f"missing label of task {task.name}"
                raise Rejected(rule, "fill in the label or remove the row")
            return labels
        key = record.name(task.column)
        labels = lookup.by_id.get(key)
        is_left_out = key in lookup.unknown or key in lookup.ended
        if labels is None and (is_left_out or not (key and task.absent_is_negative)):
            return None
        (lookup.met if labels else lookup.absent).add(key)
        labels = labels or ([], None)
        return labels if task.labels else (labels[0], moment(task, record))

    def _merged(self, notes: Iterable[_Note]) -> list[_Note]:
        """One note per patient, stay and text, as they first appear, with the union of labels.

        Its time is the earliest that is known. Without a patient column, the text alone decides.
        """
        by_patient = self._layout.patient_id is not None
        first: dict[tuple[str, str | None, str], _Note] = {}
        others: list[tuple[dict[str, str], _Note]] = []
        for note in notes:
            key = (note.patient_id if by_patient else "", note.stay_id, note.text)
            kept = first.setdefault(key, note)
            if kept is not note:
                self._merged_away += 1
                others.append((note.ids, kept))
                kept.time = min(filter(None, (kept.time, note.time)), default=None)
                for task in self._source.tasks:
                    if not task.samples:
                        self._unite(task, kept, note)
        for name, samples in self._samples.items():
            for ids, kept in others:
                if ids[name] != kept.ids[name]:  # the chunks show it under its own
                    samples.see(ids[name], kept.time, kept.note_id)
        return list(first.values())

    def _unite(self, task: TableTask, kept: _Note, note: _Note) -> None:
        lookup = self._lookups[task.name]
        if lookup is not None and kept.ids[task.name] not in lookup.by_id:
            kept.ids[task.name] = note.ids[task.name]
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
        usable = self._kept + self._merged_away
        read, rejected = self.rejections.rows_read, self.rejections.counts()
        notice = _markup_notice(self._marked_up, usable)
        flow = [FlowCount("notes", read, usable, rejected, dict(self._changed), notice)]
        if self._merges:
            repeated = {"same text as an earlier note": self._merged_away}
            flow.append(FlowCount("merge of equal texts", usable, self._kept, repeated))
        if self._layout.patient_id is None:
            unit = "note" if self._layout.stay_id is None else "stay"
            stage = f"no patient id: each {unit} counts as its own patient"
            flow.append(FlowCount(stage, self._kept, self._kept))
        tasks, rejections = [], [self.rejections.table()]
        for spec in self._source.tasks:
            roll_up = self._roll_ups[spec.name]
            flow += roll_up.flow()
            rejections += [read.rejections for read in roll_up.tables]
            if (lookup := self._lookups[spec.name]) is not None:
                flow += [lookup.flow, self._met_flow(spec, lookup)]
                rejections.append(lookup.rejections)
            if (samples := self._samples.get(spec.name)) is not None:
                table, met = samples.table()
                flow += [samples.flow, met]
                rejections.append(samples.rejections)
            else:
                table = pl.concat(self._labelled[spec.name])
                if spec.prediction_time is None:
                    table = table.drop(PREDICTION_TIME)
                ended = {ENDED: count} if (count := self._ended[spec.name]) else {}
                without = {"missing label": self._kept - table.height - count, **ended}
                flow.append(FlowCount(f"task {spec.name}", self._kept, table.height, without))
            tasks.append((checked_task(spec, table, self._origin, roll_up.description), table))
        columns = None
        if names := self._layout.features:
            schema = dict.fromkeys(("note_id", *names), pl.String)
            columns = pl.DataFrame(self._columns, schema=schema, orient="row")
        return Finished(tuple(tasks), tuple(flow), pl.concat(rejections), columns=columns)

    def _met_flow(self, task: TableTask, lookup: Lookup) -> FlowCount:
        """How many ids of a table beside the notes have a note; strict asks it of note ids."""
        ids, met = len(lookup.by_id), len(lookup.met)
        is_by_note = task.labels is not None and task.column == self._layout.note_id
        if is_by_note and met < ids and self.rejections.is_strict:
            raise DataError(
                f"{self._origin}: {ids - met} of the {ids} notes with a label of task {task.name} "
                "do not exist; write their ids alike in both tables, or set policy: quarantine to "
                "leave such labels out and count them."
            )
        if lookup.absent and not met:
            raise DataError(
                f"{self._origin}: none of the {ids} ids of the table for task {task.name} has a "
                f"note, so all would be negative; write them as in column {task.column}, or name "
                "another column."
            )
        stage = f"ids of the table for task {task.name}"
        if lookup.absent:
            stage += f"; {len(lookup.absent)} others count as negative"
        counts = (self._absent[task.name], self._kept, lookup.unread, self._nearly[task.name])
        notice = absence_notice(task, *counts)
        return FlowCount(stage, ids, met, {"no such note": ids - met}, notice=notice)


def _markup_notice(marked_up: int, notes: int) -> str:
    if not marked_up:
        return ""
    return (
        f"{marked_up:,} of {notes:,} notes begin as RTF, HTML or XML, and their markup is read as "
        "text; write them as plain text."
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
