"""What is tried next: the same for the same trials, never twice, and better than chance."""

import logging
import random
import subprocess
import sys
import warnings

import pytest
from small_search import SPACE, STUDY, TRIALS, best, next_point, score, search

from notetune.search.ledger import Ledger, Trial
from notetune.search.propose import propose
from notetune.search.space import Interval, Values, point_count

SMALL = {"adapter.rank": Values((2, 4, 8)), "adapter.projection": Values((True, False))}


def finished(points):
    return [Trial(n, point, "finished", score(point)) for n, point in enumerate(points)]


def as_set(points):
    return {tuple(point.items()) for point in points}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The ledger of a search that was left alone."""
    ledger = Ledger(tmp_path_factory.mktemp("search") / "ledger", STUDY)
    search(ledger)
    return ledger


def test_a_search_that_restarts_after_any_number_of_trials_tries_the_same_points(
    searched, tmp_path
):
    trials = searched.trials()
    assert len(as_set(trial.point for trial in trials)) == TRIALS
    lines = searched.path.read_text().splitlines(keepends=True)
    restarts = list(range(TRIALS))
    random.Random(0).shuffle(restarts)
    for n in restarts:
        (tmp_path / f"{n}").write_text("".join(lines[: 1 + 2 * n]))
        again = Ledger(tmp_path / f"{n}", STUDY).trials()
        assert again == trials[:n]
        assert next_point(again) == trials[n].point


@pytest.mark.parametrize("kept", [30, 31])
def test_a_search_that_goes_on_from_a_ledger_ends_in_the_same_ledger(searched, tmp_path, kept):
    lines = searched.path.read_text().splitlines(keepends=True)
    (tmp_path / "ledger").write_text("".join(lines[:kept]))
    search(Ledger(tmp_path / "ledger", STUDY))
    assert (tmp_path / "ledger").read_text() == searched.path.read_text()


def test_the_order_in_which_trials_are_told_does_not_matter(searched):
    trials = searched.trials()
    assert next_point(trials[:12][::-1]) == trials[12].point


def test_the_gaussian_process_finds_what_chance_does_not(searched, tmp_path):
    chance = Ledger(tmp_path / "ledger", STUDY)
    search(chance, proposer="random")
    found, drawn = best(searched.trials()), best(chance.trials())
    assert found.score > 0.799 > drawn.score
    assert found.point["adapter.init"] == "text"


@pytest.mark.parametrize("proposer", ["gp", "random"])
def test_starts_are_random_and_depend_on_search_and_number_alone(searched, proposer):
    trials = searched.trials()
    for n in range(5):
        assert next_point([], n, proposer=proposer) == trials[n].point
        assert next_point(trials[5:9], n, proposer=proposer) == trials[n].point
    assert propose(SPACE, "another", 0, [], maximize=True) != trials[0].point
    assert next_point([], 5, proposer="random") != next_point([], 4, proposer="random")


def test_four_running_trials_get_distinct_points(searched):
    trials = searched.trials()[:8]
    for n in range(8, 12):
        trials.append(Trial(n, next_point(trials)))
    assert len(as_set(trial.point for trial in trials)) == 12
    rates = [trial.point["optim.peak_lr"] for trial in trials[8:]]
    assert len(set(rates)) == 4


def test_a_running_trial_keeps_the_next_one_away_and_a_failed_one_does_not():
    space = {"rate": Interval(low=0, high=1)}
    trials = []
    for n in range(8):
        point = next_point(trials, n, space)
        trials.append(Trial(n, point, "finished", -((point["rate"] - 0.4) ** 2)))
    first = next_point(trials, 8, space)["rate"]
    beside, again = (
        next_point([*trials, Trial(8, {"rate": first}, state)], 9, space)["rate"]
        for state in ("running", "failed")
    )
    assert abs(again - first) < abs(beside - first) / 10


@pytest.mark.parametrize("proposer", ["gp", "random"])
def test_a_finite_space_is_used_up_without_a_repeat(proposer):
    trials = []
    states = ("finished", "running", "failed")
    while (point := next_point(trials, space=SMALL, proposer=proposer)) is not None:
        state = states[len(trials) % 3]
        value = float(point["adapter.rank"]) if state == "finished" else None
        trials.append(Trial(len(trials), point, state, value))
    assert len(trials) == len(as_set(trial.point for trial in trials)) == point_count(SMALL) == 6


def test_scores_may_be_minimised():
    space = {"adapter.rank": Values(tuple(range(1, 200)))}
    ends = []
    for maximize in (True, False):
        trials = []
        for n in range(12):
            point = next_point(trials, n, space, maximize=maximize)
            trials.append(Trial(n, point, "finished", -abs(point["adapter.rank"] - 150) / 100))
        ends.append([trial.point["adapter.rank"] for trial in trials[5:]])
    assert min(abs(rank - 150) for rank in ends[0]) <= 3
    assert min(ends[1]) == 1


def test_points_hold_values_of_the_space_in_their_own_type():
    space = {
        "whole": Interval(low=1, high=300, log=True, whole=True),
        "plain": Interval(low=0, high=0.5),
        "rate": Interval(low=1e-5, high=1e-3, log=True),
        "number": Values((1, 2.5)),
        "switch": Values((True, False)),
        "name": Values(("a", "b")),
    }
    trials = []
    for n in range(8):
        point = next_point(trials, n, space)
        assert list(point) == list(space)
        assert type(point["whole"]) is int
        assert 1 <= point["whole"] <= 300
        assert 0 <= point["plain"] <= 0.5
        assert 1e-5 <= point["rate"] <= 1e-3
        assert (type(point["plain"]), type(point["rate"])) == (float, float)
        assert point["number"] in (1, 2.5)
        assert type(point["switch"]) is bool
        assert point["name"] in ("a", "b")
        trials.append(Trial(n, point, "finished", point["plain"]))


def test_starts_spread_over_a_logarithmic_scale():
    space = {"rate": Interval(low=1e-6, high=1, log=True)}
    rates = [next_point([], n, space, proposer="random")["rate"] for n in range(200)]
    assert 60 < sum(rate < 1e-3 for rate in rates) < 140


def test_nothing_is_logged_or_warned(caplog):
    trials = finished([next_point([], n) for n in range(6)])
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        next_point([*trials, Trial(6, next_point([], 6))])
    assert caplog.records == []


def test_reading_a_ledger_loads_neither_optuna_nor_torch():
    code = (
        "import sys, notetune.search.ledger, notetune.search.propose, notetune.search.space;"
        "sys.exit(bool({'optuna', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
