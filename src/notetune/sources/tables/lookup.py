"""Tables of labels and of codes, held in memory by the id that they speak of."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.icd import has_form
from notetune.notes.ids import bare_id
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import of_recipe
from notetune.sources.tables.labels import LabelSet, label_set
from notetune.sources.tables.records import Record
from notetune.sources.tables.resources import discharge_notice, records_beside, resource_files
from notetune.sources.tables.roll_up import RollUp
from notetune.sources.tables.tasks import CodeTable, LabelTable, TableTask

_NOT_ASKED_FOR: Final = "not asked for (where)"
ENDED: Final = "stay ended before the prediction time"


@dataclass(frozen=True)
class Lookup:
    """The labels of each id, and what became of the rows of the table.

    `unknown` are ids whose row has no label or was rejected, `ended` stays that were over at their
    prediction time, of which nothing is foretold; of `unread` rows that were rejected, nobody knows
    the id. Of the ids of notes, `met` are those that the table has, and `absent` those that count
    as negative.
    """

    by_id: Mapping[str, LabelSet]
    unknown: frozenset[str]
    ended: frozenset[str]
    unread: int
    flow: FlowCount
    rejections: pl.DataFrame
    met: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)

    def nearly_has(self, name: str) -> bool:
        """Whether an id is that of no row, but for zeros before it or ".0" behind it."""
        return name not in self.by_id and bare_id(name) in self._bare_ids

    @cached_property
    def _bare_ids(self) -> frozenset[str]:
        return frozenset(map(bare_id, self.by_id))


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
    rejections, forms = Rejections(policy), Counter[tuple[str, bool]]()
    rows = _Rows(rejections, table.id_column)
    section = f"task {task.name}, {'labels' if task.labels else 'codes'}"
    with of_recipe({section: table, f"task {task.name}": task}):
        if isinstance(table, LabelTable):
            by_id, kept = _read_labels(task, table, rows, roll_up)
        else:
            by_id, kept = _read_codes(table, rows, roll_up, forms)
    rejections.check_share(table.path)
    if rejections.rows_read == rejections.counts().get(_NOT_ASKED_FOR):
        raise DataError(
            f"{section}.where: none of the {rejections.rows_read} rows of {table.path} has what it "
            f"asks for in {', '.join(table.where)}; write the cells as they are, in their letter "
            "case."
        )
    stage = f"rows of the table for task {task.name}"
    notice = _form_notice(task, forms) or discharge_notice(task.name, rejections.discharges)
    flow = FlowCount(stage, rejections.rows_read, kept, rejections.counts(), notice=notice)
    rejected = rejections.table()
    unread = rejected.height - rows.named
    return Lookup(by_id, frozenset(rows.unknown), frozenset(rows.ended), unread, flow, rejected)


def absence_notice(task: TableTask, absent: int, notes: int, unread: int, nearly: int = 0) -> str:
    """What a reader must know where `absent` of the notes are of no id of the table; "" if nothing.

    Of a table of events nothing, unless rows are `unread`: who has none is negative by its nature;
    or unless it has ids that `nearly` are those of notes.
    """
    told = []
    if nearly:
        told.append(
            f"{nearly:,} of {notes:,} notes have no row, but one whose id differs by zeros before "
            "it or .0 behind it alone; write ids alike in both tables."
        )
    if absent and (task.labels is None or task.labels.label_column is not None):
        what, key = "row in the table of labels and count as negative", "labels.absent"
        if task.codes is not None:
            what, key = "usable code and count as having none of the classes", "codes.no_codes"
        told.append(
            f"{absent:,} of {notes:,} notes have no {what}; `{key}: missing` leaves them out."
        )
    if absent and unread:
        told.append(
            f"Of {unread:,} rejected rows of the table nobody knows the id: it may be one of those "
            "that count as negative."
        )
    return f"Task {task.name}: {' '.join(told)}" if told else ""


@dataclass
class _Rows:
    """The rows of a table that are no labels: how many, and of which ids."""

    rejections: Rejections
    id_column: str
    unknown: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    named: int = 0
    """Rejected rows whose id is known."""

    def reject(self, record: Record, fault: Rejected) -> None:
        """Note a bad row, so that what its id has is not known.

        Raises:
            DataError: With policy strict.
        """
        self.rejections.reject(record.file, record.line, fault)
        with suppress(Rejected):
            self.unknown.add(record.id(self.id_column, "row"))
            self.named += 1


def _form_notice(task: TableTask, forms: Counter[tuple[str, bool]]) -> str:
    """What a reader must know of codes that do not look as they should; "" if all do.

    `forms` counts codes by the version of ICD, and by whether they look like one of it.
    """
    of = task.codes.of if task.codes else ""
    found = [
        f"{others:,} of {others + forms[number, True]:,} codes do not look like ICD-{number} {of}"
        for (number, is_usual), others in forms.items()
        if not is_usual
    ]
    if not found:
        return ""
    return (
        f"Task {task.name}: {' and '.join(found)}; they count all the same. Is the table of one "
        "kind? `codes.where` picks rows."
    )


def _asked_for(
    table: LabelTable | CodeTable, columns: tuple[str | None, ...], rows: _Rows
) -> Iterator[Record]:
    """The rows of a table with the cells that its `where` names; others are left out."""
    wanted = list(dict.fromkeys(column for column in (*columns, *table.where) if column))
    for record in records_beside(table.path, wanted, rows.rejections):
        try:
            is_asked = all(
                (record.feature(column) or "") in ((cells,) if isinstance(cells, str) else cells)
                for column, cells in table.where.items()
            )
        except Rejected as fault:
            rows.reject(record, fault)
            continue
        if is_asked:
            yield record
        else:
            rows.rejections.leave_out(_NOT_ASKED_FOR)


def _read_labels(
    task: TableTask, table: LabelTable, rows: _Rows, roll_up: RollUp
) -> tuple[dict[str, LabelSet], int]:
    is_of_stays = task.prediction_time == "start" and bool(resource_files(table.path))
    end = "over" if is_of_stays and task.prediction_hours else None
    columns = (table.id_column, table.label_column, task.prediction_time, end)
    by_id: dict[str, LabelSet] = {}
    for record in _asked_for(table, columns, rows):
        try:
            name = record.id(table.id_column, "row")
            labels = label_set(task, record, roll_up.classes)
            over = record.time(end) if end else None
        except Rejected as fault:
            rows.reject(record, fault)
            continue
        if labels is None:
            rows.rejections.leave_out("missing label")
            rows.unknown.add(name)
        elif over and labels[1] and over <= labels[1]:
            rows.rejections.leave_out(ENDED)
            rows.ended.add(name)
        elif by_id.setdefault(name, labels) is labels:
            continue
        elif by_id[name] == labels:
            rows.rejections.leave_out("same as an earlier row")
        else:
            raise DataError(
                f"{record.where}: an earlier row gives this {table.id_column} another label of "
                f"task {task.name} or another prediction time; keep one row per id."
            )
    return by_id, len(by_id)


def _read_codes(
    table: CodeTable, rows: _Rows, roll_up: RollUp, forms: Counter[tuple[str, bool]]
) -> tuple[dict[str, LabelSet], int]:
    columns = (table.id_column, table.code_column, table.version_column)
    needed = [column for column in columns if column]
    classes_of: dict[str, set[str]] = {}
    kept = 0
    for record in _asked_for(table, columns, rows):
        try:
            name = record.name(table.id_column)
            code, *version = map(record.text, needed[1:])
            labels = roll_up.classes(code, *version) if name and code else None
        except Rejected as fault:
            rows.reject(record, fault)
            continue
        if labels is None:
            rows.rejections.leave_out("no id or no code")
            continue
        if table.version != "as-is":
            number, _ = table.edition(*version)
            forms[number, has_form(code, table.of, number)] += 1
        kept += bool(labels)
        # An id whose codes are of no class is known to have none, unlike an id without a code.
        classes_of.setdefault(name, set()).update(map(sys.intern, labels))
    for reason, count in roll_up.left_out.items():
        rows.rejections.leave_out(reason, count)
    by_id: dict[str, LabelSet] = {
        name: (sorted(classes), None)
        for name, classes in classes_of.items()
        if name not in rows.unknown  # the code of a rejected row is none of these
    }
    return by_id, kept
