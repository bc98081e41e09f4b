import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from notetune.metrics.calibration import (
    calibration_line,
    expected_calibration_error,
    observed_expected_ratio,
    reliability_bins,
    scaled_brier_score,
)


def simulated(seed, notes=2_000, intercept=0.0, slope=1.0):
    """Outcomes whose true risk is expit(intercept + slope * logit(probability))."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1.5, 1.2, notes)
    targets = generator.random(notes) < expit(intercept + slope * logits)
    return targets.astype(int), expit(logits)


def test_scaled_brier_score_is_that_of_scikit_learns_loss():
    targets, probabilities = simulated(seed=0)
    reference = targets.mean() * (1 - targets.mean())
    expected = 1 - brier_score_loss(targets, probabilities) / reference
    assert scaled_brier_score(targets, probabilities) == pytest.approx(expected, abs=1e-14)


def test_predicting_the_prevalence_scores_zero_and_the_truth_scores_one():
    targets = np.array([1, 0, 0, 0])
    assert scaled_brier_score(targets, np.full(4, 0.25)) == pytest.approx(0, abs=1e-15)
    assert scaled_brier_score(targets, targets) == 1
    assert math.isnan(scaled_brier_score(np.zeros(3), np.full(3, 0.1)))


def test_observed_over_expected_is_a_ratio_of_sums():
    assert observed_expected_ratio(
        np.array([1, 0, 1, 0]), np.array([0.5, 0.1, 0.3, 0.1])
    ) == pytest.approx(2.0)
    assert math.isnan(observed_expected_ratio(np.array([1, 0]), np.zeros(2)))


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (-0.7, 1.0), (0.4, 0.6), (0, 1.5)])
def test_calibration_line_equals_independent_fits(intercept, slope):
    targets, probabilities = simulated(3, 20_000, intercept, slope)
    line = calibration_line(targets, probabilities)
    logits = logit(probabilities)
    refit = LogisticRegression(C=np.inf, tol=1e-12).fit(logits[:, None], targets)
    mean_is_right_at = brentq(lambda a: (targets - expit(a + logits)).sum(), -10, 10)
    assert line.slope == pytest.approx(refit.coef_[0, 0], abs=1e-5)
    assert line.intercept == pytest.approx(mean_is_right_at, abs=1e-8)
    assert line.slope == pytest.approx(slope, abs=0.1)


def test_far_off_probabilities_still_converge():
    targets, probabilities = simulated(4, notes=300)
    shifted = expit(logit(probabilities) * 2 - 6)
    line = calibration_line(targets, shifted)
    assert line.slope == pytest.approx(calibration_line(targets, probabilities).slope / 2, rel=1e-6)
    assert line.intercept > 5


def test_figures_that_do_not_exist_are_nan():
    one_class = calibration_line(np.ones(3), np.array([0.2, 0.3, 0.4]))
    assert math.isnan(one_class.intercept)
    assert math.isnan(one_class.slope)
    for probability in np.linspace(0.05, 0.95, 40):
        constant = calibration_line(np.array([1, 0, 1, 0, 0, 0]), np.full(6, probability))
        assert constant.intercept == pytest.approx(logit(1 / 3) - logit(probability))
        assert math.isnan(constant.slope)


@pytest.mark.parametrize(
    "probabilities",
    [[0.1, 0.2, 0.7, 0.8], [0.9, 0.8, 0.3, 0.1], [0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1]],
)
def test_separated_classes_have_no_slope(probabilities):
    line = calibration_line(np.array([0, 0, 1, 1]), np.array(probabilities, float))
    assert math.isfinite(line.intercept)
    assert math.isnan(line.slope)


def test_certain_probabilities_have_a_line():
    line = calibration_line(np.array([0, 1, 1, 0, 1]), np.array([0.0, 1.0, 0.0, 0.4, 0.6]))
    assert math.isfinite(line.intercept)
    assert math.isfinite(line.slope)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=80))
def test_reliability_bins_hold_every_note_once_and_keep_ties_together(data):
    targets = np.array([d[0] for d in data])
    probabilities = np.array([d[1] / 4 for d in data])
    bins = reliability_bins(targets, probabilities)
    assert bins.counts.sum() == len(data)
    assert len(bins.counts) <= len(set(probabilities))
    assert bins.counts @ bins.observed == pytest.approx(targets.sum())
    assert bins.counts @ bins.predicted == pytest.approx(probabilities.sum())
    assert np.all(np.diff(bins.predicted) > 0)
    assert np.all((bins.low <= bins.observed + 1e-12) & (bins.observed <= bins.high + 1e-12))


def test_bins_are_of_equal_size_and_have_the_wilson_interval():
    targets = np.tile([1, 0, 0, 0], 25)
    bins = reliability_bins(targets, np.linspace(0.01, 0.99, 100), bins=5)
    assert bins.counts.tolist() == [20] * 5
    # 5 of 20: Wilson's 95 % interval as tabulated in textbooks.
    assert bins.low[0] == pytest.approx(0.1119, abs=1e-4)
    assert bins.high[0] == pytest.approx(0.4687, abs=1e-4)


def test_expected_calibration_error_is_the_weighted_gap():
    targets = np.array([1, 0, 0, 0, 0, 1])
    bins = reliability_bins(targets, np.array([0.2, 0.2, 0.2, 0.2, 0.8, 0.8]), bins=2)
    assert expected_calibration_error(bins) == pytest.approx((4 * 0.05 + 2 * 0.3) / 6)
