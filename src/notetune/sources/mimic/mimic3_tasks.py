"""The tables of MIMIC-III beside the notes: admissions, and the outcome tasks made from them.

MIMIC-IV has the same table of admissions and shares the first two tasks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, assert_never

import numpy as np
import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.outcomes import (
    LENGTH_OF_STAY_CLASSES,
    Task,
    classes_in,
    icd9_category,
    icd9_procedure_category,
    length_of_stay_class,
)
from notetune.sources.cohort import TASK_SCHEMA, reject, stop_if_any
from notetune.sources.columns import (
    check_whole_numbers,
    is_whole_number,
    not_whole,
    with_times,
)
from notetune.sources.mimic import core2021
from notetune.sources.mimic.ventilation import (
    charted_episodes,
    first_stays,
    prolonged_ventilation,
    read_episodes,
    ventilation_task,
)
from notetune.sources.mimic.ventilation_labels import read_ventilation_labels
from notetune.strict_csv import find_csv, read_rows, read_table, require_csv

_SECONDS_PER_DAY: Final = 86_400
_AS_OF: Final = "Known at admission."
_PMV_LABELS: Final = "pmv_labels.pkl"

TaskWithTable = tuple[Task, pl.DataFrame]
VentilationFrom = Literal["auto", "chartevents", "ventdurations", "published", "none"]


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


def require_task_tables(folder: Path) -> None:
    """Stop early where a table that every task set needs is missing.

    Raises:
        DataError: With its name.
    """
    for name in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
        require_csv(folder, name)


def read_tasks(
    folder: Path, cohort: pl.DataFrame, *, as_2021: bool, ventilation_from: VentilationFrom
) -> tuple[tuple[TaskWithTable, ...], tuple[FlowCount, ...]]:
    """The outcome tasks of the cohort and the flow of each.

    A task in which no admission is left is absent, and its flow says why.

    Args:
        folder: The folder of the tables.
        cohort: Columns `hadm_id`, `note_id`, `mortality_note_id`, `admitted`, `discharged`, `died`.
        as_2021: By the rules of the published scripts (`core2021`).
        ventilation_from: Where ventilation comes from.

    Raises:
        DataError: If a table is missing or faulty.
    """
    made: list[tuple[TaskWithTable | None, FlowCount]] = [
        mortality(cohort),
        length_of_stay(cohort, with_negative=as_2021),
    ]
    if as_2021:
        made += [
            _codes_2021(folder, cohort, "diagnoses", core2021.diagnosis_label),
            _codes_2021(folder, cohort, "procedures", core2021.procedure_label),
        ]
    else:
        made += [
            _codes(folder, cohort, "diagnoses", icd9_category),
            _codes(folder, cohort, "procedures", icd9_procedure_category),
        ]
    ventilation = _ventilation(folder, cohort, ventilation_from, as_2021=as_2021)
    made += [ventilation] if ventilation else []
    tasks = tuple(task for task, _ in made if task is not None and task[1].height)
    return tasks, tuple(flow for _, flow in made)


def mortality(cohort: pl.DataFrame) -> tuple[TaskWithTable, FlowCount]:
    """Death in hospital, without the admissions whose text gives it away."""
    task = Task("mortality", "binary", ("died",), f"Death in hospital. {_AS_OF}")
    given_away = {"the text states the death": pl.col("mortality_note_id").is_null()}
    kept, flow = reject("task mortality", cohort, given_away)
    labels = [["died"] if died else [] for died in kept["died"]]
    return (task, label_table(kept["mortality_note_id"], labels)), flow


def length_of_stay(
    cohort: pl.DataFrame, *, with_negative: bool = False
) -> tuple[TaskWithTable, FlowCount]:
    """Days in hospital of the survivors.

    Args:
        cohort: `note_id`, `admitted`, `discharged`, `died`.
        with_negative: Keep a discharge before the admission, in the shortest class, as the
            published builder does.
    """
    description = f"Days in hospital, survivors only. {_AS_OF}"
    task = Task("length_of_stay", "multiclass", LENGTH_OF_STAY_CLASSES, description)
    reasons = {
        "died in hospital": pl.col("died"),
        "no time of admission or discharge": pl.any_horizontal(
            pl.col("admitted", "discharged").is_null()
        ),
    }
    if not with_negative:
        reasons["discharged before admission"] = pl.col("discharged") < pl.col("admitted")
    kept, flow = reject("task length_of_stay", cohort, reasons)
    seconds = (kept["discharged"] - kept["admitted"]).dt.total_seconds().to_numpy()
    # numpy's rounding (half to even), as in the published builder: 3.04 days counts as 3.0.
    days = np.round(seconds / _SECONDS_PER_DAY, 1)
    return (task, label_table(kept["note_id"], [[length_of_stay_class(d)] for d in days])), flow


def label_table(note_ids: pl.Series, labels: list[list[str]]) -> pl.DataFrame:
    """A table of `TASK_SCHEMA`."""
    return pl.DataFrame({"note_id": note_ids, "labels": labels}, schema=TASK_SCHEMA)


def _codes(
    folder: Path, cohort: pl.DataFrame, name: str, category: Callable[[str], str]
) -> tuple[TaskWithTable | None, FlowCount]:
    path = require_csv(folder, f"{name}_ICD")
    categories: dict[str, set[str]] = {hadm_id: set() for hadm_id in cohort["hadm_id"]}
    for line, (hadm_id, code) in read_rows(path, ["HADM_ID", "ICD9_CODE"]):
        if not is_whole_number(hadm_id):
            raise not_whole(path, line, "HADM_ID")
        if code.strip() and hadm_id in categories:
            categories[hadm_id].add(category(code))
    labels = [sorted(found) for found in categories.values()]
    table, flow = _coded(cohort, labels, name)
    return _with_classes(name, classes_in(table["labels"]), table), flow


def _codes_2021(
    folder: Path, cohort: pl.DataFrame, name: str, label: Callable[[str], str]
) -> tuple[TaskWithTable | None, FlowCount]:
    path = require_csv(folder, f"{name}_ICD")
    found, classes = core2021.read_codes(path, cohort["hadm_id"], label)
    labels = [found.get(hadm_id, []) for hadm_id in cohort["hadm_id"]]
    table, flow = _coded(cohort, labels, name)
    return _with_classes(name, classes, table), flow


def _coded(
    cohort: pl.DataFrame, labels: list[list[str]], name: str
) -> tuple[pl.DataFrame, FlowCount]:
    without = {f"no code in {name.upper()}_ICD": pl.col("labels").list.len() == 0}
    return reject(f"task {name}", label_table(cohort["note_id"], labels), without)


def _with_classes(name: str, classes: tuple[str, ...], table: pl.DataFrame) -> TaskWithTable | None:
    description = f"ICD-9 categories of {name} during the admission. {_AS_OF}"
    return (Task(name, "multilabel", classes, description), table) if classes else None


def _ventilation(
    folder: Path, cohort: pl.DataFrame, wanted: VentilationFrom, *, as_2021: bool
) -> tuple[TaskWithTable, FlowCount] | None:
    """The task from the source asked for; None if there is none."""
    match wanted if wanted != "auto" else _best_ventilation(folder, as_2021=as_2021):
        case "none":
            return None
        case "published":
            return _published_ventilation(folder / _PMV_LABELS, cohort, as_2021=as_2021)
        case "chartevents":
            stays = first_stays(require_csv(folder, "ICUSTAYS"), stay_column="ICUSTAY_ID")
            return prolonged_ventilation(cohort, stays, charted_episodes(folder))
        case "ventdurations":
            stays = first_stays(require_csv(folder, "ICUSTAYS"), stay_column="ICUSTAY_ID")
            path = require_csv(folder, "VENTDURATIONS")
            episodes = read_episodes(path, stay_column="ICUSTAY_ID")
            return prolonged_ventilation(cohort, stays, episodes)
        case other:
            assert_never(other)


_Ventilation = Literal["chartevents", "ventdurations", "published", "none"]


def _best_ventilation(folder: Path, *, as_2021: bool) -> _Ventilation:
    """The published labels first where the published task is wanted, and last otherwise."""
    there: dict[_Ventilation, bool] = {
        "chartevents": find_csv(folder, "CHARTEVENTS") is not None,
        "ventdurations": find_csv(folder, "VENTDURATIONS") is not None,
        "published": (folder / _PMV_LABELS).is_file(),
        "none": True,
    }
    if as_2021 and there["published"]:
        return "published"
    return next(source for source, is_there in there.items() if is_there)


def _published_ventilation(
    path: Path, cohort: pl.DataFrame, *, as_2021: bool
) -> tuple[TaskWithTable, FlowCount]:
    """The published labels, joined to the text of the mortality task as published if asked.

    Their split is by admission and is not used here: a patient can be on both of its sides.
    """
    published = read_ventilation_labels(path)
    task = ventilation_task()
    labelled = cohort["hadm_id"].is_in(list(published))
    reasons = {"not in the published labels": ~pl.lit(labelled)}
    kept, flow = reject(f"task {task.name}", cohort, reasons)
    note_ids = kept["note_id"]
    if as_2021:
        given_away = {"the text states the death": pl.col("mortality_note_id").is_null()}
        read, labelled_flow = kept.height, flow
        kept, flow = reject(f"task {task.name}", kept, given_away)
        flow = FlowCount(
            flow.stage,
            labelled_flow.read,
            kept.height,
            labelled_flow.rejected | {"the text states the death": read - kept.height},
        )
        note_ids = kept["mortality_note_id"]
    if kept.is_empty():
        raise DataError(
            f"{path}: none of its {len(published)} admissions is in the cohort of {cohort.height}; "
            "is it of this data set?"
        )
    labels = [list(task.classes) if published[h].prolonged else [] for h in kept["hadm_id"]]
    return (task, label_table(note_ids, labels)), flow
