"""Outcome tasks without code: from a label column, a table of labels or a table of ICD codes."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

import polars as pl
from pydantic import PositiveInt, model_validator

from notetune.aliases import TaskKind
from notetune.config import MAX_SHOWN_CHARS, Config, Name, Shown
from notetune.errors import DataError
from notetune.notes.icd import CATEGORY
from notetune.notes.outcomes import Task, check_labels, classes_in
from notetune.sources.cohort import PREDICTION_TIME, TASK_SCHEMA
from notetune.sources.rejections import ReadingPolicy, Rejected
from notetune.strict_csv import MAX_CELL_CHARS

# Ids appear in messages and reports: a wrongly named column must not put text there.
MAX_ID_CHARS: Final = 200

LabelSet = tuple[list[str], datetime | None]
"""The labels of a note, and its prediction time where it is known."""


class LabelTable(Config):
    """Labels in a table of their own: one row per note, patient, visit or other id."""

    path: Path
    """.csv, .csv.gz, .jsonl, .jsonl.gz or .parquet; a folder of Parquet files; or a pattern."""
    id_column: Shown
    label_column: Shown


class CodeTable(Config):
    """ICD codes in a table of their own: any number of rows per admission, patient or other id.

    A code becomes its category: ICD-9 diagnoses three characters (external causes four), ICD-9
    procedures and ICD-10 diagnoses three, ICD-10 procedures four.
    """

    path: Path
    """As in `LabelTable`."""
    id_column: Shown
    code_column: Shown
    of: Literal["diagnoses", "procedures"] = "diagnoses"
    version: Literal["icd9", "icd10", "as-is"] | None = None
    """One version for all codes; as-is takes each code for a class of its own."""
    version_column: Shown | None = None
    """Or a column that says 9 or 10; classes are then named `ICD-9 250` and `ICD-10 E11`."""

    @model_validator(mode="after")
    def _has_one_version(self) -> Self:
        if (self.version is None) == (self.version_column is None):
            raise ValueError("give version or version_column, and not both")
        return self

    def class_of(self, code: str, version: str) -> str:
        """The class of a code.

        Args:
            code: With or without its dot; leading zeros matter.
            version: The cell of the version column; not looked at where there is none.

        Raises:
            Rejected: If the version is neither 9 nor 10.

        Source:
            Data specification, sections 2.4 and 5.1.
        """
        if self.version == "as-is":
            return code
        number = version if self.version is None else self.version.removeprefix("icd")
        category = CATEGORY.get((self.of, number))
        if category is None:
            raise Rejected("ICD version is neither 9 nor 10", "mend the cell")
        return category(code) if self.version else f"ICD-{number} {category(code)}"


class TableTask(Config):
    """One outcome, in a column of the notes or in another table."""

    name: Name
    kind: TaskKind
    column: Shown
    """Column of the notes with the label; or, with `labels` or `codes`, with the id to look up."""
    labels: LabelTable | None = None
    codes: CodeTable | None = None
    """Multilabel: every category found under the id. A note without any is left out of the task."""
    prediction_time: Shown | None = None
    """Column (of the label table, where there is one) with the moment from which the outcome is to
    be foretold; later notes are a leak."""
    separator: str | None = None
    """Between the labels of a multilabel cell; without it a cell holds one label."""
    first_characters: PositiveInt | None = None
    """Of each label of a multilabel task, so many count: 3 makes ICD-10 codes their categories."""
    classes: tuple[Shown, ...] | None = None
    """Allowed classes, in this order; without it, those found, sorted. Binary: the name of the
    positive class; without it, the name of the task. With `codes`: the categories to keep."""
    positive: str = "1"
    """Cell of a positive note (binary only)."""
    negative: str = "0"
    """Cell of a negative note (binary only)."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.separator is not None and (self.kind != "multilabel" or not self.separator):
            raise ValueError("separator is for multilabel tasks and is at least one character")
        if self.first_characters is not None and (self.kind != "multilabel" or self.codes):
            raise ValueError("first_characters is for multilabel tasks, and not with codes")
        if self.kind == "binary" and self.classes is not None and len(self.classes) != 1:
            raise ValueError("a binary task has one class: the name of the positive one")
        if self.positive == self.negative:
            raise ValueError("positive and negative must differ")
        if self.codes is not None and (self.kind != "multilabel" or self.labels is not None):
            raise ValueError("a task with codes is multilabel and has no labels")
        return self

    @property
    def note_columns(self) -> tuple[str, ...]:
        """The columns of the notes that the task needs."""
        moment = self.prediction_time if self.labels is None else None
        return (self.column,) if moment is None else (self.column, moment)


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


def label_set(task: TableTask, where: str, cells: Mapping[str, Any]) -> LabelSet | None:
    """The labels in the cells of a row; None where the label cell is empty.

    Args:
        task: The task.
        where: Place of the row, for errors.
        cells: A cell for the label column and for the column of the prediction time, if any.

    Raises:
        Rejected: If a label is none of the allowed ones, or a time cannot be read.
        DataError: If the column cannot be a label column.
    """
    column = task.column if task.labels is None else task.labels.label_column
    labels = _labels(task, where, column, cells[column])
    if labels is None:
        return None
    moment = None if task.prediction_time is None else read_time(cells[task.prediction_time])
    return labels, moment


def _labels(task: TableTask, where: str, column: str, value: Any) -> list[str] | None:
    if isinstance(value, list) and task.kind == "multilabel":
        labels = [read_cell(where, column, item) for item in value]
    else:
        cell = read_cell(where, column, value)
        if not cell:
            return None
        if task.kind == "binary":
            return _binary_labels(task, cell)
        labels = cell.split(task.separator) if task.separator else [cell]
    named = sorted({label.strip()[: task.first_characters] for label in labels if label.strip()})
    if any(len(label) > MAX_SHOWN_CHARS for label in named):
        raise DataError(
            f"{where}: column {column} holds a label over {MAX_SHOWN_CHARS} characters; "
            f"name the label column of task {task.name}, or its separator."
        )
    if task.classes is not None and not set(named) <= set(task.classes):
        remedy = f"mend the cell, or add the class to the {len(task.classes)} of the task"
        raise Rejected(f"unknown class of task {task.name}", remedy)
    return named


def _binary_labels(task: TableTask, cell: str) -> list[str]:
    if cell not in (task.positive, task.negative):
        remedy = f"write {task.negative} or {task.positive}, or set positive and negative"
        raise Rejected(f"label of task {task.name} is neither positive nor negative", remedy)
    return list(positive_class(task)) if cell == task.positive else []


def positive_class(task: TableTask) -> tuple[str, ...]:
    """The one class of a binary task."""
    return task.classes or (task.name,)


def read_cell(where: str, column: str, value: Any) -> str:
    """An id or label as text in one Unicode form, without space around it; "" where it is missing.

    Raises:
        Rejected: If it holds control characters or halves of characters.
        DataError: If it is a decimal number or a structure.
    """
    match value:
        case None:
            return ""
        case str():
            text = unicodedata.normalize("NFC", value.strip())
        case bool():
            return str(int(value))
        case int():
            return str(value)
        case _:  # a decimal 7.0 was 007 or 7 once: nobody can tell
            raise DataError(
                f"{where}: column {column} holds a {type(value).__name__}; "
                "store ids and labels as text or whole numbers."
            )
    if not text.isprintable():
        raise Rejected(f"control characters in column {column}", "remove them")
    return text


def read_id(where: str, column: str, value: Any, what: str) -> str:
    """An id as text; `what` says of which thing.

    Raises:
        Rejected: If it is missing or not printable.
        DataError: If it is too long for an id.
    """
    name = read_cell(where, column, value)
    if not name:
        raise Rejected(f"missing {what} id", f"name the {what}")
    if len(name) > MAX_ID_CHARS:
        raise DataError(
            f"{where}: the {what} id in column {column} has {len(name)} characters; an id is one "
            f"line of at most {MAX_ID_CHARS}. Name the id column."
        )
    return name


def read_feature(where: str, column: str, value: Any) -> str | None:
    """A cell beside the text as text, a number in one spelling; None where it is empty.

    Raises:
        Rejected: As `read_cell`.
        DataError: If it is too long for a level, or a structure.
    """
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = str(int(value)) if value.is_integer() else repr(value)
    text = read_cell(where, column, value)
    if len(text) > MAX_SHOWN_CHARS:
        raise DataError(
            f"{where}: column {column} holds {len(text)} characters; a feature is a number or a "
            f"level of at most {MAX_SHOWN_CHARS}. Name another column."
        )
    return text or None


def read_time(value: Any) -> datetime | None:
    """A time without zone (in UTC, where it had one); a day is its midnight.

    Raises:
        Rejected: If it cannot be read.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 (no zone, as all times)
    raise Rejected("unreadable time", "write times as 2164-10-23 21:09:00")


@dataclass
class TaskRows:
    """The labelled notes of one task, as they pass."""

    spec: TableTask
    frames: list[pl.DataFrame]

    def add(self, rows: list[tuple[str, LabelSet | None]]) -> None:
        """Keep the labels of some notes; those without are not in the task."""
        labelled = [(note_id, *labels) for note_id, labels in rows if labels is not None]
        schema = {**TASK_SCHEMA, PREDICTION_TIME: pl.Datetime("us")}
        self.frames.append(pl.DataFrame(labelled, schema=schema, orient="row"))

    def table(self, origin: Path) -> tuple[Task, pl.DataFrame]:
        """The task with its table, which has prediction times if the spec names them.

        Raises:
            DataError: If no note has a label, or the labels do not fit the task.
        """
        spec = self.spec
        table = pl.concat(self.frames)
        if spec.prediction_time is None:
            table = table.drop(PREDICTION_TIME)
        if table.is_empty():
            raise DataError(
                f"{origin}: no note has a label of task {spec.name}; is column {spec.column} right "
                "and are ids written alike in the table of labels or codes?"
            )
        found = spec.classes or classes_in(table["labels"])
        classes = positive_class(spec) if spec.kind == "binary" else found
        try:
            task = Task(spec.name, spec.kind, classes)
            check_labels(task, table)
        except DataError as error:  # ours, so it shows no label
            raise DataError(f"{origin}, column {spec.column}: {error}") from None
        return task, table
