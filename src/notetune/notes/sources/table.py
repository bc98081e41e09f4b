"""Notes and labels in one table of the user's own: CSV, JSONL or Parquet."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import polars as pl
from pydantic import model_validator

from notetune.config import Config
from notetune.errors import DataError
from notetune.notes.clean import clean_text
from notetune.notes.outcomes import Task, TaskKind, check_labels, classes_in
from notetune.notes.sources.cohort import NOTES_SCHEMA, TASK_SCHEMA, Cohort, FlowCount
from notetune.notes.strict_csv import read_rows

# Ids and classes appear in messages and reports: a wrongly named column must not put text there.
_MAX_ID_CHARS = 200
_MAX_CLASS_CHARS = 120

_REMEDIES = {
    "empty text": "fill in the text or remove the row",
    "missing note id": "give the row an id",
    "duplicate note id": "give each note its own id",
    "missing patient id": "give the row its patient, or leave columns.patient_id unset",
    "unreadable time": "write times as 2164-10-23 21:09:00",
    "missing label": "fill in the label or remove the row",
}


class TableColumns(Config):
    """Which columns hold what."""

    text: str
    note_id: str | None = None
    """Without it, a note is named after its source and line."""
    patient_id: str | None = None
    """Without it, each note counts as its own patient, and the flow says so."""
    time: str | None = None


class TableTask(Config):
    """One outcome in one column."""

    name: str
    kind: TaskKind
    column: str
    separator: str | None = None
    """Between the labels of a multilabel cell; without it a cell holds one label."""
    classes: tuple[str, ...] | None = None
    """Allowed classes, in this order; without it, those found, sorted. Binary: the name of the
    positive class; without it, the name of the task."""
    positive: str = "1"
    """Cell of a positive note (binary only)."""
    negative: str = "0"
    """Cell of a negative note (binary only)."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.separator is not None and (self.kind != "multilabel" or not self.separator):
            raise ValueError("separator is for multilabel tasks and is at least one character")
        if self.kind == "binary" and self.classes is not None and len(self.classes) != 1:
            raise ValueError("a binary task has one class: the name of the positive one")
        if self.positive == self.negative:
            raise ValueError("positive and negative must differ")
        return self


class TableSource(Config):
    """One file with a row per note."""

    kind: Literal["table"]
    path: Path
    """.csv, .csv.gz, .jsonl or .parquet."""
    columns: TableColumns
    source: str = "note"
    """What the notes are: it groups them in reports."""
    tasks: tuple[TableTask, ...] = ()
    duplicate_texts: Literal["keep", "merge"] = "keep"
    """merge: notes of one patient with the same text become one note with all their labels."""
    policy: Literal["strict", "quarantine"] = "quarantine"
    """What to do with a row without text, id, patient or label: stop, or leave out and count."""
    max_note_chars: int = 20_000_000

    @model_validator(mode="after")
    def _task_names_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self


@dataclass
class _Note:
    note_id: str
    patient_id: str | None
    time: datetime | None
    text: str
    labels: dict[str, list[str] | None]
    """Task name to labels; None where the label is missing."""


@dataclass
class _Reading:
    """What has been seen so far while a file is read."""

    notes: list[_Note] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    rejected: Counter[str] = field(default_factory=Counter)


class _Record(NamedTuple):
    where: str
    """File and line or row, for errors."""
    number: int
    cells: dict[str, Any]


class _Rejection(Exception):  # noqa: N818 (control flow inside this file, not an error)
    """The row cannot be kept, for the named reason."""


def read_table_source(source: TableSource) -> Cohort:
    """Read the table.

    An empty label cell is a missing label: the note stays, without that task. An empty list
    (JSONL, Parquet) says that a multilabel note has none of the classes. An unknown class always
    stops, since it means that the wrong column or the wrong classes were named.

    Raises:
        DataError: If the file is faulty; with policy strict also at the first rejected row; if
            merged notes disagree on a binary or multiclass label; if nothing is left.
    """
    reading = _Reading()
    read = 0
    for record in _records(source):
        read += 1
        _take(source, reading, record)
    if not reading.notes:
        raise DataError(f"{source.path}: none of its {read} rows can be used; see columns.text.")
    flow = [FlowCount("notes", read, len(reading.notes), dict(reading.rejected))]
    notes = reading.notes
    if source.duplicate_texts == "merge":
        notes = _merged(source, notes)
        repeated = {"same text as an earlier note": len(reading.notes) - len(notes)}
        flow.append(FlowCount("merge of equal texts", len(reading.notes), len(notes), repeated))
    if source.columns.patient_id is None:
        stage = "no patient id: each note counts as its own patient"
        flow.append(FlowCount(stage, len(notes), len(notes)))
    tasks = [_task_table(source, spec, notes) for spec in source.tasks]
    flow += [
        FlowCount(
            f"task {task.name}",
            len(notes),
            table.height,
            {"missing label": len(notes) - table.height},
        )
        for task, table in tasks
    ]
    return Cohort(_notes_frame(source, notes), tuple(tasks), tuple(flow))


def _take(source: TableSource, reading: _Reading, record: _Record) -> None:
    try:
        note = _note(source, reading.ids, record)
    except _Rejection as rejection:
        reason = str(rejection)
        if source.policy == "strict":
            raise _stop(record.where, reason) from None
        reading.rejected[reason] += 1
        return
    if source.policy == "strict" and None in note.labels.values():
        raise _stop(record.where, "missing label")
    reading.ids.add(note.note_id)
    reading.notes.append(note)


def _stop(where: str, reason: str) -> DataError:
    return DataError(
        f"{where}: {reason}; {_REMEDIES[reason]}, or set policy: quarantine to leave such rows "
        "out and count them."
    )


def _note(source: TableSource, ids: set[str], record: _Record) -> _Note:
    columns, where, cells = source.columns, record.where, record.cells
    raw_text = cells[columns.text]
    if raw_text is not None and not isinstance(raw_text, str):
        raise DataError(f"{where}: column {columns.text} is not text; name the text column.")
    text = clean_text(raw_text or "")
    if not text:
        raise _Rejection("empty text")
    note_id = f"{source.source}-{record.number}"
    if columns.note_id is not None:
        note_id = _id(where, columns.note_id, cells, "note")
    if note_id in ids:
        raise _Rejection("duplicate note id")
    patient_id = None
    if columns.patient_id is not None:
        patient_id = _id(where, columns.patient_id, cells, "patient")
    labels = {task.name: _labels(task, where, cells[task.column]) for task in source.tasks}
    time = _time(cells[columns.time]) if columns.time is not None else None
    return _Note(note_id, patient_id, time, text, labels)


def _id(where: str, column: str, cells: dict[str, Any], what: str) -> str:
    name = _as_text(where, column, cells[column])
    if not name:
        raise _Rejection(f"missing {what} id")
    if len(name) > _MAX_ID_CHARS or "\n" in name:
        raise DataError(
            f"{where}: the {what} id in column {column} has {len(name)} characters; an id is one "
            f"line of at most {_MAX_ID_CHARS}. Name the id column."
        )
    return name


def _as_text(where: str, column: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value.strip()
        case bool():
            return str(int(value))
        case int():
            return str(value)
        case _:  # a decimal 7.0 was 007 or 7 once: nobody can tell
            raise DataError(
                f"{where}: column {column} holds a {type(value).__name__}; "
                "store ids and labels as text or whole numbers."
            )


def _time(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise _Rejection("unreadable time") from None
    if not isinstance(value, datetime):
        raise _Rejection("unreadable time")
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _labels(task: TableTask, where: str, value: Any) -> list[str] | None:
    if isinstance(value, list) and task.kind == "multilabel":
        labels = [_as_text(where, task.column, item) for item in value]
    else:
        cell = _as_text(where, task.column, value)
        if not cell:
            return None
        if task.kind == "binary":
            return _binary_labels(task, where, cell)
        labels = cell.split(task.separator) if task.separator else [cell]
    named = sorted({label.strip() for label in labels if label.strip()})
    if any(len(label) > _MAX_CLASS_CHARS for label in named):
        raise DataError(
            f"{where}: column {task.column} holds a label over {_MAX_CLASS_CHARS} characters; "
            f"name the label column of task {task.name}, or its separator."
        )
    if task.classes is not None and not set(named) <= set(task.classes):
        raise DataError(
            f"{where}: column {task.column} holds a class that is not among the "
            f"{len(task.classes)} of task {task.name}; mend the cell or add the class."
        )
    return named


def _binary_labels(task: TableTask, where: str, cell: str) -> list[str]:
    if cell not in (task.positive, task.negative):
        raise DataError(
            f"{where}: column {task.column} of task {task.name} is neither {task.negative} nor "
            f"{task.positive}; mend the cell, or set positive and negative of the task."
        )
    return list(_positive_class(task)) if cell == task.positive else []


def _positive_class(task: TableTask) -> tuple[str, ...]:
    return task.classes or (task.name,)


def _merged(source: TableSource, notes: list[_Note]) -> list[_Note]:
    """One note per patient and text, in order of first appearance, with the union of the labels."""
    first: dict[tuple[str | None, str], _Note] = {}
    for note in notes:
        kept = first.setdefault((note.patient_id, note.text), note)
        if kept is note:
            continue
        for task in source.tasks:
            mine, theirs = kept.labels[task.name], note.labels[task.name]
            if task.kind != "multilabel" and None not in (mine, theirs) and mine != theirs:
                raise DataError(
                    f"{source.path}: notes {kept.note_id} and {note.note_id} have the same text "
                    f"and different labels of task {task.name}; mend one, or keep duplicate_texts."
                )
            if theirs is not None:
                kept.labels[task.name] = sorted({*(mine or []), *theirs})
    return list(first.values())


def _task_table(
    source: TableSource, spec: TableTask, notes: list[_Note]
) -> tuple[Task, pl.DataFrame]:
    labelled = [(note.note_id, note.labels[spec.name]) for note in notes]
    table = pl.DataFrame(
        [row for row in labelled if row[1] is not None], schema=TASK_SCHEMA, orient="row"
    )
    if table.is_empty():
        raise DataError(f"{source.path}: column {spec.column} of task {spec.name} is empty.")
    found = spec.classes or classes_in(table["labels"])
    classes = _positive_class(spec) if spec.kind == "binary" else found
    try:
        task = Task(spec.name, spec.kind, classes)
        check_labels(task, table)
    except DataError as error:  # ours, so it shows no label
        raise DataError(f"{source.path}, column {spec.column}: {error}") from None
    return task, table


def _notes_frame(source: TableSource, notes: list[_Note]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "note_id": [note.note_id for note in notes],
            "patient_id": [note.patient_id or note.note_id for note in notes],
            "source": [source.source] * len(notes),
            "time": [note.time for note in notes],
            "text": [note.text for note in notes],
        },
        schema=NOTES_SCHEMA,
    )


def _records(source: TableSource) -> Iterator[_Record]:
    mapped = [*source.columns.model_dump().values(), *(task.column for task in source.tasks)]
    wanted = list(dict.fromkeys(name for name in mapped if name is not None))
    name = source.path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        for row in read_rows(source.path, wanted, source.max_note_chars):
            cells = dict(zip(wanted, row.cells, strict=True))
            yield _Record(f"{source.path}, line {row.line}", row.line, cells)
    elif not source.path.is_file():
        raise DataError(f"{source.path} is not a file; check the path.")
    elif name.endswith(".jsonl"):
        yield from _jsonl_records(source.path, wanted)
    elif name.endswith(".parquet"):
        yield from _parquet_records(source.path, wanted)
    else:
        raise DataError(f"{source.path} is no .csv, .csv.gz, .jsonl or .parquet; convert it.")


def _jsonl_records(path: Path, wanted: list[str]) -> Iterator[_Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError):  # both hold the line, so they are not chained
                raise DataError(f"{where}: not JSON in UTF-8; write one object a line.") from None
            if not isinstance(record, dict):
                raise DataError(f"{where}: not a JSON object; write one object a line.")
            if absent := [name for name in wanted if name not in record]:
                raise DataError(
                    f"{where}: no key {absent[0]}; give it in every line, null if none."
                )
            yield _Record(where, number, {name: record[name] for name in wanted})


def _parquet_records(path: Path, wanted: list[str]) -> Iterator[_Record]:
    try:
        present = pl.read_parquet_schema(path)
        if absent := [name for name in wanted if name not in present]:
            raise DataError(f"{path}: no column {absent[0]}; check the columns of the source.")
        frame = pl.read_parquet(path, columns=wanted)
    except (pl.exceptions.PolarsError, OSError):  # their texts can show cells
        raise DataError(f"{path} is not a readable Parquet file; write it again.") from None
    for number, cells in enumerate(frame.iter_rows(named=True), start=1):
        yield _Record(f"{path}, row {number}", number, cells)
