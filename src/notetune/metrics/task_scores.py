"""All models on one task: aligned tables, the labels that can be judged, and AUROCs over runs.

Shapes: N notes scored, K classes, B draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
import numpy.typing as npt

from notetune.errors import DataError
from notetune.metrics.bootstrap import (
    Counts,
    Estimate,
    Replicates,
    auroc_replicates,
    mean_replicates,
    precision_replicates,
)
from notetune.metrics.ranking import average_precision_scores, macro_auroc
from notetune.metrics.results import MEANS_OF_RUNS
from notetune.metrics.scores import ScoreTable
from notetune.metrics.uncertainty import (
    ENOUGH_PATIENTS,
    ModelRuns,
    ModelScores,
    auroc_interval,
    interval,
)

TOO_FEW_PATIENTS = 5
"""With fewer that have the rarer value, an interval is .35 to .55 wide."""
TOO_FEW_OF_A_LABEL = 3
"""A label that fewer patients have, or lack, makes intervals of a macro average too narrow."""

_RARE = 10
"""A class with fewer notes takes the interval from the average precision of all."""

_NO_LABEL = "no label has both values in this split"

RunTables = dict[str, list[ScoreTable]]
"""Tables of the runs of each model."""


@dataclass(frozen=True)
class Labels:
    """Which labels of a task can be judged.

    Attributes:
        evaluated_K: Those with both values.
        judged_K: Those of them that intervals and comparisons are about.
        rarest: Patients with the rarer value of the rarest judged class.
        rarer: As many as a mean over the judged classes is as sure with as it is; `rarest` where
            that is no mean over classes.
        sizes: Patients with and without the outcome; of a mean over classes as many as would make
            it as sure.
        why_not: Why no model can be judged; None if they can.
    """

    evaluated_K: npt.NDArray[np.bool_]
    judged_K: npt.NDArray[np.bool_]
    rarest: int
    rarer: int
    sizes: tuple[float, float]
    why_not: str | None

    @property
    def are_few(self) -> bool:
        """Whether an interval needs more than draws of patients."""
        return self.rarest < ENOUGH_PATIENTS


@dataclass(frozen=True)
class TaskScores:
    """All that is known of the models of one task.

    The tables of all runs have the notes of the first in the same order; `counts_NB` is how often
    each note counts in each draw.
    """

    tables: RunTables
    about: Mapping[str, ModelRuns]
    counts_NB: Counts
    labels: Labels

    @property
    def first(self) -> ScoreTable:
        """Any table: all agree on everything but the scores."""
        return next(iter(self.tables.values()))[0]

    @cached_property
    def patients(self) -> int:
        """Patients with a note of the task."""
        return len(np.unique(self.first.patient_ids_N))

    @property
    def why_not(self) -> str | None:
        """Why no model can be judged; None if they can."""
        return self.labels.why_not or (None if self.aurocs else _NO_LABEL)

    @cached_property
    def aurocs(self) -> dict[str, ModelScores]:
        """Macro AUROC over the judged labels of each model; none without such a label."""
        if not self.labels.judged_K.any():
            return {}
        return {
            model: self.over_runs(model, self.auroc_per_run(runs), self.auroc_mean(runs))
            for model, runs in self.tables.items()
        }

    def over_runs(self, model: str, per_run: Sequence[float], mean: Replicates) -> ModelScores:
        """One figure of one model."""
        runs = tuple(table.seed for table in self.tables[model])
        return ModelScores(self.about[model], runs, tuple(per_run), mean)

    def auroc_mean(self, tables: Sequence[ScoreTable]) -> Replicates:
        """Mean of the macro AUROCs of some tables."""
        judged_K = self.labels.judged_K
        scores = [table.scores_NK[:, judged_K] for table in tables]
        return auroc_replicates(self.first.targets_NK[:, judged_K], scores, self.counts_NB)

    def auroc_per_run(self, tables: Sequence[ScoreTable]) -> tuple[float, ...]:
        """Macro AUROC over the judged labels of each table."""
        labels_K = self.labels.judged_K
        return tuple(
            macro_auroc(t.targets_NK[:, labels_K], t.scores_NK[:, labels_K]) for t in tables
        )

    def auroc_interval(self, model: str) -> Estimate:
        """A model's macro AUROC over the judged labels, with its interval."""
        auroc, labels = self.aurocs[model], self.labels
        if self.is_constant(model):
            return interval(auroc, self.patients)
        return auroc_interval(auroc, self.patients, labels.sizes, are_few=labels.are_few)

    def is_constant(self, model: str) -> bool:
        """Whether it scores all notes alike: always a half, however few patients there are."""
        return not any(np.ptp(table.scores_NK, axis=0).any() for table in self.tables[model])

    def means(self, model: str) -> dict[str, float]:
        """Figures of a model that are plain means over its runs, by their field of `ModelRow`."""
        labels_K, kind = self.labels.evaluated_K, self.first.kind
        has_rare = (labels_K != self.labels.judged_K).any()
        targets_NK = self.first.targets_NK[:, labels_K]
        return {
            name: fmean(
                one.figure(targets_NK, t.scores_NK[:, labels_K]) for t in self.tables[model]
            )
            for name, one in MEANS_OF_RUNS.items()
            if labels_K.any() and kind in one.kinds and (has_rare or not one.needs_rare_labels)
        }

    def average_precision(self, model: str) -> ModelScores | None:
        """Macro over the labels with both values; without draws where some of several are rare."""
        labels_K = self.labels.evaluated_K
        if not labels_K.any():
            return None
        targets_NK = self.first.targets_NK[:, labels_K]
        scores = [table.scores_NK[:, labels_K] for table in self.tables[model]]
        # No draws of rare labels: in simulations their interval covered the truth in 18 %.
        kind = self.first.kind
        is_rare = kind == "multiclass" and targets_NK.sum(axis=0).min() < _RARE
        has_draws = kind != "multilabel" and not is_rare and self.why_not is None
        counts_NB = self.counts_NB if has_draws else self.counts_NB[:, :0]
        mean = precision_replicates(targets_NK, scores, counts_NB)
        per_run = [float(average_precision_scores(targets_NK, one).mean()) for one in scores]
        return self.over_runs(model, per_run, mean)

    def brier(self, model: str) -> ModelScores:
        """Squared error: summed over classes, averaged over labels."""
        runs = self.tables[model]
        averaged = len(self.first.classes) if self.first.kind == "multilabel" else 1
        errors = [((t.scores_NK - t.targets_NK) ** 2).sum(axis=1) / averaged for t in runs]
        mean = mean_replicates(np.mean(errors, axis=0), self.counts_NB)
        return self.over_runs(model, [float(of_run.mean()) for of_run in errors], mean)


def aligned(tables: Sequence[ScoreTable]) -> RunTables:
    """Tables by model, notes in the order of the first table.

    Raises:
        DataError: If they differ in task, split, classes, notes, patients or targets, or a
            (model, run) comes twice.
    """
    first = tables[0]
    by_model: RunTables = {}
    for given in tables:
        for field in ("task", "kind", "split", "classes"):
            if getattr(given, field) != getattr(first, field):
                raise DataError(
                    f"{given.name}: its {field} is not that of the {first.name}. Compare tables "
                    "of one split of one task."
                )
        table = given.in_note_order(first.note_ids_N)
        for column in ("patient_ids_N", "targets_NK"):
            different = int(np.sum(getattr(table, column) != getattr(first, column)))
            if different:
                raise DataError(
                    f"{table.name}: {different} values of {column} differ from the {first.name}. "
                    "Score every model on the same task table."
                )
        runs = by_model.setdefault(table.model, [])
        if table.seed in [other.seed for other in runs]:
            raise DataError(f"{table.name}: given twice; give each model and run once.")
        runs.append(table)
    return by_model


def labels_of(table: ScoreTable) -> Labels:
    """Which labels of a task can be judged, counted in patients."""
    order_N = np.argsort(table.patient_ids_N, kind="stable")
    patient_ids_N = table.patient_ids_N[order_N]
    starts_P = np.flatnonzero(np.r_[True, patient_ids_N[1:] != patient_ids_N[:-1]])
    targets_NK = table.targets_NK[order_N].astype(np.int64)
    with_K = (np.add.reduceat(targets_NK, starts_P) > 0).sum(axis=0)
    without_K = (np.add.reduceat(1 - targets_NK, starts_P) > 0).sum(axis=0)
    rarer_K = np.minimum(with_K, without_K)
    evaluated_K = rarer_K > 0
    # Two classes are ranked alike, one backwards, so either tells all.
    if table.kind == "binary" or (table.kind == "multiclass" and len(with_K) == 2):
        rarer, sizes = int(rarer_K[0]), (int(with_K[0]), int(without_K[0]))
        return Labels(evaluated_K, evaluated_K, rarer, rarer, sizes, _too_few(rarer))
    judged_K = rarer_K >= TOO_FEW_OF_A_LABEL
    if not judged_K.any():
        why = f"too few: no label has {TOO_FEW_OF_A_LABEL} patients" if evaluated_K.any() else None
        return Labels(evaluated_K, judged_K, 0, 0, (0, 0), why)
    rarer_J = rarer_K[judged_K]
    rarer, as_sure = _as_sure(rarer_J, np.maximum(with_K, without_K)[judged_K])
    why = _too_few(int(rarer_J.sum()))
    return Labels(evaluated_K, judged_K, int(rarer_J.min()), rarer, as_sure, why)


def _too_few(patients: int) -> str | None:
    """Why so many with the rarer values cannot be judged."""
    if not 0 < patients < TOO_FEW_PATIENTS:
        return None
    return f"too few: {patients} patient{'s' if patients > 1 else ''}"


def _as_sure(
    with_J: npt.NDArray[np.int64], without_J: npt.NDArray[np.int64]
) -> tuple[int, tuple[float, float]]:
    """As how many patients of one label make a mean over J labels as sure, by its variance.

    A label adds to the variance as the inverse of its patients with the rarer value. The first
    number has the degrees of freedom of that sum (Satterthwaite); the others, with and without,
    have its size.
    """
    share_J = (1 / with_J) / (1 / with_J).sum()
    degrees = 1 / (share_J**2 / (with_J - 1)).sum()
    positives = len(with_J) ** 2 / (1 / with_J).sum()
    negatives = positives * (share_J * without_J / with_J).sum()
    whole = int(degrees + 1e-6)  # rounding may leave it just below a whole number
    return 1 + whole, (float(positives), float(negatives))
