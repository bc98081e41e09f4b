"""Whether probabilities mean what they say: Brier score, calibration line, reliability bins.

Shapes: N notes scored. Targets are 0 or 1, probabilities are in [0, 1]. A figure that does not
exist (a constant prediction has no slope, an empty class no observed rate) is nan.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, root
from scipy.special import expit, logit
from scipy.stats import binomtest

from notetune.aliases import FloatArray
from notetune.errors import DataError

_SMALLEST_PROBABILITY = 1e-9
"""Probabilities of exactly 0 or 1 are moved this far inside before a logit is taken."""
_ARRIVED = 1e-10  # relative to the coefficients
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
    """Observed against predicted risk, in bins of like prediction.

    Attributes:
        counts: `(bins,)` notes per bin, all above 0.
        predicted: `(bins,)` mean prediction, ascending.
        observed: `(bins,)` share of positives.
        low: `(bins,)` lower end of the Wilson interval of `observed`.
        high: `(bins,)` upper end.
    """

    counts: npt.NDArray[np.int64]
    predicted: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray


def brier_loss(targets_N: npt.ArrayLike, probabilities_N: npt.ArrayLike) -> float:
    """Mean squared distance between probability and outcome; 0 is perfect.

    Raises:
        DataError: If a probability is NaN or outside [0, 1], a target is not 0 or 1, the shapes
            differ, or there are no notes.

    Source:
        Brier (1950).
    """
    targets, probabilities = _checked(targets_N, probabilities_N)
    return float(np.mean((probabilities - targets) ** 2))


def scaled_brier_score(targets_N: npt.ArrayLike, probabilities_N: npt.ArrayLike) -> float:
    """Share of the Brier loss of always predicting the prevalence that is removed.

    Returns:
        1 is perfect, 0 no better than the prevalence, below 0 worse; nan with one class.

    Raises:
        DataError: As `brier_loss`.

    Source:
        Steyerberg et al. (2010), 1 - Brier / (prevalence * (1 - prevalence)).
    """
    targets, probabilities = _checked(targets_N, probabilities_N)
    prevalence = targets.mean()
    reference = prevalence * (1 - prevalence)
    return 1 - brier_loss(targets, probabilities) / reference if reference > 0 else math.nan


def observed_expected_ratio(targets_N: npt.ArrayLike, probabilities_N: npt.ArrayLike) -> float:
    """Calibration in the large, O:E: observed events per expected event; 1 is right.

    Returns:
        nan when no event is expected.

    Raises:
        DataError: As `brier_loss`.
    """
    targets, probabilities = _checked(targets_N, probabilities_N)
    expected = probabilities.sum()
    return float(targets.sum() / expected) if expected > 0 else math.nan


def calibration_line(targets_N: npt.ArrayLike, probabilities_N: npt.ArrayLike) -> CalibrationLine:
    """Calibration intercept and slope by logistic refit (maximum likelihood).

    Returns:
        Both nan with one class; the slope also nan when the predictions are constant or separate
        the classes perfectly.

    Raises:
        DataError: As `brier_loss`.

    Source:
        Cox (1958); Van Calster et al. (2019), "Calibration: the Achilles heel of predictive
        analytics".
    """
    targets, probabilities = _checked(targets_N, probabilities_N)
    if targets.min() == targets.max():
        return CalibrationLine(math.nan, math.nan)
    inside = np.clip(probabilities, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    logits = logit(inside)
    rate = targets.mean()
    intercept = float(brentq(lambda b: expit(logits + b).mean() - rate, -_FARTHEST, _FARTHEST))
    if np.ptp(logits) == 0 or _is_separated(targets, logits):
        return CalibrationLine(intercept, math.nan)
    return CalibrationLine(intercept, _slope(targets, logits))


def reliability_bins(
    targets_N: npt.ArrayLike, probabilities_N: npt.ArrayLike, bins: int = 10, level: float = 0.95
) -> ReliabilityBins:
    """Bins of about equal size over the sorted predictions; equal predictions stay together.

    Args:
        targets_N: `(N,)` of 0/1.
        probabilities_N: `(N,)` in [0, 1].
        bins: Wanted number of bins; fewer come back when predictions repeat.
        level: Coverage of each bin's interval.

    Raises:
        DataError: As `brier_loss`.

    Source:
        Interval of a proportion: Wilson (1927). It takes notes as independent.
    """
    targets, probabilities = _checked(targets_N, probabilities_N)
    inner_edges = np.quantile(probabilities, np.arange(1, bins) / bins)
    bin_N = np.searchsorted(np.unique(inner_edges), probabilities, side="left")
    _, index_N, counts = np.unique(bin_N, return_inverse=True, return_counts=True)
    observed = np.bincount(index_N, weights=targets) / counts
    positives = np.bincount(index_N, weights=targets).astype(int)
    ends = [
        binomtest(found, count).proportion_ci(level, "wilson")
        for found, count in zip(positives.tolist(), counts.tolist(), strict=True)
    ]
    return ReliabilityBins(
        counts=counts.astype(np.int64),
        predicted=np.bincount(index_N, weights=probabilities) / counts,
        observed=observed,
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


def _is_separated(targets_N: FloatArray, logits_N: FloatArray) -> bool:
    """Whether some threshold parts the classes, ties allowed: the best slope is then infinite."""
    of_positives, of_negatives = logits_N[targets_N == 1], logits_N[targets_N == 0]
    return bool(
        of_positives.min() >= of_negatives.max() or of_negatives.min() >= of_positives.max()
    )


def _slope(targets_N: FloatArray, logits_N: FloatArray) -> float:
    """Of the logistic regression on logits, where the gradient vanishes; nan if not found."""
    design_N2 = np.column_stack([np.ones_like(logits_N), logits_N])

    def gradient(coefficients_2: FloatArray) -> FloatArray:
        slopes_2: FloatArray = design_N2.T @ (expit(design_N2 @ coefficients_2) - targets_N)
        return slopes_2

    def curvature(coefficients_2: FloatArray) -> FloatArray:
        fitted_N = expit(design_N2 @ coefficients_2)
        curves_22: FloatArray = (design_N2 * (fitted_N * (1 - fitted_N))[:, None]).T @ design_N2
        return curves_22

    found = root(gradient, np.zeros(2), jac=curvature, tol=_ARRIVED)
    return float(found.x[1]) if found.success else math.nan


def _checked(
    targets_N: npt.ArrayLike, probabilities_N: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    targets = np.asarray(targets_N, dtype=np.float64)
    probabilities = np.asarray(probabilities_N, dtype=np.float64)
    if targets.shape != probabilities.shape or targets.ndim != 1 or not targets.size:
        raise DataError(
            f"targets have shape {targets.shape} and probabilities {probabilities.shape}; both "
            "must be the same (notes,) with at least one note."
        )
    outside = ~((probabilities >= 0) & (probabilities <= 1))  # true for NaN as well
    if outside.any():
        raise DataError(
            f"probabilities: {int(outside.sum())} of {outside.size} values are NaN or outside "
            f"0..1, the first in row {int(np.argmax(outside))}. Pass probabilities, not logits."
        )
    wrong = (targets != 0) & (targets != 1)
    if wrong.any():
        raise DataError(f"targets: {int(wrong.sum())} of {wrong.size} values are not 0 or 1.")
    return targets, probabilities
