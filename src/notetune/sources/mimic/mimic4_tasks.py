"""Outcome tasks on MIMIC-IV, from the tables beside the notes.

ICD-9 and ICD-10 codes are label spaces of their own, each with its task: an admission coded in one
version says nothing about the labels of the other.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.outcomes import (
    Task,
    classes_in,
    icd9_category,
    icd9_procedure_category,
    icd10_category,
    icd10_procedure_category,
)
from notetune.sources.cohort import reject
from notetune.sources.columns import is_whole_number, not_whole
from notetune.sources.mimic.mimic3_tasks import (
    TaskWithTable,
    label_table,
    length_of_stay,
    mortality,
)
from notetune.sources.mimic.ventilation import first_stays, prolonged_ventilation, read_episodes
from notetune.strict_csv import find_csv, read_rows, require_csv

INVASIVE: Final = ("InvasiveVent", "Tracheostomy")
"""Values of ventilation_status that count. Source: data specification, section 5.2."""


class _Coding(NamedTuple):
    kind: Literal["diagnoses", "procedures"]
    version: Literal["9", "10"]
    category: Callable[[str], str]

    @property
    def task_name(self) -> str:
        return f"{self.kind}_icd{self.version}"


_CODINGS: Final = (
    _Coding("diagnoses", "9", icd9_category),
    _Coding("diagnoses", "10", icd10_category),
    _Coding("procedures", "9", icd9_procedure_category),
    _Coding("procedures", "10", icd10_procedure_category),
)


def read_mimic4_tasks(
    folder: Path, cohort: pl.DataFrame
) -> tuple[tuple[TaskWithTable, ...], tuple[FlowCount, ...]]:
    """The outcome tasks of the cohort and the flow of each.

    mortality, length_of_stay, diagnoses_icd9, diagnoses_icd10, procedures_icd9, procedures_icd10
    and, where icu/ventilation is there, ventilation. A task in which no admission is left is
    absent, and its flow says why.

    Args:
        folder: The folder that holds hosp/ and icu/.
        cohort: Columns `hadm_id`, `note_id`, `mortality_note_id`, `admitted`, `discharged`, `died`.

    Raises:
        DataError: If a table is missing or faulty.

    Source:
        Data specification, section 5.2.
    """
    made: list[tuple[TaskWithTable | None, FlowCount]] = [mortality(cohort), length_of_stay(cohort)]
    for kind in ("diagnoses", "procedures"):
        made += _codes(require_csv(folder / "hosp", f"{kind}_icd"), cohort, kind)
    icu = folder / "icu"
    if icu.is_dir() and (path := find_csv(icu, "ventilation")) is not None:
        stays = first_stays(require_csv(icu, "icustays"), stay_column="stay_id")
        episodes = read_episodes(path, stay_column="stay_id", statuses=INVASIVE)
        made.append(prolonged_ventilation(cohort, stays, episodes))
    tasks = tuple(task for task, _ in made if task is not None and task[1].height)
    return tasks, tuple(flow for _, flow in made)


def _codes(
    path: Path, cohort: pl.DataFrame, kind: str
) -> list[tuple[TaskWithTable | None, FlowCount]]:
    codings: dict[str, _Coding] = {
        coding.version: coding for coding in _CODINGS if coding.kind == kind
    }
    found: dict[str, dict[str, set[str]]] = {
        version: {hadm_id: set() for hadm_id in cohort["hadm_id"]} for version in codings
    }
    for line, (hadm_id, code, version) in read_rows(path, ["hadm_id", "icd_code", "icd_version"]):
        if not is_whole_number(hadm_id):
            raise not_whole(path, line, "hadm_id")
        if version not in codings:
            raise DataError(f"{path}, line {line}: icd_version is neither 9 nor 10; mend it.")
        if code.strip() and hadm_id in found[version]:
            found[version][hadm_id].add(codings[version].category(code))
    return [_coded(codings[version], cohort, admissions) for version, admissions in found.items()]


def _coded(
    coding: _Coding, cohort: pl.DataFrame, categories: dict[str, set[str]]
) -> tuple[TaskWithTable | None, FlowCount]:
    labels = [sorted(found) for found in categories.values()]
    without = f"no ICD-{coding.version} code in {coding.kind}_icd"
    table, flow = reject(
        f"task {coding.task_name}",
        label_table(cohort["note_id"], labels),
        {without: pl.col("labels").list.len() == 0},
    )
    classes = classes_in(table["labels"])
    description = (
        f"ICD-{coding.version} categories of {coding.kind} during the admission. "
        "Known at admission."
    )
    task = Task(coding.task_name, "multilabel", classes, description) if classes else None
    return (task, table) if task else None, flow
