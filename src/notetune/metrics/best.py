"""Which models are worse than the best one, and which cannot be told from it.

Shapes: M models, B draws.
"""

from collections.abc import Sequence
from statistics import fmean, variance
from typing import Literal, TypeAlias

import numpy as np

from notetune.aliases import FloatArray
from notetune.metrics.uncertainty import LEVEL, ModelScores

Standing: TypeAlias = Literal["best", "tied", "worse"]


def standings(scores: Sequence[ModelScores], degrees: int, seed: int = 0) -> list[Standing | None]:
    """How each model stands to the best one, in the given order; None for one without rivals.

    Models are dropped one by one while the largest studentised difference among those left is
    above the 95 % quantile that it would have among equal models. Of equal models, at least one is
    called worse in about 5 % of reports, however many there are; intervals against the leader
    would do so in 55 % of reports of ten. All scores are on the same draws; `degrees` are the
    `Labels.rarer` of the task, less one.

    Source:
        The model confidence set with the range statistic: Hansen, Lunde and Nason (2011).
    """
    if len(scores) < 2:
        return [None] * len(scores)
    shifts_MB = _shifts(scores, degrees, np.random.default_rng(seed))
    values_M = np.array([one.mean.value for one in scores])
    behind_MMB = shifts_MB[None] - shifts_MB[:, None]  # [i, j]: how far i falls behind j
    errors_MM = behind_MMB.std(axis=2, ddof=1)
    ratios_MM = _studentised(values_M[None] - values_M[:, None], errors_MM)
    behind_MMB = _studentised(behind_MMB, errors_MM[:, :, None])
    left = np.arange(len(scores))
    while len(left) > 1:
        among = np.ix_(left, left)
        largest_B = behind_MMB[among].max(axis=(0, 1))
        ratios = ratios_MM[among]
        if ratios.max() <= np.quantile(largest_B, 1 - LEVEL):
            break
        left = np.delete(left, ratios.max(axis=1).argmax())
    survivor: Standing = "best" if len(left) == 1 else "tied"
    return [survivor if m in left else "worse" for m in range(len(scores))]


def _shifts(
    scores: Sequence[ModelScores], degrees: int, generator: np.random.Generator
) -> FloatArray:
    """`(M, B)`: how far other patients and other runs would move each mean over runs."""
    moved_MB = np.array([one.mean.draws_B - one.mean.value for one in scores])
    moved_MB = moved_MB[:, ~np.isnan(moved_MB).any(axis=0)]
    draws = moved_MB.shape[1]
    moved_MB *= np.sqrt(degrees / generator.chisquare(degrees, draws))
    several = [one.per_run for one in scores if len(one.per_run) > 1]
    if not several:
        return moved_MB
    pooled = fmean(map(variance, several))
    of_runs = sum(len(runs) - 1 for runs in several)
    stretch_B = np.sqrt(of_runs / generator.chisquare(of_runs, draws))
    for m, one in enumerate(scores):
        noise_B = generator.standard_normal(draws)
        if not one.is_fixed:
            own = variance(one.per_run) if len(one.per_run) > 1 else 0.0
            moved_MB[m] += noise_B * stretch_B * np.sqrt(max(pooled, own) / len(one.runs))
    return moved_MB


def _studentised(differences: FloatArray, errors: FloatArray) -> FloatArray:
    """Differences in standard errors; equal models differ by 0 of them."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: FloatArray = np.where(differences == 0, 0.0, differences / errors)
    return ratios
