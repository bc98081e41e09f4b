"""The labels of a task in the cells of a row."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from notetune.config import MAX_SHOWN_CHARS
from notetune.errors import DataError
from notetune.sources.rejections import Rejected
from notetune.sources.tables.records import Record
from notetune.sources.tables.tasks import TableTask

_ITEM = re.compile(r"""'[^']*'|"[^"]*"|[^\s,'"\[\]]+""")
_LIST = re.compile(rf"\[\s*(?:(?:{_ITEM.pattern})\s*(?:,\s*(?:{_ITEM.pattern})\s*)*,?\s*)?\]")

LabelSet = tuple[list[str], datetime | None]
"""The labels of a note, and its prediction time where it is known."""


def label_set(
    task: TableTask, record: Record, classes_of: Callable[[str], Iterable[str]]
) -> LabelSet | None:
    """The labels in a row of the notes or of the label table; None where the label cell is empty.

    `classes_of` rolls a label up, if the task does so.

    Raises:
        Rejected: If a label is none of the allowed ones, or a time cannot be read.
        DataError: If the column cannot be a label column.
    """
    column = task.labels.label_column if task.labels else task.column
    labels = labels_in(task, record, column, classes_of)
    return None if labels is None else (labels, moment(task, record))


def labels_in(
    task: TableTask, record: Record, column: str | None, classes_of: Callable[[str], Iterable[str]]
) -> list[str] | None:
    """The labels in a cell, or of an event without one; else as `label_set`."""
    labels = list(task.positive_class) if column is None else _labels(task, record, column)
    if labels is None:
        return None
    if task.roll_up is not None:
        labels = sorted({name for label in labels for name in classes_of(label)})
    elif task.classes is not None and not set(labels) <= set(task.classes):
        remedy = f"mend the cell, or add the class to the {len(task.classes)} of the task"
        raise Rejected(f"unknown class of task {task.name}", remedy)
    return labels


def moment(task: TableTask, record: Record) -> datetime | None:
    """The prediction time in a row; None where the task or the row has none.

    Raises:
        Rejected: If it cannot be read.
    """
    time = record.time(task.prediction_time) if task.prediction_time else None
    try:
        return time and time + timedelta(hours=task.prediction_hours)
    except OverflowError:
        raise Rejected("prediction time after the year 9999", "mend the time") from None


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
    labels = [name for label in labels if (name := label.strip()) and name not in record.missing]
    if not labels and isinstance(value, str) and not cell.startswith("["):
        return None  # separators alone
    named = sorted({label[: task.first_characters] for label in labels})
    if any(len(label) > MAX_SHOWN_CHARS for label in named):
        raise DataError(
            f"{record.where}: column {column} holds a label over {MAX_SHOWN_CHARS} characters; "
            f"name the label column of task {task.name}, or its separator."
        )
    return named


def _answer(task: TableTask, record: Record, column: str) -> list[str] | None:
    """The label of a binary task, from a cell or the items of a list."""
    value = record.cells[column]
    of_cell = value if isinstance(value, list) else [value]
    if not (cells := [cell for item in of_cell if (cell := record.text_of(column, item))]):
        return None
    if any(cell in task.positives for cell in cells):
        return list(task.positive_class)
    if task.negative is None or all(cell == task.negative for cell in cells):
        return []
    remedy = f"write {task.negative} or {task.positives[0]}, or set positive and negative"
    raise Rejected(f"label of task {task.name} is neither positive nor negative", remedy)


def _interval(
    task: TableTask, record: Record, column: str, borders: tuple[float, ...]
) -> list[str] | None:
    """The class of a number between borders."""
    value: Any = record.cells[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if "_" in str(value) else float(value)  # Python takes 1_0 for ten
    except (TypeError, ValueError, OverflowError):  # its words may hold the cell
        number = math.nan
    if not math.isfinite(number):
        raise Rejected(
            f"label of task {task.name} is no number", "write a number or leave it empty"
        )
    return [(task.all_classes or ())[bisect_left(borders, number)]]


def _in_cell(task: TableTask, cell: str) -> list[str]:
    """The labels between separators in a multilabel cell, or of a list as it is printed."""
    if not cell.startswith("["):
        return cell.split(task.separator) if task.separator else [cell]
    labels = [item.strip("'\"") for item in _ITEM.findall(cell)]
    if not _LIST.fullmatch(cell) or (len(labels) > 1 and set(labels) <= {"0", "1"}):
        remedy = "write names of labels, with a separator or as ['I10', 'E11']"
        raise Rejected(f"no list of labels of task {task.name}", remedy)
    return labels
