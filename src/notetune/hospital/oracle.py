"""The AUROC of the true probabilities: the best that any reader of the notes can hope for."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from notetune.hospital.codes import DIAGNOSIS_ICD10, PROCEDURE_ICD10, VENTILATION_PROCEDURES
from notetune.hospital.outcome_model import PROCEDURE_CODES, Floats, Probabilities
from notetune.hospital.truth import TASKS, AdmissionTruth, label_of
from notetune.metrics.ranking import auroc_score

_ICD10 = {"DIAG": DIAGNOSIS_ICD10, "PROC": PROCEDURE_ICD10}
Scored = tuple[AdmissionTruth, Probabilities]


def oracle_scores(scored: Iterable[Scored]) -> dict[str, float | None]:
    """Task -> AUROC of the true probabilities over the admissions that have a place in the task.

    LOS is the mean over its classes, one against the rest; DIAG and PROC the mean over the labels
    with both values. A task in which no label has both values has null.
    """
    rows = list(scored)
    return {
        task: _mean_auroc(task, [one for one in rows if task in one[0].tasks]) for task in TASKS
    }


def _mean_auroc(task: str, rows: Sequence[Scored]) -> float | None:
    aurocs = [auroc_score(labels, scores) for labels, scores in _columns(task, rows)]
    values = [value for value in aurocs if not math.isnan(value)]
    return round(float(np.mean(values)), 4) if values else None


def _columns(task: str, rows: Sequence[Scored]) -> Iterator[tuple[npt.NDArray[np.bool_], Floats]]:
    """For each label, which of the admissions have it, and its true probabilities."""
    labels = [row.labels[task] for row, _ in rows]
    match task:
        case "MOR":
            yield np.array(labels, bool), np.array([true.death for _, true in rows])
        case "PMV":
            yield np.array(labels, bool), np.array([true.prolonged for _, true in rows])
        case "LOS":
            for index in range(4):
                yield np.array(labels) == index, np.array([true.stay[index] for _, true in rows])
        case _:
            yield from _codes(task, rows)


def _codes(task: str, rows: Sequence[Scored]) -> Iterator[tuple[npt.NDArray[np.bool_], Floats]]:
    """One column per label and ICD version, over the admissions coded in that version."""
    versions: tuple[Literal[9, 10], ...] = (9, 10)
    for version in versions:
        kept = [(row, true) for row, true in rows if row.icd_version == version]
        found = [set(row.labels[task]) for row, _ in kept]
        members = _members(task, version)
        true = np.array([t.diagnoses if task == "DIAG" else t.procedures for _, t in kept])
        for label in sorted(set().union(*found)):
            scores = _label_probability(true, members[label], task)
            yield np.array([label in labels for labels in found]), scores


def _members(task: str, version: Literal[9, 10]) -> defaultdict[str, list[int]]:
    """Label -> columns of its codes."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for column, (older, newer) in enumerate(_ICD10[task].items()):
        members[label_of(task, older if version == 9 else newer, version)].append(column)
    return members


def _label_probability(true: Floats, columns: Sequence[int], task: str) -> Floats:
    """P(any of the label's codes); the two ventilation codes exclude each other."""
    _, under_96, over_96 = (PROCEDURE_CODES.index(code) for code in VENTILATION_PROCEDURES)
    shares: Floats = true[:, columns]
    if task == "PROC" and {under_96, over_96} <= set(columns):
        ventilated = true[:, under_96] + true[:, over_96]
        rest = [column for column in columns if column not in (under_96, over_96)]
        shares = np.column_stack([ventilated, true[:, rest]])
    any_of_them: Floats = 1 - np.prod(1 - shares, axis=1)
    return any_of_them
