from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.metrics.best import _shifts, standings
from notetune.metrics.bootstrap import Replicates
from notetune.metrics.uncertainty import ModelRuns, ModelScores, difference


def models(values, generator, spread=0.02, shared=0.8, draws=400, runs=1, run_sd=0.0):
    """Models whose draws correlate, as on the same patients."""
    common = generator.normal(size=draws)
    found = []
    for number, value in enumerate(values):
        own = generator.normal(size=draws)
        moved = spread * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
        per_run = value + run_sd * generator.normal(size=runs)
        mean = Replicates(float(per_run.mean()), per_run.mean() + moved)
        about = ModelRuns(f"m{number}", is_deterministic=run_sd == 0)
        found.append(ModelScores(about, tuple(range(runs)), tuple(per_run), mean))
    return found


def by_definition(scores, shifts_MB):
    """Hansen, Lunde and Nason, one pair and one model at a time."""
    left = set(range(len(scores)))
    draws = [one.mean.draws_B for one in scores]
    error = {(i, j): np.std(draws[j] - draws[i], ddof=1) for i in left for j in left if i != j}
    values = [one.mean.value for one in scores]
    while len(left) > 1:
        ranges = [
            max(
                abs(shifts_MB[i, b] - shifts_MB[j, b]) / error[i, j]
                for i, j in combinations(left, 2)
            )
            for b in range(shifts_MB.shape[1])
        ]
        worst = {i: max((values[j] - values[i]) / error[i, j] for j in left - {i}) for i in left}
        if max(worst.values()) <= np.quantile(ranges, 0.95):
            break
        left.remove(max(worst, key=worst.get))
    survivor = "best" if len(left) == 1 else "tied"
    return [survivor if i in left else "worse" for i in range(len(scores))]


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_standings_equal_their_definition(seed, count):
    generator = np.random.default_rng(seed)
    scores = models(0.7 + 0.02 * generator.random(count), generator, spread=0.01, draws=60)
    shifts, _ = _shifts(scores, 50, np.random.default_rng(4))
    assert standings(scores, 50, seed=4) == by_definition(scores, shifts)


def test_a_model_far_above_is_best_and_equal_ones_are_tied():
    generator = np.random.default_rng(0)
    assert standings(models([0.7, 0.71, 0.95], generator), 200) == ["worse", "worse", "best"]
    assert standings(models([0.90, 0.70, 0.901], generator), 200) == ["tied", "worse", "tied"]
    assert standings(models([0.9], generator), 200) == [None]
    assert standings([], 200) == []


def test_rounding_tells_no_models_apart():
    one = models([0.8], np.random.default_rng(1))[0]
    mean = Replicates(one.mean.value - 1e-16, one.mean.draws_B + 1e-9 * np.sin(np.arange(400)))
    other = ModelScores(one.about, (0, 1), (one.mean.value,) * 2, mean)
    assert standings([one, other], 100) == ["tied", "tied"]
    assert difference(one, other).p_value == 1
    assert difference(one, other).estimate(9).high == 0


def test_models_that_are_the_same_are_tied():
    one = models([0.8], np.random.default_rng(1))[0]
    assert standings([one, one], 100) == ["tied", "tied"]
    poor = models([0.5], np.random.default_rng(2), spread=0)[0]
    assert standings([one, one, poor, poor], 100) == ["tied", "tied", "worse", "worse"]


def test_draws_without_a_value_are_left_out():
    scores = models([0.7, 0.9], np.random.default_rng(3))
    draws = scores[0].mean.draws_B.copy()
    draws[:7] = np.nan
    lost = ModelScores(scores[0].about, (0,), (0.7,), Replicates(0.7, draws))
    assert _shifts([lost, scores[1]], 50, np.random.default_rng(0))[0].shape == (2, 393)
    assert standings([lost, scores[1]], 50) == ["worse", "best"]


def test_runs_are_in_the_draws_with_at_least_their_mean_spread():
    generator = np.random.default_rng(5)
    quiet = models([0.8], generator, draws=200_000, spread=0.001, runs=5, run_sd=0.0001)[0]
    loud = models([0.8], generator, draws=200_000, spread=0.001, runs=5, run_sd=0.05)[0]
    fixed = models([0.8], generator, draws=200_000, spread=0.001)[0]
    shifts, errors = _shifts([quiet, loud, fixed], 10**6, np.random.default_rng(6))
    own = np.var(loud.per_run, ddof=1)
    pooled = (own + np.var(quiet.per_run, ddof=1)) / 2
    # Student's t with 8 degrees of freedom has variance 8 / 6.
    assert shifts[0].var() == pytest.approx(pooled / 5 * 8 / 6 + 0.001**2, rel=0.03)
    assert shifts[1].var() == pytest.approx(own / 5 * 8 / 6 + 0.001**2, rel=0.03)
    assert shifts[2].var() == pytest.approx(0.001**2, rel=0.03)
    of_patients = np.var(loud.mean.draws_B - quiet.mean.draws_B, ddof=1)
    assert errors[0, 1] == errors[1, 0] == pytest.approx(np.sqrt(of_patients + (pooled + own) / 5))


def test_few_patients_widen_the_draws():
    scores = models([0.8, 0.8], np.random.default_rng(7), draws=200_000)
    wide, _ = _shifts(scores, 17, np.random.default_rng(8))
    # Student's t with 17 degrees of freedom has variance 17 / 15.
    assert wide[0].var() == pytest.approx(0.02**2 * 17 / 15, rel=0.03)


def test_two_runs_of_one_model_hide_no_other_that_is_far_behind():
    worse = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        fixed = models([0.74, 0.74, 0.74], generator, spread=0.01)
        several = models([0.8], generator, spread=0.01, runs=2, run_sd=0.004)
        worse += "worse" in standings([*fixed, *several], 500, seed)
    assert worse > 80  # of 100; 33 where draws of Student's t are divided by their own spread


@pytest.mark.parametrize(("runs", "run_sd"), [(1, 0.0), (3, 0.02)])
def test_equal_models_are_seldom_marked(runs, run_sd):
    marked = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        scores = models([0.8] * 10, generator, runs=runs, run_sd=run_sd)
        common = generator.normal()
        # What this test set does to each model, as one more draw would.
        moved = []
        for one in scores:
            shift = 0.02 * (np.sqrt(0.8) * common + np.sqrt(0.2) * generator.normal())
            mean = Replicates(one.mean.value + shift, one.mean.draws_B + shift)
            moved.append(ModelScores(one.about, one.runs, one.per_run, mean))
        marked += "worse" in standings(moved, 500, seed)
    assert marked <= 27  # 5 % of 300 and three standard errors
