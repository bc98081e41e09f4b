"""Samples: labels of an id at prediction times, and the note that each is predicted from."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from operator import itemgetter
from typing import Final

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources.cohort import SAMPLED_TASK_SCHEMA
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import names_in, of_recipe, table_files
from notetune.sources.tables.labels import labels_in
from notetune.sources.tables.records import Record
from notetune.sources.tables.resources import discharge_notice, records_beside, resource_files
from notetune.sources.tables.roll_up import RollUp
from notetune.sources.tables.tasks import SampleTable, TableTask
from notetune.sources.tables.zones import Zones

_VALUES: Final = ("boolean_value", "integer_value", "float_value", "categorical_value")
_UNTIMED, _LATE = "no note with a time under the id", "no note at or before the prediction time"
_SAME_DAY: Final = "no note before the day of the prediction time, and one of that day without hour"
_BY_TIME: Final = itemgetter(0)
"""Sorts the notes of `Samples.notes`."""


@dataclass(frozen=True)
class Samples:
    """The labels of each id and prediction time, and the notes that were seen under these ids."""

    task: TableTask
    labels: Mapping[tuple[str, datetime], list[str]]
    flow: FlowCount
    rejections: pl.DataFrame
    notes: dict[str, list[tuple[datetime, str]]]
    """Time and id of the notes under each id that has a sample, in the order of the source."""

    def see(self, name: str, moment: datetime | None, note_id: str) -> None:
        """Take a note under an id; one without a time may be from any."""
        if moment is not None and name in self.notes:
            self.notes[name].append((moment, note_id))

    def table(self) -> tuple[pl.DataFrame, FlowCount]:
        """A table of `SAMPLED_TASK_SCHEMA`, and what became of the samples; all notes were seen.

        Raises:
            DataError: If no sample has a note.
        """
        rows, without = [], dict.fromkeys((_UNTIMED, _LATE), 0)
        for notes in self.notes.values():
            notes.sort(key=_BY_TIME)  # stable: of notes at one time the last counts
        for (name, zoned), labels in self.labels.items():
            notes, moment = self.notes[name], zoned.replace(tzinfo=None)
            if end := _end(notes, moment):
                note_id = notes[end - 1][1]
                rows.append((note_id, labels, moment, f"{note_id}@{moment.isoformat()}"))
            else:
                has_one = bool(notes) and notes[0][0] <= moment
                reason = _SAME_DAY if has_one else _LATE if notes else _UNTIMED
                without[reason] = without.get(reason, 0) + 1
        if not rows:
            counts = "; ".join(f"{count} have {reason}" for reason, count in without.items())
            raise DataError(
                f"none of the {len(self.labels)} samples of task {self.task.name} has a note: "
                f"{counts}. Write the ids as in column {self.task.column}, and look at both times."
            )
        stage = f"samples of task {self.task.name}, each with its latest note"
        table = pl.DataFrame(rows, schema=SAMPLED_TASK_SCHEMA, orient="row")
        return table, FlowCount(stage, len(self.labels), len(rows), without)


def _end(notes: list[tuple[datetime, str]], moment: datetime) -> int:
    """How many notes in order of time may be the latest one; as `overlap.not_in_time`."""
    midnight = datetime.combine(moment, time.min)
    end = bisect_right(notes, moment, key=_BY_TIME)
    is_day_alone = end > 0 and notes[end - 1][0] == midnight
    return bisect_left(notes, midnight, key=_BY_TIME) if is_day_alone else end


def load_samples(task: TableTask, policy: ReadingPolicy, roll_up: RollUp, zones: Zones) -> Samples:
    """The samples of a task that has a table of them, whose prediction times `zones` has then seen.

    Raises:
        DataError: If a file is missing or faulty, a row has two labels, two rows give one id and
            prediction time different labels, the policy stops, or some times have a time zone and
            others none.
    """
    assert task.samples
    rejections = Rejections(policy)
    labels: dict[tuple[str, datetime], list[str]] = {}
    for record, (name, moment, mine) in _rows(task, task.samples, rejections, roll_up):
        if mine is None:
            rejections.leave_out("missing label")
        elif (first := labels.setdefault((name, moment), mine)) is mine:
            continue
        elif first == mine:
            rejections.leave_out("same as an earlier row")
        else:
            raise DataError(
                f"{record.where}: an earlier row gives this {task.samples.id_column} another label "
                f"of task {task.name} at this {task.samples.prediction_time}; keep one of them."
            )
    rejections.check_share(task.samples.path)
    for _, moment in labels:
        zones.without(moment, task.samples.prediction_time, str(task.samples.path))
    stage = f"rows of the samples of task {task.name}"
    counts = (rejections.rows_read, len(labels), rejections.counts())
    flow = FlowCount(stage, *counts, notice=discharge_notice(task.name, rejections.discharges))
    notes: dict[str, list[tuple[datetime, str]]] = {name: [] for name, _ in labels}
    return Samples(task, labels, flow, rejections.table(), notes)


def _rows(
    task: TableTask, table: SampleTable, rejections: Rejections, roll_up: RollUp
) -> Iterator[tuple[Record, tuple[str, datetime, list[str] | None]]]:
    """The usable rows: id, prediction time, and labels; None where the label is missing."""
    columns = _label_columns(table)
    wanted = list(dict.fromkeys((table.id_column, table.prediction_time, *columns)))
    with of_recipe({f"task {task.name}, samples": table}):
        for record in records_beside(table.path, wanted, rejections):
            try:
                name, moment = record.id(table.id_column, "row"), record.time(table.prediction_time)
                if moment is None:
                    raise Rejected("missing prediction time", "fill it in or remove the row")
                column = _filled(task, record, columns)
                labels = labels_in(task, record, column, roll_up.classes) if column else None
            except Rejected as fault:
                rejections.reject(record.file, record.line, fault)
                continue
            yield record, (name, moment, labels)


def _label_columns(table: SampleTable) -> tuple[str, ...]:
    """The columns that may hold the label."""
    if table.label_column is not None:
        return (table.label_column,)
    names = [] if resource_files(table.path) else names_in(table_files(table.path)[0])
    held = {name.lower() for name in names}
    if columns := tuple(name for name in _VALUES if name in held):
        return columns
    raise DataError(
        f"{table.path}: no column {', '.join(_VALUES[:-1])} or {_VALUES[-1]}; name the column of "
        "the label by samples.label_column."
    )


def _filled(task: TableTask, record: Record, columns: tuple[str, ...]) -> str | None:
    """The one column of a row with a label; None if there is none."""
    filled = [name for name in columns if record.cells[name] not in (None, "")]
    if len(filled) > 1:
        raise DataError(
            f"{record.where}: {' and '.join(filled)} are both filled; name the one that is meant "
            "by samples.label_column."
        )
    if not filled:
        return None
    if isinstance(record.cells[filled[0]], float) and task.borders is None:
        raise DataError(
            f"{record.where}: {filled[0]} holds a number that is no class; give task {task.name} "
            "kind multiclass and borders, which cut such numbers into classes."
        )
    return filled[0]
