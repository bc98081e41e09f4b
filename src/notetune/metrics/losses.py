"""Losses of documents: perplexity over other patients, and which methods have the lowest.

Shapes: D documents, P patients, B draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from notetune.aliases import FloatArray
from notetune.metrics.best import Standing, standings
from notetune.metrics.bootstrap import Counts, Replicates, patient_draws
from notetune.metrics.uncertainty import LEVEL, ModelRuns, ModelScores


@dataclass(frozen=True)
class DocumentLosses:
    """What one method loses on each of D documents.

    Attributes:
        patient_ids_D: Whose they are.
        nats_D: Over the target tokens of each, summed.
        targets_D: How many those are.
    """

    patient_ids_D: npt.NDArray[np.str_]
    nats_D: FloatArray
    targets_D: FloatArray

    @property
    def per_target(self) -> float:
        """Mean over all target tokens: the logarithm of perplexity."""
        return float(self.nats_D.sum() / self.targets_D.sum())

    def per_target_in(self, counts_DB: Counts) -> FloatArray:
        """`(B,)` the same in draws that hold each document so often."""
        with np.errstate(invalid="ignore"):  # a draw without any target: 0 / 0
            per_target_B: FloatArray = self.nats_D @ counts_DB / (self.targets_D @ counts_DB)
        return per_target_B


@dataclass(frozen=True)
class JudgedPerplexity:
    """The 95 % interval of a perplexity over patients, and how it stands to the lowest."""

    interval: tuple[float, float]
    standing: Standing | None


def judged(methods: Mapping[str, DocumentLosses]) -> dict[str, JudgedPerplexity]:
    """Each method's perplexity among those on the same documents; none of fewer than two patients.

    One training of each is compared, so the luck of training is not part of it.
    """
    patient_ids_D = next(iter(methods.values())).patient_ids_D if methods else np.array([])
    patients = len(np.unique(patient_ids_D))
    if patients < 2:
        return {}
    counts_DB = patient_draws(patient_ids_D).counts_of(patient_ids_D)
    scores = []
    for name, losses in methods.items():
        # Standings are by what is better when it is higher.
        mean = Replicates(-losses.per_target, -losses.per_target_in(counts_DB))
        about = ModelRuns(name, is_deterministic=True)
        scores.append(ModelScores(about, (0,), (mean.value,), mean))
    found = {}
    for one, standing in zip(scores, standings(scores, patients - 1), strict=True):
        drawn_B = np.exp(-one.mean.defined)
        low, high = np.quantile(drawn_B, (LEVEL / 2, 1 - LEVEL / 2)).tolist()
        found[one.about.model] = JudgedPerplexity((low, high), standing)
    return found
