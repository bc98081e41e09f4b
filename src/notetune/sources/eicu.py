"""eICU Collaborative Research Database: one note per hospital stay, written from coded entries.

eICU has no free text. A stay's note is put together from what was entered within 24 hours of unit
admission, so the prediction time is 24 hours after unit admission, not admission itself.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

import polars as pl

from notetune.audit import FlowCount
from notetune.config import Config
from notetune.notes.clean import WHITE, cleaned
from notetune.notes.icd import icd9_category
from notetune.notes.outcomes import LENGTH_OF_STAY_CLASSES, Task, classes_in, length_of_stay_class
from notetune.sources.cohort import (
    Finished,
    NoteStream,
    label_table,
    outcome_table,
    reject,
    stop_if_any,
)
from notetune.strict_csv import read_table, require_csv

_MINUTES_PER_DAY: Final = 1440
_STAY: Final = "patientunitstayid"
_PATIENT_COLUMNS: Final = (
    *(_STAY, "uniquepid", "unitvisitnumber", "hospitaldischargestatus", "hospitaladmitoffset"),
    *("hospitaldischargeoffset", "age", "gender", "ethnicity", "unittype", "unitadmitsource"),
    "apacheadmissiondx",
)
_AS_OF = "Known 24 hours after unit admission."


class _Section(NamedTuple):
    """One line of a note, from one table of menu paths.

    `telling_parts` gives the parts of a path that say something; an entry without any is dropped.
    """

    title: str
    table: str
    columns: tuple[str, str, str]
    """Those of the minute of entry, the path and the row id."""
    telling_parts: Callable[[str], Sequence[str]]


_SECTIONS: Final = (
    _Section(
        "Admission diagnosis",
        "admissionDx",
        ("admitdxenteredoffset", "admitdxpath", "admissiondxid"),
        lambda path: path.split("|")[1:],
    ),
    _Section(
        "Past history",
        "pastHistory",
        ("pasthistoryenteredoffset", "pasthistorypath", "pasthistoryid"),
        lambda path: path.partition("/Organ Systems/")[2].split("/"),
    ),
    _Section(
        "Examination",
        "physicalExam",
        ("physicalexamoffset", "physicalexampath", "physicalexamid"),
        lambda path: path.split("/")[-2:],
    ),
)


class EicuSource(Config):
    """A folder with patient, admissionDx, pastHistory, physicalExam and diagnosis (.csv[.gz])."""

    kind: Literal["eicu"]
    folder: Path
    features: tuple[Literal["age", "gender", "ethnicity", "unittype", "unitadmitsource"], ...] = ()
    """Columns of the patient table beside the text, known at admission to the unit; an age over 89
    is 90."""

    def open(self) -> NoteStream:
        """Read first-unit stays with a known hospital outcome, as notes of source "stay".

        Tasks: mortality (binary, "expired"), length_of_stay (four classes) and icd9 (multilabel,
        over the stays with a diagnosis code). All are judged 24 hours after unit admission.

        Raises:
            DataError: If a table is missing or faulty, or a stay, status or offset is not as
                expected.

        Source:
            Data README, "How the eICU figures of trap 5 were made".
        """
        stays, stay_flow = _stays(self.folder)
        icd9, icd9_flow = _icd9(self.folder, stays)
        texts, changed = _texts(self.folder, stays)
        notes = stays.select(
            "note_id",
            patient_id="uniquepid",
            stay_id=_STAY,
            source=pl.lit("stay"),
            time=pl.lit(None, pl.Datetime("us")),
            text=pl.Series(texts, dtype=pl.String),
        )
        columns = None
        if self.features:
            columns = stays.select("note_id", *dict.fromkeys(self.features))
            columns = columns.with_columns(pl.col(pl.String).replace("> 89", "90"))
        tasks = (_mortality(stays), _length_of_stay(stays), icd9)
        flow = (replace(stay_flow, changed=changed, notice=_ended_notice(stays)), icd9_flow)
        finished = Finished(tasks, flow, columns=columns)
        return NoteStream(iter([notes]), lambda: finished)


def _stays(folder: Path) -> tuple[pl.DataFrame, FlowCount]:
    path = require_csv(folder, "patient")
    table = read_table(path, _PATIENT_COLUMNS)
    table = table.with_columns(pl.format("stay-{}", _STAY).alias("note_id"))
    repeated = ~pl.col(_STAY).is_first_distinct() | pl.col(_STAY).is_null()
    stop_if_any(path, table, repeated, "stay id missing or repeated", "keep one row per stay")
    status = pl.col("hospitaldischargestatus")
    reasons = {
        "not the first unit of the hospital stay": pl.col("unitvisitnumber").ne_missing("1"),
        "no hospital discharge status": status.is_null(),
    }
    kept, flow = reject("stays", table, reasons)
    is_odd = ~status.is_in(["Alive", "Expired"])
    remedy = "write Alive or Expired, or leave it empty"
    stop_if_any(path, kept, is_odd, "unknown hospitaldischargestatus", remedy)
    stop_if_any(path, kept, pl.col("uniquepid").is_null(), "no uniquepid", "name the patient")
    return _with_minutes(path, kept, "hospitaladmitoffset", "hospitaldischargeoffset"), flow


def _with_minutes(path: Path, table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    for column in columns:
        minutes = pl.col(column).cast(pl.Int64, strict=False)
        remedy = "write whole minutes from unit admission"
        stop_if_any(path, table, minutes.is_null(), f"{column} is not a whole number", remedy)
        table = table.with_columns(minutes)
    return table


def _mortality(stays: pl.DataFrame) -> tuple[Task, pl.DataFrame]:
    task = Task("mortality", "binary", ("expired",), f"Death before hospital discharge. {_AS_OF}")
    expired = stays["hospitaldischargestatus"] == "Expired"
    return task, outcome_table(task, stays["note_id"], expired)


def _length_of_stay(stays: pl.DataFrame) -> tuple[Task, pl.DataFrame]:
    description = f"Days from hospital admission to hospital discharge. {_AS_OF}"
    task = Task("length_of_stay", "multiclass", LENGTH_OF_STAY_CLASSES, description)
    minutes = stays["hospitaldischargeoffset"] - stays["hospitaladmitoffset"]
    labels = [[length_of_stay_class(value / _MINUTES_PER_DAY)] for value in minutes]
    return task, label_table(stays["note_id"], labels)


def _ended_notice(stays: pl.DataFrame) -> str:
    """That the published cohort holds stays whose end was known at the prediction time."""
    has_ended = stays["hospitaldischargeoffset"] < _MINUTES_PER_DAY
    if not has_ended.any():
        return ""
    is_death = stays["hospitaldischargestatus"] == "Expired"
    return (
        f"{has_ended.sum():,} of the {stays.height:,} eICU stays ended before the prediction time, "
        f"24 hours after unit admission, with {(is_death & has_ended).sum():,} of the "
        f"{is_death.sum():,} deaths; they are in the cohort, as in the published one."
    )


def _icd9(folder: Path, stays: pl.DataFrame) -> tuple[tuple[Task, pl.DataFrame], FlowCount]:
    """The first code of each diagnosis, whenever it was entered.

    A few entries carry an ICD-10 code first, cut like the others, as in the figures of the README.
    """
    path = require_csv(folder, "diagnosis")
    codes: dict[str, set[str]] = {}
    for _, stay, cell in read_table(path, [_STAY, "icd9code"]).drop_nulls().iter_rows():
        if category := icd9_category(cell.split(",")[0]):
            codes.setdefault(stay, set()).add(category)
    labels = [sorted(codes.get(stay, ())) for stay in stays[_STAY]]
    without = {"no diagnosis code": pl.col("labels").list.len() == 0}
    table, flow = reject("task icd9", label_table(stays["note_id"], labels), without)
    description = f"ICD-9 categories diagnosed during the unit stay. {_AS_OF}"
    task = Task("icd9", "multilabel", classes_in(table["labels"]), description)
    return (task, table), flow


def _texts(folder: Path, stays: pl.DataFrame) -> tuple[list[str], dict[str, int]]:
    """The notes, and the count of those with changed characters by kind of change."""
    sections = {section.title: _entries(folder, section) for section in _SECTIONS}
    texts = []
    changed: Counter[str] = Counter()
    for stay in stays.iter_rows(named=True):
        lines = [_first_sentence(stay)]
        for title, entries in sections.items():
            if items := entries.get(stay[_STAY]):
                lines.append(f"{title}: {'; '.join(items)}.")
        text, changes = cleaned("\n".join(lines))
        texts.append(text)
        changed.update(changes)
    return texts, dict(changed)


def _first_sentence(stay: Mapping[str, str | None]) -> str:
    facts = (
        stay["age"] and f"{stay['age'].replace('> ', 'over ')} years old",
        stay["gender"],
        stay["ethnicity"],
        stay["unittype"] and f"in {stay['unittype']}",
        stay["unitadmitsource"] and f"admitted from {stay['unitadmitsource']}",
        stay["apacheadmissiondx"] and f"with {stay['apacheadmissiondx']}",
    )
    return f"Patient: {', '.join(fact for fact in facts if fact) or 'no details'}."


def _entries(folder: Path, section: _Section) -> dict[str, dict[str, None]]:
    """Readable entries per stay, in order of entry (row id breaks ties), each once."""
    file = require_csv(folder, section.table)
    minute, path_column, row_id = section.columns
    table = read_table(file, [_STAY, *section.columns])
    table = _with_minutes(file, table, minute, row_id)
    # Source of the limit: data README, trap 2.
    table = table.filter(pl.col(minute) <= _MINUTES_PER_DAY).sort(minute, row_id)
    entries: dict[str, dict[str, None]] = {}
    for stay, path in table.select(_STAY, path_column).drop_nulls().iter_rows():
        if item := _joined(section.telling_parts(path)):
            entries.setdefault(stay, {})[item] = None
    return entries


def _joined(parts: Iterable[str]) -> str:
    """Parts joined by commas, without one that only repeats its neighbour in other letters."""
    kept: list[str] = []
    for part in (part.strip(WHITE) for part in parts):
        if part and (not kept or kept[-1].casefold() != part.casefold()):
            kept.append(part)
    return ", ".join(kept)
