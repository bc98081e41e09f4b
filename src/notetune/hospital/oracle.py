"""The AUROC of the true probabilities: the best that any reader of the notes can hope for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from notetune.hospital.codes import DIAGNOSIS_ICD10, PROCEDURE_ICD10, VENTILATION_PROCEDURES
from notetune.hospital.outcome_model import PROCEDURE_CODES, Floats, Probabilities
from notetune.hospital.truth import TASKS, AdmissionTruth, label_of

_ICD10 = {"DIAG": DIAGNOSIS_ICD10, "PROC": PROCEDURE_ICD10}
Scored = tuple[AdmissionTruth, Probabilities]


def oracle_scores(scored: Iterable[Scored]) -> dict[str, float | None]:
    """Task -> AUROC of the true probabilities over the admissions that have a place in the task.

    LOS is the mean over its classes, one against the rest; DIAG and PROC the mean over the labels
    with both values. A task in which no label has both values has null.
    """
    rows = list(scored)
    columns = {
        **{task: _binary(rows, task) for task in ("MOR", "PMV")},
        **{task: _codes(rows, task) for task in _ICD10},
        "LOS": _stay_classes(rows),
    }
    return {task: _mean_auroc(columns[task]) for task in TASKS}


def auroc(is_positive: npt.NDArray[np.bool_], scores: Floats) -> float | None:
    """Probability that a positive scores above a negative, ties half; None if one is missing.

    Source: the rank-sum form of the Mann-Whitney statistic.

    Example:
        >>> auroc(np.array([True, False, True]), np.array([0.9, 0.1, 0.1]))
        0.75
    """
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    if not positives or not negatives:
        return None
    above = rankdata(scores)[is_positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


_Column = tuple[npt.NDArray[np.bool_], Floats]


def _mean_auroc(columns: Iterable[_Column]) -> float | None:
    values = [value for labels, scores in columns if (value := auroc(labels, scores)) is not None]
    return round(float(np.mean(values)), 4) if values else None


def _binary(rows: Sequence[Scored], task: str) -> Iterable[_Column]:
    kept = [(row, true) for row, true in rows if task in row.tasks]
    scores = [true.death if task == "MOR" else true.prolonged for _, true in kept]
    yield np.array([bool(row.labels[task]) for row, _ in kept], dtype=bool), np.array(scores)


def _stay_classes(rows: Sequence[Scored]) -> Iterable[_Column]:
    kept = [(row, true) for row, true in rows if "LOS" in row.tasks]
    classes = np.array([row.los_class for row, _ in kept])
    scores = np.array([true.stay for _, true in kept]).reshape(-1, 4)
    for index in range(4):
        yield classes == index, scores[:, index]


def _codes(rows: Sequence[Scored], task: str) -> Iterable[_Column]:
    """One column per label and ICD version, over the admissions coded in that version."""
    versions: tuple[Literal[9, 10], ...] = (9, 10)
    for version in versions:
        kept = [(r, true) for r, true in rows if task in r.tasks and r.icd_version == version]
        found = [set(row.labels[task]) for row, _ in kept]
        members = _members(task, version)
        true = np.array([t.diagnoses if task == "DIAG" else t.procedures for _, t in kept])
        for label in sorted(set().union(*found)):
            scores = _label_probability(true, members.get(label, ()), task)
            yield np.array([label in labels for labels in found]), scores


def _members(task: str, version: Literal[9, 10]) -> Mapping[str, Sequence[int]]:
    """Label -> columns of its codes."""
    members: dict[str, list[int]] = {}
    for column, (older, newer) in enumerate(_ICD10[task].items()):
        key = label_of(task, older if version == 9 else newer, version)
        members.setdefault(key, []).append(column)
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
