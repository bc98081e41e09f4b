"""Score tables of invented models, and what is said of them."""

from dataclasses import replace

import numpy as np
from scipy.special import expit

from notetune.metrics.comparison import compare_study
from notetune.metrics.questions import Pair, Questions
from notetune.metrics.scores import ScoreTable
from notetune.metrics.uncertainty import ModelRuns

NOTES = 240
PATIENTS = np.array([f"p{i:03d}" for i in np.random.default_rng(7).integers(0, 150, NOTES)])
STRENGTH = {"prevalence": 0.0, "tf-idf": 0.8, "task-lora": 0.9, "domain+task-lora": 6.0}
FIXED = tuple(ModelRuns(model, is_deterministic=True) for model in STRENGTH)


def compare(tables, primary=(), draws=50, seed=0, runs=FIXED):
    """The result of the only task."""
    pairs = tuple(Pair(*pair) for pair in primary)
    (result,), _ = compare_study(tables, Questions(primary=pairs, runs=runs), draws, seed)
    return result


def score_table(
    model, seed=0, task="mortality", kind="binary", strength=None, lost=False, split="test"
):
    """One model's table; the targets depend on the task only."""
    classes = {
        "binary": ("died",),
        "multiclass": ("a", "b", "c", "d"),
        "multilabel": tuple("vwxyz"),
    }
    labels = len(classes[kind])
    of_task = np.random.default_rng(len(task))
    risk = of_task.normal(size=(NOTES, labels))
    targets = (of_task.random(risk.shape) < expit(1.5 * risk - 1)).astype(np.int8)
    if lost:
        targets[:, 0] = 0
    strength = STRENGTH[model] if strength is None else strength
    noise = np.random.default_rng([len(task), len(model), seed]).normal(size=risk.shape)
    scores = expit(strength * risk + (noise if strength else 0) - 1)
    if kind == "multiclass":
        targets = np.eye(labels, dtype=np.int8)[(risk + of_task.gumbel(size=risk.shape)).argmax(1)]
        scores /= scores.sum(axis=1, keepdims=True)
    return ScoreTable(
        task=task,
        kind=kind,
        model=model,
        seed=seed,
        split=split,
        classes=classes[kind],
        note_ids_N=np.array([f"n{i:03d}" for i in range(NOTES)]),
        patient_ids_N=PATIENTS,
        targets_NK=targets,
        scores_NK=scores,
    )


def tables_of(models=tuple(STRENGTH), **changes):
    return [score_table(model, **changes) for model in models]


def few(table, positives):
    """The table with so many positive notes, each of another patient, at the highest scores."""
    _, firsts = np.unique(table.patient_ids_N, return_index=True)
    targets = np.zeros_like(table.targets_NK)
    targets[firsts[:positives]] = 1
    return replace(table, targets_NK=targets)
