"""Which models are worse than the best one, and which cannot be told from it.

Shapes: M models, B draws.
"""

from collections.abc import Sequence
from statistics import fmean, variance
from typing import Literal, TypeAlias

import numpy as np

from notetune.aliases import FloatArray
from notetune.metrics.bootstrap import without_rounding
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
    shifts_MB, errors_MM = _shifts(scores, degrees, np.random.default_rng(seed))
    values_M = np.array([one.mean.value for one in scores])
    behind_MMB = shifts_MB[None] - shifts_MB[:, None]  # [i, j]: how far i falls behind j
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
) -> tuple[FloatArray, FloatArray]:
    """`(M, B)`: how far other patients and other runs would move each mean over runs.

    And `(M, M)`: the standard error of each difference. How well it is known moves the draws alone:
    of two or three runs in all, the spread of draws of Student's t tells nothing.
    """
    moved_MB = np.array([one.mean.draws_B - one.mean.value for one in scores])
    moved_MB = moved_MB[:, ~np.isnan(moved_MB).any(axis=0)]
    draws = moved_MB.shape[1]
    variances_MM = (moved_MB[None] - moved_MB[:, None]).var(axis=2, ddof=1)
    moved_MB *= np.sqrt(degrees / generator.chisquare(degrees, draws))
    several = [one.per_run for one in scores if len(one.per_run) > 1]
    if several:
        pooled = fmean(map(variance, several))
        of_runs_M = np.array([_variance_of_runs(one, pooled) for one in scores])
        variances_MM += of_runs_M[:, None] + of_runs_M
        known = sum(len(runs) - 1 for runs in several)
        noise_MB = generator.standard_normal(moved_MB.shape)
        noise_MB *= np.sqrt(known / generator.chisquare(known, draws))
        moved_MB += noise_MB * np.sqrt(of_runs_M)[:, None]
    return moved_MB, np.sqrt(variances_MM)


def _variance_of_runs(scores: ModelScores, pooled: float) -> float:
    """Of a mean over runs: by their own spread, or that of all models if it is larger."""
    if scores.is_fixed:
        return 0.0
    own = variance(scores.per_run) if len(scores.per_run) > 1 else 0.0
    return max(pooled, own) / len(scores.runs)


def _studentised(differences: FloatArray, errors: FloatArray) -> FloatArray:
    """Differences in standard errors; equal models differ by 0 of them."""
    differences = without_rounding(differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: FloatArray = np.where(differences == 0, 0.0, differences / errors)
    return ratios
