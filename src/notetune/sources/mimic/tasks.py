"""The outcome tasks of MIMIC-III and MIMIC-IV, from the tables beside the notes.

In MIMIC-IV, ICD-9 and ICD-10 codes are label spaces of their own, each with its task: an admission
coded in one version says nothing about the labels of the other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.icd import CATEGORY
from notetune.notes.outcomes import LENGTH_OF_STAY_CLASSES, Task, classes_in, length_of_stay_class
from notetune.sources.cohort import label_table, outcome_table, reject, stop_if_any
from notetune.sources.columns import check_whole_numbers, rows_with_id, with_times
from notetune.sources.mimic import core2021, ventilation
from notetune.sources.mimic.ventilation import first_stays, prolonged_ventilation, read_episodes
from notetune.sources.mimic.ventilation_labels import read_ventilation_labels
from notetune.strict_csv import find_csv, read_table, require_csv

_SECONDS_PER_DAY: Final = 86_400
_AS_OF: Final = "Known at admission."
_CODES_DESCRIBED: Final = f"ICD-{{}} categories of {{}} during the admission. {_AS_OF}"
_PMV_LABELS: Final = "pmv_labels.pkl"

_GIVEN_AWAY: Final = {"the text states the death": pl.col("mortality_note_id").is_null()}
CODED: Final = ("diagnoses", "procedures")
"""What there is a table of codes of."""
_INVASIVE: Final = ("InvasiveVent", "Tracheostomy")
"""Values of ventilation_status that count. Source: data specification, section 5.2."""

TasksWithFlow = tuple[tuple[tuple[Task, pl.DataFrame], ...], tuple[FlowCount, ...]]
_Made = tuple[tuple[Task, pl.DataFrame] | None, FlowCount]
VentilationFrom = Literal["auto", "chartevents", "ventdurations", "published", "none"]


def read_admissions(folder: Path) -> pl.DataFrame:
    """ADMISSIONS as `hadm_id`, `patient_id`, `type`, `admitted`, `discharged`, `died` (bool).

    Raises:
        DataError: If the table is missing or faulty, an id is missing, repeated or no whole
            number, a time cannot be read, or HOSPITAL_EXPIRE_FLAG is neither 0 nor 1.
    """
    path = require_csv(folder, "ADMISSIONS")
    columns = ["HADM_ID", "SUBJECT_ID", "ADMISSION_TYPE", "ADMITTIME", "DISCHTIME"]
    table = read_table(path, [*columns, "HOSPITAL_EXPIRE_FLAG"])
    check_whole_numbers(path, table, "HADM_ID", "SUBJECT_ID")
    repeated = ~pl.col("HADM_ID").is_first_distinct()
    stop_if_any(path, table, repeated, "HADM_ID repeated", "keep one row per admission")
    flag = pl.col("HOSPITAL_EXPIRE_FLAG")
    is_odd = flag.is_in(["0", "1"]).fill_null(value=False).not_()
    stop_if_any(path, table, is_odd, "HOSPITAL_EXPIRE_FLAG is neither 0 nor 1", "mend it")
    return with_times(path, table, "ADMITTIME", "DISCHTIME").select(
        hadm_id="HADM_ID",
        patient_id="SUBJECT_ID",
        type=pl.col("ADMISSION_TYPE").str.strip_chars().str.to_uppercase(),
        admitted="ADMITTIME",
        discharged="DISCHTIME",
        died=flag == "1",
    )


def mimic3_tasks(
    folder: Path, cohort: pl.DataFrame, *, as_2021: bool, ventilation_from: VentilationFrom
) -> TasksWithFlow:
    """The outcome tasks of the cohort and the flow of each.

    A task in which no admission is left is absent, and its flow says why. The cohort is that of
    `AdmissionNotes.cohort`; `as_2021` is by the rules of the published scripts (`core2021`).

    Raises:
        DataError: If a table is missing or faulty.
    """
    made: list[_Made] = [_mortality(cohort), _length_of_stay(cohort, with_negative=as_2021)]
    for kind in CODED:
        table = f"{kind.upper()}_ICD"
        path = require_csv(folder, table)
        classes: tuple[str, ...] | None = None
        if as_2021:
            found, classes = core2021.read_codes(path, kind)
        else:
            found = _categories(path, cohort, kind, ["HADM_ID", "ICD9_CODE"], ["9"])["9"]
        description = _CODES_DESCRIBED.format("9", kind)
        made.append(_code_task(kind, description, cohort, found, f"no code in {table}", classes))
    if last := _ventilation(folder, cohort, ventilation_from, as_2021=as_2021):
        made.append(last)
    return _not_empty(made)


def mimic4_tasks(folder: Path, cohort: pl.DataFrame) -> TasksWithFlow:
    """As `mimic3_tasks`, from a folder that holds hosp/ and icu/, by section 5.2.

    mortality, length_of_stay, diagnoses_icd9, diagnoses_icd10, procedures_icd9, procedures_icd10
    and, where icu/ventilation is there, ventilation.
    """
    made: list[_Made] = [_mortality(cohort), _length_of_stay(cohort)]
    for kind in CODED:
        path = require_csv(folder / "hosp", f"{kind}_icd")
        columns = ["hadm_id", "icd_code", "icd_version"]
        for version, found in _categories(path, cohort, kind, columns, ["9", "10"]).items():
            name, without = f"{kind}_icd{version}", f"no ICD-{version} code in {kind}_icd"
            description = _CODES_DESCRIBED.format(version, kind)
            made.append(_code_task(name, description, cohort, found, without))
    icu = folder / "icu"
    if icu.is_dir() and (charted := find_csv(icu, "ventilation")) is not None:
        stays = first_stays(require_csv(icu, "icustays"), stay_column="stay_id")
        episodes = read_episodes(charted, stay_column="stay_id", statuses=_INVASIVE)
        made.append(prolonged_ventilation(cohort, stays, episodes))
    return _not_empty(made)


def _not_empty(made: list[_Made]) -> TasksWithFlow:
    """The tasks in which an admission is left, and the flow of all."""
    tasks = tuple(task for task, _ in made if task is not None and task[1].height)
    return tasks, tuple(flow for _, flow in made)


def _mortality(cohort: pl.DataFrame) -> _Made:
    """Death in hospital, without the admissions whose text gives it away."""
    task = Task("mortality", "binary", ("died",), f"Death in hospital. {_AS_OF}")
    kept, flow = reject("task mortality", cohort, _GIVEN_AWAY)
    return (task, outcome_table(task, kept["mortality_note_id"], kept["died"])), flow


def _length_of_stay(cohort: pl.DataFrame, *, with_negative: bool = False) -> _Made:
    """Days in hospital of the survivors.

    `with_negative` keeps a discharge before the admission, in the shortest class, as the published
    builder does.
    """
    description = f"Days in hospital, survivors only. {_AS_OF}"
    task = Task("length_of_stay", "multiclass", LENGTH_OF_STAY_CLASSES, description)
    untimed = pl.any_horizontal(pl.col("admitted", "discharged").is_null())
    reasons = {"died in hospital": pl.col("died"), "no time of admission or discharge": untimed}
    if not with_negative:
        reasons["discharged before admission"] = pl.col("discharged") < pl.col("admitted")
    kept, flow = reject("task length_of_stay", cohort, reasons)
    seconds = (kept["discharged"] - kept["admitted"]).dt.total_seconds().to_numpy()
    # numpy's rounding (half to even), as in the published builder: 3.04 days counts as 3.0.
    days = np.round(seconds / _SECONDS_PER_DAY, 1)
    return (task, label_table(kept["note_id"], [[length_of_stay_class(d)] for d in days])), flow


def _categories(
    path: Path, cohort: pl.DataFrame, kind: str, columns: Sequence[str], versions: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """The categories of each admission of the cohort, sorted, by version of ICD.

    `columns` are those of admission, code and, where there are several `versions`, version.
    """
    wanted = set(cohort["hadm_id"])
    found: dict[str, dict[str, set[str]]] = {version: {} for version in versions}
    for line, (hadm_id, code, *more) in rows_with_id(path, columns):
        (version,) = more or versions
        if version not in found:
            raise DataError(f"{path}, line {line}: {columns[2]} is neither 9 nor 10; mend it.")
        if code.strip() and hadm_id in wanted:
            found[version].setdefault(hadm_id, set()).add(CATEGORY[kind, version](code))
    return {
        version: {hadm_id: sorted(categories) for hadm_id, categories in admissions.items()}
        for version, admissions in found.items()
    }


def _code_task(
    name: str,
    description: str,
    cohort: pl.DataFrame,
    found: Mapping[str, list[str]],
    without: str,
    classes: tuple[str, ...] | None = None,
) -> _Made:
    """The admissions with a label in `found`; the classes are those that they have, or are given.

    `without` is the reason why the others are left out.
    """
    labels = [found.get(hadm_id, []) for hadm_id in cohort["hadm_id"]]
    has_none = {without: pl.col("labels").list.len() == 0}
    table, flow = reject(f"task {name}", label_table(cohort["note_id"], labels), has_none)
    if classes is None:
        classes = classes_in(table["labels"])
    return (Task(name, "multilabel", classes, description), table) if classes else None, flow


def _ventilation(
    folder: Path, cohort: pl.DataFrame, wanted: VentilationFrom, *, as_2021: bool
) -> _Made | None:
    """The task from the source asked for; None if there is none."""
    source = wanted if wanted != "auto" else _best_ventilation(folder, as_2021=as_2021)
    if source == "none":
        return None
    if source == "published":
        return _published_ventilation(folder / _PMV_LABELS, cohort, as_2021=as_2021)
    stays = first_stays(require_csv(folder, "ICUSTAYS"), stay_column="ICUSTAY_ID")
    if source == "chartevents":
        episodes = ventilation.charted_episodes(folder)
    else:
        path = require_csv(folder, "VENTDURATIONS")
        episodes = read_episodes(path, stay_column="ICUSTAY_ID")
    return prolonged_ventilation(cohort, stays, episodes)


def _best_ventilation(folder: Path, *, as_2021: bool) -> VentilationFrom:
    """The published labels first where the published task is wanted, and last otherwise."""
    has_labels = (folder / _PMV_LABELS).is_file()
    if as_2021 and has_labels:
        return "published"
    if find_csv(folder, "CHARTEVENTS") is not None:
        return "chartevents"
    if find_csv(folder, "VENTDURATIONS") is not None:
        return "ventdurations"
    return "published" if has_labels else "none"


def _published_ventilation(path: Path, cohort: pl.DataFrame, *, as_2021: bool) -> _Made:
    """The published labels, joined to the text of the mortality task as published if asked.

    Their split is by admission and is not used here: a patient can be on both of its sides.
    """
    published = read_ventilation_labels(path)
    reasons = {"not in the published labels": ~pl.col("hadm_id").is_in(list(published))}
    kept, flow = reject(
        f"task {ventilation.TASK.name}", cohort, reasons | (_GIVEN_AWAY if as_2021 else {})
    )
    if kept.is_empty():
        raise DataError(
            f"{path}: none of its {len(published)} admissions is in the cohort of {cohort.height}; "
            "is it of this data set?"
        )
    note_ids = kept["mortality_note_id" if as_2021 else "note_id"]
    is_prolonged = pl.Series([published[hadm_id] for hadm_id in kept["hadm_id"]])
    return (ventilation.TASK, outcome_table(ventilation.TASK, note_ids, is_prolonged)), flow
