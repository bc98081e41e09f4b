"""Tables of labels and of codes, held in memory by the id that they speak of."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError, RunWarning
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import Record
from notetune.sources.tables.labels import LabelSet, label_set
from notetune.sources.tables.resources import records_beside
from notetune.sources.tables.roll_up import RollUp
from notetune.sources.tables.tasks import CodeTable, LabelTable, TableTask


@dataclass(frozen=True)
class Lookup:
    """The labels of each id, and what became of the rows of the table.

    Of the ids of notes, `met` are those that it has, and `absent` those that count as negative.
    """

    by_id: Mapping[str, LabelSet]
    flow: FlowCount
    rejections: pl.DataFrame
    met: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)


def load_lookup(task: TableTask, policy: ReadingPolicy, roll_up: RollUp) -> Lookup | None:
    """The table beside the notes that a task takes its labels from; None if there is none.

    `roll_up` says what its codes become.

    Raises:
        DataError: If a file is missing or faulty, two rows give one id different labels, or the
            policy stops.
    """
    table = task.labels or task.codes
    if table is None:
        return None
    rejections = Rejections(policy)
    if isinstance(table, LabelTable):
        by_id, kept = _read_labels(task, table, rejections, roll_up)
    else:
        by_id, kept, odd = _read_codes(table, rejections, roll_up)
        if odd:
            message = (
                f"task {task.name}: {odd} of {kept} codes do not look like {table.kind_of_codes}; "
                "does the table hold other codes too? `codes.where` says which rows count."
            )
            warnings.warn(RunWarning(message), stacklevel=2)
    rejections.check_share(table.path)
    stage = f"rows of the table for task {task.name}"
    flow = FlowCount(stage, rejections.rows_read, kept, rejections.counts())
    return Lookup(by_id, flow, rejections.table())


def _read_labels(
    task: TableTask, table: LabelTable, rejections: Rejections, roll_up: RollUp
) -> tuple[dict[str, LabelSet], int]:
    columns = (table.id_column, table.label_column, task.prediction_time)
    wanted = list(dict.fromkeys(column for column in columns if column))
    by_id: dict[str, LabelSet] = {}
    for record in _rows(table, wanted, rejections):
        try:
            name = record.id(table.id_column, "row")
            labels = label_set(task, record, roll_up.classes)
        except Rejected as fault:
            rejections.reject(record.file, record.line, fault)
            continue
        if labels is None:
            rejections.leave_out("missing label")
        elif by_id.setdefault(name, labels) is labels:
            continue
        elif by_id[name] == labels:
            rejections.leave_out("same as an earlier row")
        else:
            raise DataError(
                f"{record.where}: an earlier row gives this {table.id_column} another label of "
                f"task {task.name} or another prediction time; keep one row per id."
            )
    return by_id, len(by_id)


def _read_codes(
    table: CodeTable, rejections: Rejections, roll_up: RollUp
) -> tuple[dict[str, LabelSet], int, int]:
    """Classes by id, the rows that were kept, and how many of them have an unlikely code."""
    columns = (table.id_column, table.code_column, table.version_column)
    wanted = [column for column in columns if column]
    classes_of: dict[str, set[str]] = {}
    kept = odd = 0
    for record in _rows(table, wanted, rejections):
        try:
            name, code, *version = map(record.text, wanted)
            labels = roll_up.classes(code, *version) if name and code else None
            odd += labels is not None and not table.looks_right(code, *version)
        except Rejected as fault:
            rejections.reject(record.file, record.line, fault)
            continue
        if labels is None:
            rejections.leave_out("no id or no code")
        elif labels:
            kept += 1
            classes_of.setdefault(name, set()).update(map(sys.intern, labels))
    for reason, rows in roll_up.left_out.items():
        rejections.leave_out(reason, rows)
    by_id: dict[str, LabelSet] = {name: (sorted(c), None) for name, c in classes_of.items()}
    return by_id, kept, odd


def _rows(
    table: LabelTable | CodeTable, wanted: Sequence[str], rejections: Rejections
) -> Iterator[Record]:
    """The rows that the table is asked for."""
    asked = {name: (one,) if isinstance(one, str) else one for name, one in table.where.items()}
    for record in records_beside(table.path, list(dict.fromkeys([*wanted, *asked])), rejections):
        if all(str(record.cells[name] or "").strip() in cells for name, cells in asked.items()):
            yield record
        else:
            rejections.leave_out("not among the rows of `where`")
