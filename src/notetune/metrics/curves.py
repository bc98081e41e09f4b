"""Curves and calibration of the runs of one model on a binary task, ready for the report."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from sklearn.metrics import roc_curve

from notetune.aliases import FloatArray
from notetune.metrics.calibration import (
    calibration_line,
    expected_calibration_error,
    observed_expected_ratio,
    reliability_bins,
    scaled_brier_score,
)
from notetune.metrics.results import Calibration, ReliabilityPoints, RocPoints
from notetune.metrics.scores import ScoreTable

_ROC_POINTS = 200
_DECIMALS = 5
"""Kept of points that are only drawn."""


def mean_roc(runs: Sequence[ScoreTable]) -> RocPoints:
    """The mean curve of the runs.

    Source:
        Vertical averaging: Fawcett (2006), algorithm 4.
    """
    grid = np.linspace(0, 1, _ROC_POINTS - 1)
    curves = [
        roc_curve(table.targets_NK[:, 0], table.scores_NK[:, 0], drop_intermediate=False)
        for table in runs
    ]
    heights_SG = [np.interp(grid, false, true) for false, true, _ in curves]
    return RocPoints(
        model=runs[0].model,
        false_positive_rates=(0.0, *_rounded(grid)),
        true_positive_rates=(0.0, *_rounded(np.mean(heights_SG, axis=0))),
    )


def reliability_points(table: ScoreTable) -> ReliabilityPoints:
    """The reliability bins of one run: an average over runs would be another model's."""
    bins = reliability_bins(table.targets_NK[:, 0], table.scores_NK[:, 0])
    drawn = {
        name: _rounded(getattr(bins, name)) for name in ("predicted", "observed", "low", "high")
    }
    return ReliabilityPoints(
        model=table.model, run=table.seed, counts=tuple(bins.counts.tolist()), **drawn
    )


def mean_calibration(runs: Sequence[ScoreTable]) -> Calibration:
    """Calibration figures, each the mean over the runs; None if it is undefined for one."""
    pairs = [(table.targets_NK[:, 0], table.scores_NK[:, 0]) for table in runs]
    lines = [calibration_line(*pair) for pair in pairs]
    return Calibration(
        observed_expected=_mean_or_none([observed_expected_ratio(*pair) for pair in pairs]),
        intercept=_mean_or_none([line.intercept for line in lines]),
        slope=_mean_or_none([line.slope for line in lines]),
        scaled_brier=_mean_or_none([scaled_brier_score(*pair) for pair in pairs]),
        expected_calibration_error=fmean(
            expected_calibration_error(reliability_bins(*pair)) for pair in pairs
        ),
    )


def _rounded(values: FloatArray) -> tuple[float, ...]:
    return tuple(round(float(value), _DECIMALS) for value in values)


def _mean_or_none(values: Sequence[float]) -> float | None:
    mean = fmean(values)
    return None if math.isnan(mean) else mean
