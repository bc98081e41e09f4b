"""What is true of the synthetic hospital: labels, edge cases, and how they go to disk."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from notetune import runs
from notetune.hospital.outcome_model import PROLONGED_DAYS

TASKS = ("MOR", "LOS", "PMV", "DIAG", "PROC")
"""In-hospital death, length of stay, prolonged ventilation, diagnoses, procedures.

LOS is for survivors, PMV (over 7 days) for the ventilated, DIAG and PROC for the coded.
"""

Hospital = Literal["mimic3", "mimic4"]
FORMAT = 2


@dataclass(frozen=True)
class AdmissionTruth:
    """One admission.

    Attributes:
        hospital: Part of the data it belongs to.
        subject_id: Its patient.
        hadm_id: Its id.
        icd_version: Version of its codes.
        in_icu: Whether it has a stay in intensive care.
        died: Whether in hospital.
        los_days: Discharge less admission, not rounded.
        ventilated_days: Last end less first start of ventilation; 0 without.
        diagnoses: Task labels of the diagnosis codes, in table order, each once.
        procedures: Task labels of the procedure codes, in table order, each once.
        tasks: The tasks in which a correct reader keeps it.
        death_probability: The true one, from which the outcome was drawn.
        dropped: Task or "cohort" -> reason, for what a correct reader leaves out by its text.
        core_2021: The same by the published 2021 scripts; None outside MIMIC-III.
    """

    hospital: Hospital
    subject_id: int
    hadm_id: int
    icd_version: Literal[9, 10]
    in_icu: bool
    died: bool
    los_days: float
    ventilated_days: float
    diagnoses: tuple[str, ...]
    procedures: tuple[str, ...]
    tasks: tuple[str, ...]
    death_probability: float
    dropped: Mapping[str, str] = field(default_factory=dict)
    core_2021: "Core2021Truth | None" = None

    @property
    def los_class(self) -> int:
        """0 up to 3 days, 1 up to 7, 2 up to 14, 3 above; the stay is rounded to 0.1 days first."""
        days = round(self.los_days * 10) / 10  # half to even in tenths, as numpy rounds
        return sum(days > limit for limit in (3, 7, 14))

    @property
    def labels(self) -> dict[str, Any]:
        """Task -> label; a task in which the admission has no place is missing."""
        return self._labels(self.tasks, self.diagnoses, self.procedures)

    @property
    def labels_2021(self) -> dict[str, Any]:
        """Task -> label by the published 2021 scripts."""
        if self.core_2021 is None:
            return {}
        core = self.core_2021
        return self._labels(core.tasks, core.diagnoses, core.procedures)

    def _labels(
        self, tasks: tuple[str, ...], diagnoses: tuple[str, ...], procedures: tuple[str, ...]
    ) -> dict[str, Any]:
        every = {
            "MOR": int(self.died),
            "LOS": self.los_class,
            "PMV": int(self.ventilated_days > PROLONGED_DAYS),
            "DIAG": list(diagnoses),
            "PROC": list(procedures),
        }
        return {task: every[task] for task in tasks}


@dataclass(frozen=True)
class Core2021Truth:
    """What the published 2021 scripts make of an admission; attributes as in `AdmissionTruth`."""

    diagnoses: tuple[str, ...]
    procedures: tuple[str, ...]
    tasks: tuple[str, ...]
    dropped: Mapping[str, str]


def tasks_of(
    *, died: bool, ventilated_days: float, diagnoses: object, procedures: object
) -> tuple[str, ...]:
    """The tasks that an admission of the cohort has a place in, by its tables alone."""
    has_place = {
        "MOR": True,
        "LOS": not died,
        "PMV": ventilated_days > 0,
        "DIAG": bool(diagnoses),
        "PROC": bool(procedures),
    }
    return tuple(task for task in TASKS if has_place[task])


def diagnosis_label(code: str, version: Literal[9, 10] = 9) -> str:
    """The category: four characters for the E codes of ICD-9, three for all others."""
    return code[:4] if version == 9 and code[0] == "E" else code[:3]


def procedure_label(code: str, version: Literal[9, 10] = 9) -> str:
    """ICD-9: three characters with leading zeros; ICD-10-PCS: four characters."""
    return code[:3] if version == 9 else code[:4]


def diagnosis_label_2021(code: str) -> str:
    """Four characters for V and E codes, three for all others. Source: the label rules of CORe."""
    return code[:4] if code[0] in "VE" else code[:3]


def procedure_label_2021(code: str) -> str:
    """Three characters of the code read as a number, as no cell of the column is empty here."""
    return str(int(code))[:3]


@dataclass(frozen=True)
class Verdict:
    """What one reader must do with an edge case.

    Attributes:
        kept: Whether the admission (or note) is kept.
        reason: Why it is dropped, or what is special about keeping it.
        present: Texts that the admission note must hold; white space counts as one space.
        absent: Texts that it must not hold.
        labels: `(task, label)` pairs that the admission must have.
    """

    kept: bool
    reason: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class EdgeCase:
    """One awkward thing that is known to be in the files.

    Attributes:
        name: Unique name.
        what: What was done, in a sentence.
        hospital: Part of the data it is in.
        subject_id: The patient.
        hadm_ids: The admissions it is about.
        note_ids: ROW_ID (MIMIC-III) or note_id (MIMIC-IV) of the notes it is about.
        tasks: The tasks concerned.
        correct: For a correct reader.
        core_2021: For the published 2021 scripts, where they differ; otherwise null.
    """

    name: str
    what: str
    hospital: Hospital
    subject_id: int
    hadm_ids: tuple[int, ...]
    note_ids: tuple[str, ...]
    tasks: tuple[str, ...]
    correct: Verdict
    core_2021: Verdict | None = None


@dataclass(frozen=True)
class HospitalTruth:
    """Everything that is true of a written hospital.

    Attributes:
        admissions: Of both parts, in the order in which they were written.
        edge_cases: Of both parts.
        splits: "train", "val", "test" -> SUBJECT_ID of the MIMIC-III part, one entry per cohort
            admission, patients disjoint; one edge-case patient is in none of them.
        overlap: `(MIMIC-III SUBJECT_ID, MIMIC-IV subject_id)` of the patients shared by both.
        oracle: Hospital -> task -> AUROC of the true probabilities.
    """

    admissions: tuple[AdmissionTruth, ...]
    edge_cases: tuple[EdgeCase, ...]
    splits: Mapping[str, tuple[int, ...]]
    overlap: tuple[tuple[int, int], ...]
    oracle: Mapping[str, Mapping[str, float | None]]


def write_truth(folder: Path, truth: HospitalTruth, config: Mapping[str, Any]) -> None:
    """Write truth.json, oracle.json and the split files of the MIMIC-III part."""
    parts: dict[str, Any] = {"mimic3": {}, "mimic4": {}}
    for row in truth.admissions:
        entry = dataclasses.asdict(row) | {"labels": row.labels}
        if row.core_2021 is not None:
            core = row.core_2021
            told = {"tasks": core.tasks, "dropped": dict(core.dropped), "labels": row.labels_2021}
            entry["core_2021"] = told
        told_by_labels = ("hospital", "hadm_id", "diagnoses", "procedures")
        parts[row.hospital][str(row.hadm_id)] = {
            key: value for key, value in entry.items() if key not in told_by_labels
        }
    runs.write_json(
        folder / "truth.json",
        {
            "format": FORMAT,
            "config": dict(config),
            "admissions": parts,
            "edge_cases": [dataclasses.asdict(case) for case in truth.edge_cases],
            "overlap": truth.overlap,
        },
    )
    runs.write_json(folder / "oracle.json", {"format": FORMAT, **truth.oracle})
    for name, subjects in truth.splits.items():
        lines = ["SUBJECT_ID", *(str(subject) for subject in subjects)]
        runs.write_text(folder / "splits" / f"mimic_{name}.csv", "\n".join(lines) + "\n")
