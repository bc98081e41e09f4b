"""Whether probabilities mean what they say: scaled Brier score, calibration line, reliability bins.

Shapes: N notes scored. Targets `(N,)` are 0 or 1 and probabilities `(N,)` in [0, 1], as a
`ScoreTable` holds them. A figure that does not exist (a constant prediction has no slope, an empty
class no observed rate) is nan.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from notetune.aliases import FloatArray

Targets = npt.NDArray[np.int8] | FloatArray

_SMALLEST_PROBABILITY = 1e-9
"""Probabilities of exactly 0 or 1 are moved this far inside before a logit is taken."""
_ARRIVED = 1e-12  # of the largest gradient
_FARTHEST = 60.0  # beyond the logits of the smallest and largest probability together


@dataclass(frozen=True)
class CalibrationLine:
    """The logistic refit `logit P(target = 1) = intercept + slope * logit(probability)`.

    Attributes:
        intercept: Fitted with the slope fixed at 1, so that it speaks of the mean alone: 0 is
            right, below 0 means that risks are overestimated.
        slope: Of the free refit; 1 is right, below 1 means that predictions are too extreme.
    """

    intercept: float
    slope: float


@dataclass(frozen=True)
class ReliabilityBins:
    """Observed against predicted risk, in bins of like prediction: all `(bins,)`, none empty.

    `predicted` ascends; `low` and `high` are the Wilson interval of `observed`.
    """

    counts: npt.NDArray[np.int64]
    predicted: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray


def scaled_brier_score(targets_N: Targets, probabilities_N: FloatArray) -> float:
    """Share of the Brier loss of always predicting the prevalence that is removed.

    Returns:
        1 is perfect, 0 no better than the prevalence, below 0 worse; nan with one class.

    Source:
        Steyerberg et al. (2010), 1 - Brier / (prevalence * (1 - prevalence)); Brier (1950).
    """
    prevalence = targets_N.mean()
    reference = prevalence * (1 - prevalence)
    loss = float(np.mean((probabilities_N - targets_N) ** 2))
    return 1 - loss / reference if reference > 0 else math.nan


def observed_expected_ratio(targets_N: Targets, probabilities_N: FloatArray) -> float:
    """Calibration in the large, O:E: observed events per expected event; 1 is right.

    nan when no event is expected.
    """
    expected = probabilities_N.sum()
    return float(targets_N.sum() / expected) if expected > 0 else math.nan


def calibration_line(targets_N: Targets, probabilities_N: FloatArray) -> CalibrationLine:
    """Calibration intercept and slope by logistic refit (maximum likelihood).

    Returns:
        Both nan with one class; the slope also nan when the predictions are constant or separate
        the classes perfectly.

    Source:
        Cox (1958); Van Calster et al. (2019), "Calibration: the Achilles heel of predictive
        analytics".
    """
    if targets_N.min() == targets_N.max():
        return CalibrationLine(math.nan, math.nan)
    logits_N = logit(np.clip(probabilities_N, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY))
    rate = targets_N.mean()
    intercept = float(brentq(lambda b: expit(logits_N + b).mean() - rate, -_FARTHEST, _FARTHEST))
    has_slope = np.ptp(logits_N) > 0 and not _is_separated(targets_N, logits_N)
    if not has_slope:
        return CalibrationLine(intercept, math.nan)
    refit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=_ARRIVED)
    return CalibrationLine(intercept, float(refit.fit(logits_N[:, None], targets_N).coef_[0, 0]))


def reliability_bins(
    targets_N: Targets, probabilities_N: FloatArray, bins: int = 10
) -> ReliabilityBins:
    """Bins of about equal size over the sorted predictions, with 95 % intervals.

    Equal predictions stay together, so fewer bins than wanted come back when they repeat.

    Source:
        Interval of a proportion: Wilson (1927). It takes notes as independent.
    """
    inner_edges = np.quantile(probabilities_N, np.arange(1, bins) / bins)
    bin_N = np.searchsorted(np.unique(inner_edges), probabilities_N, side="left")
    _, index_N, counts = np.unique(bin_N, return_inverse=True, return_counts=True)
    positives = np.bincount(index_N, weights=targets_N)
    ends = [
        binomtest(int(found), count).proportion_ci(0.95, "wilson")
        for found, count in zip(positives, counts.tolist(), strict=True)
    ]
    return ReliabilityBins(
        counts=counts.astype(np.int64),
        predicted=np.bincount(index_N, weights=probabilities_N) / counts,
        observed=positives / counts,
        low=np.array([low for low, _ in ends]),
        high=np.array([high for _, high in ends]),
    )


def expected_calibration_error(bins: ReliabilityBins) -> float:
    """Mean distance between observed and predicted risk over the bins, weighted by their size.

    Source:
        Naeini et al. (2015), here with bins of equal size. It depends on the bins: a secondary
        figure.
    """
    return float(np.average(np.abs(bins.observed - bins.predicted), weights=bins.counts))


def _is_separated(targets_N: Targets, logits_N: FloatArray) -> bool:
    """Whether some threshold parts the classes, ties allowed: the best slope is then infinite."""
    of_positives, of_negatives = logits_N[targets_N == 1], logits_N[targets_N == 0]
    return bool(
        of_positives.min() >= of_negatives.max() or of_negatives.min() >= of_positives.max()
    )
