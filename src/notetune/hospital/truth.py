"""What is true of the synthetic hospital: labels, and how they go to disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from notetune import storage
from notetune.hospital.outcome_model import PROLONGED_DAYS

TASKS = ("MOR", "LOS", "PMV", "DIAG", "PROC")
"""In-hospital death, length of stay, prolonged ventilation, diagnoses, procedures.

LOS is for survivors, PMV (over 7 days) for the ventilated, DIAG and PROC for the coded.
"""

Hospital = Literal["mimic3", "mimic4"]
TRUTH_FORMAT, ORACLE_FORMAT = 3, 2


@dataclass(frozen=True)
class AdmissionTruth:
    """One admission.

    Attributes:
        in_icu: Whether it has a stay in intensive care.
        los_days: Discharge less admission, not rounded.
        ventilated_days: Last end less first start of ventilation; 0 without.
        diagnoses: Task labels of the diagnosis codes, in table order, each once; `procedures` too.
        diagnoses_2021: The same as the published 2021 scripts cut them, MIMIC-III only;
            `procedures_2021` too.
        death_probability: The true one, from which the outcome was drawn.
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
    diagnoses_2021: tuple[str, ...]
    procedures_2021: tuple[str, ...]
    death_probability: float

    @property
    def los_class(self) -> int:
        """0 up to 3 days, 1 up to 7, 2 up to 14, 3 above; the stay is rounded to 0.1 days first."""
        days = round(self.los_days * 10) / 10  # half to even in tenths, as numpy rounds
        return sum(days > limit for limit in (3, 7, 14))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in which it has a place."""
        return tuple(self.labels)

    @property
    def labels(self) -> dict[str, Any]:
        """Task -> label; a task in which the admission has no place is missing."""
        return self._labels(self.diagnoses, self.procedures)

    @property
    def labels_2021(self) -> dict[str, Any]:
        """Task -> label as the published 2021 scripts have them; empty outside MIMIC-III."""
        if self.hospital != "mimic3":
            return {}
        return self._labels(self.diagnoses_2021, self.procedures_2021)

    def _labels(self, diagnoses: tuple[str, ...], procedures: tuple[str, ...]) -> dict[str, Any]:
        labels: dict[str, Any] = {"MOR": int(self.died)}
        if not self.died:
            labels["LOS"] = self.los_class
        if self.in_icu and self.ventilated_days:
            labels["PMV"] = int(self.ventilated_days > PROLONGED_DAYS)
        if diagnoses:
            labels["DIAG"] = list(diagnoses)
        if procedures:
            labels["PROC"] = list(procedures)
        return labels


def label_of(task: str, code: str, rules: Literal[9, 10, 2021]) -> str:
    """The label of a code in DIAG or PROC, by its version of ICD or by the published 2021 scripts.

    A category has three characters; the E codes of ICD-9 and the procedures of ICD-10 have four.
    The 2021 scripts give V codes four too, and read a procedure as a number, as no cell of the
    column is empty here.

    Source:
        For 2021 the label rules of CORe.
    """
    if (task, rules) == ("PROC", 2021):
        return str(int(code))[:3]
    long = {("DIAG", 9): code[0] == "E", ("DIAG", 2021): code[0] in "VE", ("PROC", 10): True}
    return code[: 4 if long.get((task, rules)) else 3]


@dataclass(frozen=True)
class HospitalTruth:
    """Everything that is true of a written hospital.

    Attributes:
        admissions: Of both parts, in the order in which they were written.
        splits: "train", "val", "test" -> SUBJECT_ID of each admission of the MIMIC-III part.
        overlap: `(MIMIC-III SUBJECT_ID, MIMIC-IV subject_id)` of the patients shared by both.
        oracle: Hospital -> task -> AUROC of the true probabilities.
    """

    admissions: tuple[AdmissionTruth, ...]
    splits: Mapping[str, tuple[int, ...]]
    overlap: tuple[tuple[int, int], ...]
    oracle: Mapping[str, Mapping[str, float | None]]


def write_truth(folder: Path, truth: HospitalTruth, config: Mapping[str, Any]) -> None:
    """Write truth.json, oracle.json and the split files of the MIMIC-III part."""
    parts: dict[str, Any] = {"mimic3": {}, "mimic4": {}}
    names = ("subject_id", "icd_version", "in_icu", "died", "los_days", "ventilated_days", "tasks")
    for row in truth.admissions:
        core = {"tasks": row.tasks, "labels": row.labels_2021}
        parts[row.hospital][str(row.hadm_id)] = {
            **{name: getattr(row, name) for name in (*names, "death_probability")},
            "core_2021": core if row.hospital == "mimic3" else None,
            "labels": row.labels,
        }
    told = {"config": config, "admissions": parts, "overlap": truth.overlap}
    storage.write_json(folder / "truth.json", {"format": TRUTH_FORMAT, **told})
    storage.write_json(folder / "oracle.json", {"format": ORACLE_FORMAT, **truth.oracle})
    for name, subjects in truth.splits.items():
        lines = ["SUBJECT_ID", *map(str, subjects)]
        storage.write_text(folder / "splits" / f"mimic_{name}.csv", "\n".join(lines) + "\n")
