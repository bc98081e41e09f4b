"""Outcome tasks without code: from a label column, a table of labels or a table of ICD codes."""

import math
import re
from bisect import bisect_left
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import PositiveInt, model_validator

from notetune.aliases import TaskKind
from notetune.config import MAX_SHOWN_CHARS, Config, Name, Shown
from notetune.errors import DataError
from notetune.notes.icd import CATEGORY
from notetune.notes.outcomes import Task, classes_in
from notetune.sources.rejections import ReadingPolicy, Rejected
from notetune.sources.tables.files import Record
from notetune.strict_csv import MAX_CELL_CHARS

_ITEM = re.compile(r"""'[^']*'|"[^"]*"|[^\s,'"\[\]]+""")
_LIST = re.compile(rf"\[\s*(?:(?:{_ITEM.pattern})\s*(?:,\s*(?:{_ITEM.pattern})\s*)*,?\s*)?\]")

LabelSet = tuple[list[str], datetime | None]
"""The labels of a note, and its prediction time where it is known."""


class LabelTable(Config):
    """Labels in a table of their own: one row per note, patient, visit or other id."""

    path: Path
    """.csv, .csv.gz, .jsonl, .jsonl.gz or .parquet; a folder of Parquet files; or a pattern.

    Or FHIR resources: .ndjson, .ndjson.gz, a pattern or a folder of them. As a table, Encounter has
    the columns encounter, patient, start, end, days (between both), disposition (the codes of the
    discharge; for local ones, see `positive`) and expired (1 where one is exp, or says expired,
    died or deceased, else 0)."""
    id_column: Shown
    label_column: Shown | None = None
    """Left out where each row is an event, such as a death or a readmission: its id is positive."""
    absent: Literal["missing", "negative"] = "missing"
    """What it means that an id has no row: that its label is not known, or that it is negative (of
    a multilabel task, that it has none of the classes)."""


class CodeTable(Config):
    """ICD codes in a table of their own: any number of rows per admission, patient or other id.

    A code becomes its category: ICD-9 diagnoses three characters (external causes four), ICD-9
    procedures and ICD-10 diagnoses three, ICD-10 procedures four.
    """

    path: Path
    """As in `LabelTable`. A table of FHIR Condition has the columns encounter, patient, icd9, icd10
    and snomed (by the URI of the code system), or icd for both with its version."""
    id_column: Shown
    code_column: Shown
    of: Literal["diagnoses", "procedures"] = "diagnoses"
    version: Literal["icd9", "icd10", "as-is"] | None = None
    """One version for all codes; as-is takes each code for a class of its own."""
    version_column: Shown | None = None
    """Or a column that says 9 or 10; classes are then named `ICD-9 250` and `ICD-10 E11`."""
    no_codes: Literal["negative", "missing"] = "negative"
    """What it means that an id has no code: that it has none of the classes, or that its codes are
    not known, so that its notes are left out of the task."""

    @model_validator(mode="after")
    def _has_one_version(self) -> Self:
        if (self.version is None) == (self.version_column is None):
            raise ValueError("give version or version_column, and not both")
        named = self.code_column  # as the columns of FHIR Condition are
        fitting = (None, "as-is", named) if named.startswith("icd") else ("as-is",)
        if named in ("icd9", "icd10", "snomed") and self.version not in fitting:
            raise ValueError(f"version of codes in column {named} is {fitting[-1]}")
        return self

    def class_of(self, code: str, version: str = "") -> str:
        """The class of a code with or without its dot, by the cell of the version column if any.

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
    """Multilabel: every category found under the id."""
    prediction_time: Shown | None = None
    """Column (of the label table, where there is one) with the moment from which the outcome is to
    be foretold; later notes are a leak."""
    separator: str | None = None
    """Between the labels of a multilabel cell; without it a cell holds one label."""
    first_characters: PositiveInt | None = None
    """Of each label of a multilabel task, so many count: 3 makes ICD-10 codes their categories.
    With `codes`, for version: as-is."""
    borders: tuple[float, ...] | None = None
    """Cuts the numbers of a multiclass task into classes: [3, 7] makes them <=3, 3-7 and >7, or
    what `classes` names. A border belongs to the class below it."""
    classes: tuple[Shown, ...] | None = None
    """Allowed classes, in this order; without it, those found, sorted. Binary: the name of the
    positive class; without it, the name of the task. With `codes`: the categories to keep."""
    positive: str | tuple[str, ...] = "1"
    """Cell of a positive note, or several such (binary only). Of a list, such as the codes of a
    FHIR discharge, one suffices."""
    negative: str | None = "0"
    """Cell of a negative note (binary only); null: every other cell that is filled in."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.separator is not None and (self.kind != "multilabel" or not self.separator):
            raise ValueError("separator is for multilabel tasks and is at least one character")
        if self.first_characters is not None and (
            self.kind != "multilabel" or (self.codes and self.codes.version != "as-is")
        ):
            raise ValueError("first_characters is for multilabel tasks, and codes taken as-is")
        self._check_borders()
        if self.kind == "binary" and self.classes is not None and len(self.classes) != 1:
            raise ValueError("a binary task has one class: the name of the positive one")
        if self.negative in self.positives or not self.positives:
            raise ValueError("positive and negative must differ")
        if self.codes is not None and (self.kind != "multilabel" or self.labels is not None):
            raise ValueError("a task with codes is multilabel and has no labels")
        if (
            self.labels is not None
            and self.labels.label_column is None
            and (self.kind != "binary" or self.labels.absent == "missing")
        ):
            raise ValueError("labels without label_column are of a binary task, absent: negative")
        if self.absent_is_negative and self.kind == "multiclass":
            raise ValueError("absent: negative is for binary and multilabel tasks")
        return self

    def _check_borders(self) -> None:
        borders = self.borders
        if borders is None:
            return
        if self.kind != "multiclass" or not borders or sorted(set(borders)) != list(borders):
            raise ValueError("borders are of a multiclass task: one or more numbers that rise")
        if self.classes is not None and len(self.classes) != len(borders) + 1:
            raise ValueError(
                f"{len(borders)} borders make {len(borders) + 1} classes; name so many"
            )

    @property
    def positives(self) -> tuple[str, ...]:
        """The cells of a positive note of a binary task."""
        return (self.positive,) if isinstance(self.positive, str) else self.positive

    @property
    def all_classes(self) -> tuple[str, ...] | None:
        """The classes that are allowed, in their order; None for those that are found."""
        if self.classes is not None or self.borders is None:
            return self.classes
        numbers = [f"{border:.12g}" for border in self.borders]
        inner = (f"{low}-{high}" for low, high in pairwise(numbers))
        return (f"<={numbers[0]}", *inner, f">{numbers[-1]}")

    @property
    def absent_is_negative(self) -> bool:
        """Whether an id without a row beside the notes has none of the classes."""
        if self.codes is not None:
            return self.codes.no_codes == "negative"
        return self.labels is not None and self.labels.absent == "negative"

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


def label_set(task: TableTask, record: Record) -> LabelSet | None:
    """The labels in a row of the notes or of the label table; None where the label cell is empty.

    Raises:
        Rejected: If a label is none of the allowed ones, or a time cannot be read.
        DataError: If the column cannot be a label column.
    """
    column = task.labels.label_column if task.labels else task.column
    labels = list(_positive_class(task)) if column is None else _labels(task, record, column)
    if labels is None:
        return None
    return labels, record.time(task.prediction_time) if task.prediction_time else None


def _labels(task: TableTask, record: Record, column: str) -> list[str] | None:
    value = record.cells[column]
    if task.borders is not None:
        return _interval(task, record, column, task.borders)
    if task.kind == "binary":
        return _answer(task, record, column)
    if isinstance(value, list) and task.kind == "multilabel":
        labels = [record.text_of(column, item) for item in value]
    elif not (cell := record.text_of(column, value)):
        return None
    elif task.kind == "multilabel":
        labels = _in_cell(task, cell)
    else:
        labels = [cell]
    named = sorted({label.strip()[: task.first_characters] for label in labels if label.strip()})
    if any(len(label) > MAX_SHOWN_CHARS for label in named):
        raise DataError(
            f"{record.where}: column {column} holds a label over {MAX_SHOWN_CHARS} characters; "
            f"name the label column of task {task.name}, or its separator."
        )
    if task.classes is not None and not set(named) <= set(task.classes):
        remedy = f"mend the cell, or add the class to the {len(task.classes)} of the task"
        raise Rejected(f"unknown class of task {task.name}", remedy)
    return named


def _answer(task: TableTask, record: Record, column: str) -> list[str] | None:
    """The label of a binary task, from a cell or the items of a list."""
    value = record.cells[column]
    of_cell = value if isinstance(value, list) else [value]
    if not (cells := [cell for item in of_cell if (cell := record.text_of(column, item))]):
        return None
    if any(cell in task.positives for cell in cells):
        return list(_positive_class(task))
    if task.negative is None or all(cell == task.negative for cell in cells):
        return []
    remedy = f"write {task.negative} or {task.positives[0]}, or set positive and negative"
    raise Rejected(f"label of task {task.name} is neither positive nor negative", remedy)


def _interval(
    task: TableTask, record: Record, column: str, borders: tuple[float, ...]
) -> list[str] | None:
    """The class of a number between borders.

    Raises:
        Rejected: If it is no finite number.
    """
    value: Any = record.cells[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # its words may hold the cell
        number = math.nan
    if not math.isfinite(number):
        raise Rejected(
            f"label of task {task.name} is no number", "write a number or leave it empty"
        )
    return [(task.all_classes or ())[bisect_left(borders, number)]]


def _in_cell(task: TableTask, cell: str) -> list[str]:
    """The labels of a multilabel cell: what stands between separators, or a list as it is printed.

    Raises:
        Rejected: If it begins like a list and is none, or says by zeros and ones which labels.
    """
    if not cell.startswith("["):
        return cell.split(task.separator) if task.separator else [cell]
    labels = [item.strip("'\"") for item in _ITEM.findall(cell)]
    if not _LIST.fullmatch(cell) or (len(labels) > 1 and set(labels) <= {"0", "1"}):
        remedy = "write names of labels, with a separator or as ['I10', 'E11']"
        raise Rejected(f"no list of labels of task {task.name}", remedy)
    return labels


def _positive_class(task: TableTask) -> tuple[str, ...]:
    return task.classes or (task.name,)


def checked_task(spec: TableTask, table: pl.DataFrame, origin: Path) -> Task:
    """The task of a recipe, with the classes that it names or that its table from `origin` has.

    Raises:
        DataError: If no note has a label, or the number of classes does not fit the task.
    """
    if table.is_empty():
        raise DataError(
            f"{origin}: no note has a label of task {spec.name}; is column {spec.column} right "
            "and are ids written alike in the table of labels or codes?"
        )
    found = spec.all_classes or classes_in(table["labels"])
    classes = _positive_class(spec) if spec.kind == "binary" else found
    try:
        return Task(spec.name, spec.kind, classes)
    except DataError as error:  # ours, so it shows no label
        raise DataError(f"{origin}, column {spec.column}: {error}") from None
