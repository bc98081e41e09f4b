import math

import numpy as np
import pytest
from scipy.stats import norm, t

from notetune.errors import DataError
from notetune.metrics.bootstrap import Replicates
from notetune.metrics.uncertainty import (
    Difference,
    ModelRuns,
    ModelScores,
    Spread,
    auroc_interval,
    check_runs,
    difference,
    interval,
    newcombe_interval,
    total_spread,
)

DRAWS = np.random.default_rng(0).normal(0.8, 0.02, 4_000)


def scores(per_run, runs=None, draws=DRAWS, **about):
    value = float(np.mean(per_run))
    mean = Replicates(value, draws - draws.mean() + value)
    runs = tuple(range(len(per_run))) if runs is None else runs
    return ModelScores(ModelRuns("m", **about), runs, tuple(per_run), mean)


def runs_with(variance, count):
    values = np.arange(float(count))
    return list(values * np.sqrt(variance / values.var(ddof=1)))


def test_the_total_spread_is_that_of_patients_and_each_models_runs():
    # By hand: V = .0004; two models with s^2/S = .0003/3 and .0010/5.
    found = total_spread(0.0004, [runs_with(0.0003, 3), [0.8], runs_with(0.0010, 5)])
    assert found.variance == pytest.approx(0.0004 + 0.0001 + 0.0002)
    assert found.degrees_of_freedom == pytest.approx(0.0007**2 / (0.0001**2 / 2 + 0.0002**2 / 4))
    alone = total_spread(0.0004, [[0.8]])
    assert (alone.variance, alone.degrees_of_freedom) == (0.0004, math.inf)
    assert alone.quantile(0.975) == pytest.approx(norm.ppf(0.975))


def test_few_patients_make_the_spread_larger_and_less_known():
    found = total_spread(0.0004, [runs_with(0.0003, 3)], rarer=11)
    patients = 0.0004 * 11 / 10
    assert found.variance == pytest.approx(patients + 0.0001)
    expected = (patients + 0.0001) ** 2 / (0.0001**2 / 2 + patients**2 / 10)
    assert found.degrees_of_freedom == pytest.approx(expected)
    assert total_spread(0.0004, [], rarer=100) == total_spread(0.0004, [])


def test_draws_that_differ_by_rounding_alone_leave_the_interval_to_the_runs():
    still, rounded = (
        interval(scores([0.1, 0.2, 0.3], draws=np.array(draws)), patients=9)
        for draws in ([0.2] * 4, [0.2, 0.2 + 1e-16, 0.2 - 1e-16, 0.2])
    )
    half_width = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert still.high == pytest.approx(0.2 + half_width)
    assert rounded == still


def test_an_interval_over_patients_alone_is_the_percentile_interval():
    found = interval(scores([0.8], is_deterministic=True), patients=321)
    low, high = np.quantile(DRAWS - DRAWS.mean() + 0.8, [0.025, 0.975])
    # Stretched by the standard deviation of these draws beside the percentiles: 1 to 2 %.
    assert (found.value, found.n) == (0.8, 321)
    assert found.low == pytest.approx(low, abs=0.001)
    assert found.high == pytest.approx(high, abs=0.001)
    assert interval(scores([0.8]), 321) == found  # one run of several: nothing is known of others


def test_runs_stretch_both_sides_of_an_interval():
    skewed = 0.8 - np.random.default_rng(1).gamma(2, 0.01, 4_000)
    per_run = [0.78, 0.80, 0.85]
    alone = interval(scores([0.81], draws=skewed, is_deterministic=True), 9)
    found = interval(scores(per_run, draws=skewed), 9)
    patients, of_runs = skewed.var(ddof=1), np.var(per_run, ddof=1) / 3
    total = patients + of_runs
    quantile = t.ppf(0.975, total**2 / (of_runs**2 / 2))
    stretch = quantile * math.sqrt(total) / (norm.ppf(0.975) * math.sqrt(patients))
    assert stretch > 1.5
    assert found.value - found.low == pytest.approx(stretch * (alone.value - alone.low))
    assert found.high - found.value == pytest.approx(stretch * (alone.high - alone.value))
    assert found.value - found.low != pytest.approx(found.high - found.value, rel=0.1)


def test_an_interval_of_few_is_the_hull_and_stays_between_0_and_1():
    found = interval(scores([0.8], is_deterministic=True), 9, of_few=(0.6, 0.81))
    assert found.low == pytest.approx(0.6)
    assert found.high == pytest.approx(np.quantile(DRAWS - DRAWS.mean() + 0.8, 0.975))
    wide = interval(scores([0.97, 0.8, 0.99, 0.5]), 9)
    assert wide.high == 1
    fixed = ModelScores(ModelRuns("m"), (0, 1), (0.4, 0.6), Replicates(0.5, np.full(9, 0.5)))
    assert interval(fixed, 9).high == 1  # patients change nothing, two runs a lot


def hanley_mcneil_variance(auroc, positives, negatives):
    """Hanley and McNeil (1982), with their exponential approximation."""
    both_positive, both_negative = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    return (
        auroc * (1 - auroc)
        + (positives - 1) * (both_positive - auroc**2)
        + (negatives - 1) * (both_negative - auroc**2)
    ) / (positives * negatives)


@pytest.mark.parametrize("auroc", [0.05, 0.5, 0.83, 1.0])
def test_newcombes_limits_lie_where_hanley_and_mcneil_say_for_equal_groups(auroc):
    low, high = newcombe_interval(auroc, 30, 30)
    inside = [limit for limit in (low, high) if 0 < limit < 1]
    assert len(inside) == (1 if auroc == 1 else 2)
    for limit in inside:
        error = math.sqrt(hanley_mcneil_variance(limit, 30, 30))
        assert abs(auroc - limit) == pytest.approx(norm.ppf(0.975) * error, rel=1e-6)
    mirrored = newcombe_interval(1 - auroc, 30, 30)
    assert mirrored == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert newcombe_interval(auroc, 20, 70) == newcombe_interval(auroc, 70, 20)


def test_newcombes_interval_covers_with_five_positives():
    generator = np.random.default_rng(5)
    distance = math.sqrt(2) * norm.ppf(0.85)
    covered = 0
    for _ in range(1_000):
        positives = generator.normal(size=5) + distance
        negatives = generator.normal(size=95)
        auroc = (positives[:, None] > negatives).mean()
        low, high = newcombe_interval(auroc, 5, 95)
        covered += low <= 0.85 <= high
    assert 930 <= covered <= 985


def test_models_on_the_same_runs_of_step_1_are_compared_run_by_run():
    one = scores([0.80, 0.82, 0.90], shares="a")
    other = scores([0.78, 0.81, 0.87], shares="a")
    paired = difference(one, other)
    # The same draws: patients change nothing, per-run differences are .02, .01, .03.
    assert paired.value == pytest.approx(0.02)
    assert paired.spread.variance == pytest.approx(0.0001 / 3)
    assert paired.spread.degrees_of_freedom == pytest.approx(2)
    assert paired.p_value == pytest.approx(2 * t.sf(0.02 / math.sqrt(0.0001 / 3), 2))
    for unpaired in (
        difference(one, scores([0.78, 0.81, 0.87], shares="b")),
        difference(one, scores([0.78, 0.81, 0.87])),
        difference(one, scores([0.78, 0.81, 0.87], runs=(0, 1, 7), shares="a")),
    ):
        own = np.var(one.per_run, ddof=1) / 3 + np.var(other.per_run, ddof=1) / 3
        assert unpaired.spread.variance == pytest.approx(own)
        assert unpaired.spread.degrees_of_freedom < 4
        assert unpaired.p_value > 0.5


def test_one_run_has_a_difference_but_no_p_value():
    moved = np.random.default_rng(2).normal(0.7, 0.02, 4_000)
    fixed = scores([0.7], draws=moved, is_deterministic=True)
    one_run = difference(scores([0.8]), fixed)
    assert one_run.p_value is None
    assert one_run.why_untested == "one run"
    assert one_run.estimate(5).value == pytest.approx(0.1)
    tested = difference(scores([0.8], is_deterministic=True), fixed)
    error = (DRAWS - moved).std(ddof=1)
    assert tested.p_value == pytest.approx(2 * norm.sf(0.1 / error))
    assert tested.estimate(5).low == pytest.approx(0.1 - norm.ppf(0.975) * error)


def test_no_difference_has_p_1_and_one_that_nothing_changes_is_not_tested():
    same = scores([0.8], is_deterministic=True)
    assert difference(same, same).p_value == 1
    still = ModelScores(same.about, (0,), (1.0,), Replicates(1.0, np.ones(9)))
    half = ModelScores(same.about, (0,), (0.5,), Replicates(0.5, np.full(9, 0.5)))
    assert difference(still, half).p_value is None
    assert difference(still, half).why_untested == "no draw of patients changes it"


@pytest.mark.parametrize(("degrees", "family"), [(2, 1), (2, 15), (30, 5), (math.inf, 5)])
def test_the_detectable_difference_is_found_in_80_percent(degrees, family):
    truth = Difference(0.0, Spread(0.01**2, degrees)).detectable(family)
    generator = np.random.default_rng(3)
    values = truth + 0.01 * generator.normal(size=20_000)
    known = 1e6 if degrees == math.inf else degrees
    errors = 0.01 * np.sqrt(generator.chisquare(known, 20_000) / known)  # as studies estimate it
    studies = zip(values, errors, strict=True)
    found = np.mean(
        [Difference(v, Spread(e**2, degrees)).p_value < 0.05 / family for v, e in studies]
    )
    assert found == pytest.approx(0.8, abs=0.01)  # standard error .003


def test_a_difference_is_none_of_more_than_1():
    found = Difference(0.6, Spread(0.25**2, 2.0)).estimate(9)
    assert (found.low, found.high) == (pytest.approx(0.6 - t.ppf(0.975, 2) * 0.25), 1.0)


def test_an_auroc_that_no_draw_changes_has_an_interval_by_its_patients():
    perfect = scores([1.0], draws=np.ones(9), is_deterministic=True)
    found = auroc_interval(perfect, 1_000, (100, 900), are_few=False)
    assert found.low == pytest.approx(newcombe_interval(1.0, 100, 900)[0])
    assert found.high == 1


def test_runs_are_described_once():
    known = check_runs(["a", "b"], [ModelRuns("a", "x")])
    assert known == {"a": ModelRuns("a", "x"), "b": ModelRuns("b")}
    with pytest.raises(DataError, match="2 descriptions of runs for 1 models"):
        check_runs(["a"], [ModelRuns("a"), ModelRuns("a", "x")])
