"""Episodes of mechanical ventilation from MIMIC-III charts, and the prolonged-ventilation task.

An episode starts with a ventilator setting and goes on with the next one within 8 hours. An
extubation ends it, and so does oxygen given without a ventilator setting at the same time.

Source:
    Data specification, section 2.6: mimic-code `ventilation_classification` and
    `ventilation_durations` for MIMIC-III in words. The specification names kinds of settings
    without all of their item ids; here they are as mimic-code lists them (MIT licence).
"""

import datetime as dt
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from notetune.audit import FlowCount
from notetune.notes.outcomes import Task
from notetune.sources.cohort import outcome_table, reject, stop_if_any
from notetune.sources.columns import check_whole_numbers, with_times
from notetune.strict_csv import read_rows, read_table, require_csv

TASK: Final = Task(
    "ventilation",
    "binary",
    ("prolonged",),
    "Over 7 days of ventilation, among the ventilated. Known at admission.",
)
"""Source: Huang et al. 2020 (prolonged mechanical ventilation: over 7 days)."""
_LONGEST_GAP: Final = dt.timedelta(hours=8)
_ROWS_PER_CHUNK: Final = 500_000


class _Sign(NamedTuple):
    """What a charted row says."""

    ventilated: bool = False
    oxygen: bool = False
    extubated: bool = False


_VENTILATED, _OXYGEN, _EXTUBATED = _Sign(ventilated=True), _Sign(oxygen=True), _Sign(extubated=True)
_SETTINGS: Final = {
    "mode": (223849,),
    "minute volume": (445, 448, 449, 450, 1340, 1486, 1600, 224687),
    "tidal volume": (639, 654, 681, 682, 683, 684, 224685, 224684, 224686),
    "airway pressure": (218, 436, 535, 444, 224697, 224695, 224696, 224746, 224747),
    "inspiratory pressure": (221, 1, 1211, 1655, 2000, 226873, 224738, 224419, 224750, 227187),
    "plateau pressure": (543,),
    "release ventilation": (5865, 5866, 224707, 224709, 224705, 224706),
    "end-expiratory pressure": (60, 437, 505, 506, 686, 220339, 224700),
    "pressure relief": (3459,),
    "pressure control": (501, 502, 503, 224702),
    "time-cycled pressure control": (223, 667, 668, 669, 670, 671, 672),
    "pressure support": (224701,),
}
"""ITEMIDs of CHARTEVENTS whose rows say that the ventilator runs, whatever their value."""

_OXYGEN_CAREVUE: Final = (
    "Cannula|Nasal Cannula|Face Tent|Aerosol-Cool|Trach Mask|Hi Flow Neb|Non-Rebreather|Venti Mask|"
    "Medium Conc Mask|Vapotherm|T-Piece|Hood|Hut|TranstrachealCat|Heated Neb|Ultrasonic Neb"
)
_OXYGEN_METAVISION: Final = (
    "Nasal cannula|Face tent|Aerosol-cool|Trach mask|High flow neb|Non-rebreather|Venti mask|"
    "Medium conc mask|T-piece|High flow nasal cannula|Ultrasonic neb|Vapomist"
)
_CHARTED: Final[dict[str, tuple[_Sign | None, dict[str, _Sign | None]]]] = {
    **{str(item): (_VENTILATED, {}) for items in _SETTINGS.values() for item in items},
    "720": (_VENTILATED, {"Other/Remarks": None}),
    "223848": (_VENTILATED, {"Other": None}),
    "467": (
        None,
        {"Ventilator": _VENTILATED, **dict.fromkeys(_OXYGEN_CAREVUE.split("|"), _OXYGEN)},
    ),
    "226732": (None, dict.fromkeys(_OXYGEN_METAVISION.split("|"), _OXYGEN)),
    "640": (None, {"Extubated": _EXTUBATED, "Self Extubation": _EXTUBATED}),
}
"""ITEMIDs to what a row says and what it says with certain values (spaces at their end, which some
have in the original, do not count): settings, ventilator types, oxygen devices and extubation."""
_EXTUBATIONS: Final = frozenset(("227194", "225468", "225477"))
"""ITEMIDs of PROCEDUREEVENTS_MV: planned, by the patient, unplanned otherwise."""


def charted_episodes(folder: Path) -> pl.DataFrame:
    """Episodes of ventilation by the charts, as `episodes_of`.

    CHARTEVENTS (330 million rows) is read once, in pieces; only one row per ICU stay and minute
    that says something about ventilation is kept.

    Raises:
        DataError: If CHARTEVENTS or PROCEDUREEVENTS_MV is missing or faulty.
    """
    signs = [
        _signs(require_csv(folder, "CHARTEVENTS"), "CHARTTIME", ("VALUE", "ERROR"), _charted),
        _signs(require_csv(folder, "PROCEDUREEVENTS_MV"), "STARTTIME", (), _extubation),
    ]
    return episodes_of(pl.concat(signs))


def read_episodes(path: Path, *, stay_column: str, statuses: tuple[str, ...] = ()) -> pl.DataFrame:
    """A table of episodes (VENTDURATIONS, or ventilation of MIMIC-IV), as `episodes_of`.

    With `statuses`, only rows with one of these in ventilation_status count.

    Raises:
        DataError: If the table is faulty or a time is missing.
    """
    columns = [stay_column, "starttime", "endtime", *(["ventilation_status"] if statuses else [])]
    table = read_table(path, columns)
    if statuses:
        table = table.filter(pl.col("ventilation_status").is_in(statuses))
    check_whole_numbers(path, table, stay_column)
    for column in ("starttime", "endtime"):
        empty = pl.col(column).is_null()
        stop_if_any(path, table, empty, f"{column} is empty", "give every episode both times")
        table = with_times(path, table, column)
    return table.select(stay_id=stay_column, start="starttime", end="endtime")


def episodes_of(signs: pl.DataFrame) -> pl.DataFrame:
    """Signs to episodes: `stay_id`, `start` and `end`, in order of stay and time.

    Args:
        signs: `stay_id`, `time`, and the booleans of a sign; one row per charted moment, plus one
            per extubation from elsewhere.

    Source:
        mimic-code, `ventilation_durations`: an episode counts if the ventilator ran in it and it
        has more than one moment; an extubation belongs to the episode that it ends.
    """
    ventilated, oxygen, extubated = (pl.col(name) for name in _Sign._fields)
    rows = signs.unique().sort("stay_id", "time", "extubated")
    rows = rows.with_columns(counts=ventilated | extubated)
    after_extubation = extubated.shift(1).over("stay_id", "counts").fill_null(value=False)
    last_setting = pl.col("time").shift(1).over("stay_id", "ventilated")
    after_gap = (ventilated & (pl.col("time") > last_setting + _LONGEST_GAP)).fill_null(value=False)
    rows = rows.with_columns(starts=after_extubation | (oxygen & ~ventilated) | after_gap)
    rows = rows.with_columns(number=pl.col("starts").cast(pl.Int64).cum_sum().over("stay_id"))
    # Rows of one moment belong to one episode, the last of them.
    rows = rows.with_columns(pl.col("number").max().over("stay_id", "time"))
    episodes = (
        rows.filter("counts")
        .group_by("stay_id", "number")
        .agg(ventilated.any(), start=pl.col("time").min(), end=pl.col("time").max())
        .filter(ventilated & (pl.col("start") != pl.col("end")))
    )
    return episodes.sort("stay_id", "start").select("stay_id", "start", "end")


def prolonged_ventilation(
    cohort: pl.DataFrame, stays: pl.DataFrame, episodes: pl.DataFrame
) -> tuple[tuple[Task, pl.DataFrame], FlowCount]:
    """From the first start to the last end of ventilation in the first ICU stay, gaps included.

    A cohort has `note_id` and `hadm_id`; stays are those of `first_stays`, episodes as
    `episodes_of`.

    Source:
        Data specification, section 2.6 (Huang et al. 2020), without its 6 hours of tolerance.
    """
    per_stay = episodes.group_by("stay_id").agg(span=pl.col("end").max() - pl.col("start").min())
    ventilated = stays.join(per_stay, on="stay_id")
    joined = cohort.join(ventilated, on="hadm_id", how="left", maintain_order="left")
    without = {"not ventilated in the first ICU stay": pl.col("span").is_null()}
    kept, flow = reject(f"task {TASK.name}", joined, without)
    is_prolonged = kept["span"] > dt.timedelta(days=7)
    return (TASK, outcome_table(TASK, kept["note_id"], is_prolonged)), flow


def first_stays(path: Path, *, stay_column: str) -> pl.DataFrame:
    """Columns `hadm_id` and `stay_id` of the first ICU stay of each admission, in ICUSTAYS."""
    stays = read_table(path, ["HADM_ID", stay_column, "INTIME"])
    check_whole_numbers(path, stays, "HADM_ID", stay_column)
    number = pl.col(stay_column).cast(pl.Int64)
    stays = with_times(path, stays, "INTIME").sort("INTIME", number, nulls_last=True)
    first = stays.unique("HADM_ID", keep="first", maintain_order=True)
    return first.select(hadm_id="HADM_ID", stay_id=stay_column)


def _charted(item: str, cells: Sequence[str]) -> _Sign | None:
    """What a row of CHARTEVENTS says; a row without a value or marked as an error says nothing."""
    if item not in _CHARTED:
        return None
    value, error = cells[0].rstrip(), cells[1]
    if not value or error == "1":
        return None
    otherwise, by_value = _CHARTED[item]
    return by_value.get(value, otherwise)


def _extubation(item: str, _cells: Sequence[str]) -> _Sign | None:
    return _EXTUBATED if item in _EXTUBATIONS else None


def _signs(
    path: Path,
    time_column: str,
    more: tuple[str, ...],
    sign_of: Callable[[str, Sequence[str]], _Sign | None],
) -> pl.DataFrame:
    """One row per stay and moment of a table: stay_id, time, and what its rows say together."""
    found = (
        (line, stay, time or None, *sign)
        for line, (item, stay, time, *cells) in read_rows(
            path, ["ITEMID", "ICUSTAY_ID", time_column, *more]
        )
        if (sign := sign_of(item, cells)) is not None and stay
    )
    schema = {"line": pl.Int64, "ICUSTAY_ID": pl.String, time_column: pl.String}
    schema |= dict.fromkeys(_Sign._fields, pl.Boolean)
    moments = []
    pieces = iter(lambda: list(itertools.islice(found, _ROWS_PER_CHUNK)), [])
    for rows in itertools.chain([[]], pieces):
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        check_whole_numbers(path, frame, "ICUSTAY_ID")
        frame = with_times(path, frame, time_column)
        untimed = pl.col(time_column).is_null()
        stop_if_any(path, frame, untimed, f"{time_column} is empty", "fill it in")
        named = frame.rename({"ICUSTAY_ID": "stay_id", time_column: "time"})
        moments.append(_united(named))
    return _united(pl.concat(moments))


def _united(signs: pl.DataFrame) -> pl.DataFrame:
    return signs.group_by("stay_id", "time").agg(pl.col(_Sign._fields).any())
