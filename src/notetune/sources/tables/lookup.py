"""Tables of labels and of ICD codes, held in memory by the id that they speak of."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import Record, read_records, table_files
from notetune.sources.tables.tasks import (
    CodeTable,
    LabelSet,
    LabelTable,
    TableTask,
    label_set,
    read_cell,
    read_id,
)


@dataclass(frozen=True)
class Lookup:
    """The labels of each id, and what became of the rows of the table."""

    by_id: Mapping[str, LabelSet]
    flow: FlowCount
    rejections: pl.DataFrame


def load_lookup(task: TableTask, policy: ReadingPolicy) -> Lookup | None:
    """The table beside the notes that a task takes its labels from; None if there is none.

    Raises:
        DataError: If a file is missing or faulty, two rows give one id different labels, or the
            policy stops.
    """
    rejections = Rejections(policy)
    if task.labels is not None:
        by_id, kept = _read_labels(task, task.labels, rejections)
        path = task.labels.path
    elif task.codes is not None:
        by_id, kept = _read_codes(task, task.codes, rejections)
        path = task.codes.path
    else:
        return None
    rejections.check_share(path)
    stage = f"rows of the table for task {task.name}"
    flow = FlowCount(stage, rejections.rows_read, kept, rejections.counts())
    return Lookup(by_id, flow, rejections.table())


def _read_labels(
    task: TableTask, table: LabelTable, rejections: Rejections
) -> tuple[dict[str, LabelSet], int]:
    wanted = list(dict.fromkeys((table.id_column, table.label_column)))
    if task.prediction_time is not None:
        wanted.append(task.prediction_time)
    by_id: dict[str, LabelSet] = {}
    for record in read_records(table_files(table.path), wanted, rejections):
        try:
            name = read_id(record.where, table.id_column, record.cells[table.id_column], "row")
            labels = label_set(task, record.where, record.cells)
        except Rejected as fault:
            rejections.reject((record.file, record.line), fault)
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
    task: TableTask, table: CodeTable, rejections: Rejections
) -> tuple[dict[str, LabelSet], int]:
    wanted = [table.id_column, table.code_column]
    if table.version_column is not None:
        wanted.append(table.version_column)
    classes_of: dict[str, set[str]] = {}
    kept = 0
    for record in read_records(table_files(table.path), wanted, rejections):
        try:
            found = _class_of(table, record)
        except Rejected as fault:
            rejections.reject((record.file, record.line), fault)
            continue
        if found is None:
            rejections.leave_out("no id or no code")
        elif task.classes is not None and found[1] not in task.classes:
            rejections.leave_out("not among the classes of the task")
        else:
            kept += 1
            classes_of.setdefault(found[0], set()).add(sys.intern(found[1]))
    return {name: (sorted(classes), None) for name, classes in classes_of.items()}, kept


def _class_of(table: CodeTable, record: Record) -> tuple[str, str] | None:
    id_cell, code_cell, *version_cell = record.cells.items()
    name = read_cell(record.where, *id_cell)
    code = read_cell(record.where, *code_cell)
    version = read_cell(record.where, *version_cell[0]) if version_cell else ""
    return (name, table.class_of(code, version)) if name and code else None
