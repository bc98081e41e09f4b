"""The tables of MIMIC-III beside the notes: admissions, and the outcome tasks made from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from notetune.notes.outcomes import (
    LENGTH_OF_STAY_CLASSES,
    Task,
    classes_in,
    icd9_category,
    icd9_procedure_category,
    length_of_stay_class,
)
from notetune.notes.sources.cohort import TASK_SCHEMA, FlowCount, reject, stop_if_any
from notetune.notes.sources.sections import states_death
from notetune.notes.strict_csv import find_csv, read_table, require_csv

_SECONDS_PER_DAY: Final = 86_400
_PROLONGED_VENTILATION_DAYS: Final = 7
"""Source: Huang et al. 2020 (prolonged mechanical ventilation: over 7 days)."""
_AS_OF: Final = "Known at admission."

TaskWithTable = tuple[Task, pl.DataFrame]


def read_admissions(folder: Path) -> pl.DataFrame:
    """ADMISSIONS as `hadm_id`, `patient_id`, `type`, `admitted`, `discharged`, `died` (bool).

    Raises:
        DataError: If the table is missing or faulty, an id is missing, repeated or no whole
            number, a time cannot be read, or HOSPITAL_EXPIRE_FLAG is neither 0 nor 1.
    """
    path = require_csv(folder, "ADMISSIONS")
    columns = ["HADM_ID", "SUBJECT_ID", "ADMISSION_TYPE", "ADMITTIME", "DISCHTIME"]
    table = read_table(path, [*columns, "HOSPITAL_EXPIRE_FLAG"], line_column="line")
    for column in ("HADM_ID", "SUBJECT_ID"):
        check_whole_numbers(path, table, column)
    stop_if_any(
        path,
        table,
        ~pl.col("HADM_ID").is_first_distinct(),
        "HADM_ID repeated",
        "keep one row per admission",
    )
    flag = pl.col("HOSPITAL_EXPIRE_FLAG")
    is_odd = flag.is_in(["0", "1"]).fill_null(value=False).not_()
    stop_if_any(path, table, is_odd, "HOSPITAL_EXPIRE_FLAG is neither 0 nor 1", "mend it")
    for column in ("ADMITTIME", "DISCHTIME"):
        table = with_times(path, table, column)
    return table.select(
        pl.col("HADM_ID").alias("hadm_id"),
        pl.col("SUBJECT_ID").alias("patient_id"),
        pl.col("ADMISSION_TYPE").str.strip_chars().str.to_uppercase().alias("type"),
        pl.col("ADMITTIME").alias("admitted"),
        pl.col("DISCHTIME").alias("discharged"),
        (flag == "1").alias("died"),
    )


def read_tasks(
    folder: Path, cohort: pl.DataFrame
) -> tuple[tuple[TaskWithTable, ...], tuple[FlowCount, ...]]:
    """The outcome tasks of the cohort and the flow of each.

    Ventilation needs a VENTDURATIONS table. A task in which no admission is left is absent, and
    its flow says why.

    Args:
        folder: The folder of the tables.
        cohort: Columns `note_id`, `hadm_id`, `text`, `admitted`, `discharged`, `died`.

    Raises:
        DataError: If a table is missing or faulty.
    """
    made: list[tuple[TaskWithTable | None, FlowCount]] = [
        _mortality(cohort),
        _length_of_stay(cohort),
        _codes(folder, cohort, "diagnoses", "DIAGNOSES_ICD", icd9_category),
        _codes(folder, cohort, "procedures", "PROCEDURES_ICD", icd9_procedure_category),
    ]
    if (ventilation_csv := find_csv(folder, "VENTDURATIONS")) is not None:
        made.append(_ventilation(folder, ventilation_csv, cohort))
    tasks = tuple(task for task, _ in made if task is not None and task[1].height)
    return tasks, tuple(flow for _, flow in made)


def check_whole_numbers(path: Path, table: pl.DataFrame, column: str) -> None:
    """Stop at an id that is missing or written like 142345.0: it would silently match nothing.

    Args:
        path: The file the table was read from.
        table: Its rows as strings, with the column `line`.
        column: The column to check.

    Raises:
        DataError: With file and line.
    """
    is_odd = ~pl.col(column).str.contains(r"^[0-9]+$").fill_null(value=False)
    rule = f"{column} is not a whole number"
    stop_if_any(path, table, is_odd, rule, "write ids as in the original table")


def with_times(path: Path, table: pl.DataFrame, column: str) -> pl.DataFrame:
    """The table with a column of times as Datetime("us"); an empty cell stays null.

    Raises:
        DataError: With file and line, at a cell that is no time.
    """
    text = pl.col(column)
    time = text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    unreadable = time.is_null() & text.is_not_null()
    rule = f"{column} is not a time"
    stop_if_any(path, table, unreadable, rule, "write times as 2164-10-23 21:09:00")
    return table.with_columns(time)


def _mortality(cohort: pl.DataFrame) -> tuple[TaskWithTable, FlowCount]:
    task = Task("mortality", "binary", ("died",), f"Death in hospital. {_AS_OF}")
    states = pl.Series([states_death(text) for text in cohort["text"]], dtype=pl.Boolean)
    kept, flow = reject("task mortality", cohort, {"the text states the death": pl.lit(states)})
    return (task, _table(kept, [["died"] if died else [] for died in kept["died"]])), flow


def _length_of_stay(cohort: pl.DataFrame) -> tuple[TaskWithTable, FlowCount]:
    description = f"Days in hospital, survivors only. {_AS_OF}"
    task = Task("length_of_stay", "multiclass", LENGTH_OF_STAY_CLASSES, description)
    kept, flow = reject(
        "task length_of_stay",
        cohort,
        {
            "died in hospital": pl.col("died"),
            "no time of admission or discharge": pl.any_horizontal(
                pl.col("admitted", "discharged").is_null()
            ),
            "discharged before admission": pl.col("discharged") < pl.col("admitted"),
        },
    )
    seconds = (kept["discharged"] - kept["admitted"]).dt.total_seconds().to_numpy()
    # numpy's rounding (half to even), as in the published builder: 3.04 days counts as 3.0.
    days = np.round(seconds / _SECONDS_PER_DAY, 1)
    return (task, _table(kept, [[length_of_stay_class(value)] for value in days])), flow


def _codes(
    folder: Path, cohort: pl.DataFrame, name: str, table_name: str, category: Callable[[str], str]
) -> tuple[TaskWithTable | None, FlowCount]:
    path = require_csv(folder, table_name)
    rows = read_table(path, ["HADM_ID", "ICD9_CODE"], line_column="line")
    check_whole_numbers(path, rows, "HADM_ID")
    categories: dict[str, set[str]] = {}
    for hadm_id, code in rows.select("HADM_ID", "ICD9_CODE").drop_nulls().iter_rows():
        categories.setdefault(hadm_id, set()).add(category(code))
    table, flow = reject(
        f"task {name}",
        _table(cohort, [sorted(categories.get(hadm_id, ())) for hadm_id in cohort["hadm_id"]]),
        {f"no code in {table_name}": pl.col("labels").list.len() == 0},
    )
    description = f"ICD-9 categories of {name} during the admission. {_AS_OF}"
    classes = classes_in(table["labels"])
    return ((Task(name, "multilabel", classes, description), table) if classes else None), flow


def _ventilation(folder: Path, path: Path, cohort: pl.DataFrame) -> tuple[TaskWithTable, FlowCount]:
    """From the first start to the last end of ventilation in the first ICU stay, gaps included.

    Source:
        Data specification, section 2.6 (Huang et al. 2020), without its 6 hours of tolerance.
    """
    task = Task(
        "ventilation",
        "binary",
        ("prolonged",),
        f"Over {_PROLONGED_VENTILATION_DAYS} days of ventilation, among the ventilated. {_AS_OF}",
    )
    episodes = read_table(path, ["icustay_id", "starttime", "endtime"], line_column="line")
    check_whole_numbers(path, episodes, "icustay_id")
    for column in ("starttime", "endtime"):
        empty = pl.col(column).is_null()
        stop_if_any(path, episodes, empty, f"{column} is empty", "give every episode both times")
        episodes = with_times(path, episodes, column)
    span = pl.col("endtime").max() - pl.col("starttime").min()
    per_stay = episodes.group_by("icustay_id").agg(span.alias("span"))
    ventilated = _first_stays(folder).join(per_stay, on="icustay_id")
    joined = cohort.join(ventilated, on="hadm_id", how="left", maintain_order="left")
    kept, flow = reject(
        "task ventilation",
        joined,
        {"not ventilated in the first ICU stay": pl.col("span").is_null()},
    )
    limit = _PROLONGED_VENTILATION_DAYS * _SECONDS_PER_DAY
    is_prolonged = kept["span"].dt.total_seconds() > limit
    return (task, _table(kept, [["prolonged"] if long else [] for long in is_prolonged])), flow


def _first_stays(folder: Path) -> pl.DataFrame:
    """Columns `hadm_id` and `icustay_id` of the first ICU stay of each admission."""
    path = require_csv(folder, "ICUSTAYS")
    stays = read_table(path, ["HADM_ID", "ICUSTAY_ID", "INTIME"], line_column="line")
    for column in ("HADM_ID", "ICUSTAY_ID"):
        check_whole_numbers(path, stays, column)
    stays = with_times(path, stays, "INTIME").sort(
        "INTIME", pl.col("ICUSTAY_ID").cast(pl.Int64), nulls_last=True
    )
    first = stays.unique("HADM_ID", keep="first", maintain_order=True)
    return first.select(
        pl.col("HADM_ID").alias("hadm_id"), pl.col("ICUSTAY_ID").alias("icustay_id")
    )


def _table(cohort: pl.DataFrame, labels: list[list[str]]) -> pl.DataFrame:
    return pl.DataFrame({"note_id": cohort["note_id"], "labels": labels}, schema=TASK_SCHEMA)
