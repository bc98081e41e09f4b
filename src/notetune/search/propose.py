"""Which point to try next: a pure function of the search and its trials."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Literal, assert_never

from notetune import storage
from notetune.search.ledger import Trial
from notetune.search.space import Interval, Point, Space, Value, Values, point_count

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Proposer = Literal["gp", "random"]


def propose(
    space: Space,
    study: str,
    n: int,
    trials: Sequence[Trial],
    *,
    maximize: bool,
    proposer: Proposer = "gp",
    starts: int = 5,
) -> Point | None:
    """The point of trial `n`, which no trial had before; None if every point of the space had one.

    Whoever asks again, with the same arguments, gets the same point on the same machine.

    Args:
        space: What may change.
        study: Fingerprint of the search.
        n: Number of the trial.
        trials: The others, in any order. Failed ones say only what not to try again.
        maximize: Whether higher scores are better.
        proposer: `gp` expects the most improvement by a Gaussian process over the finished trials,
            with the running ones in mind; `random` draws uniformly.
        starts: So many trials are drawn at random first. Their first draw depends on `study` and
            `n` alone; it is drawn again if another trial had it.

    Source:
        The Gaussian process is optuna's `GPSampler`. It is made anew for every trial, because one
        that lives on keeps what it fitted before.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    told = [_told(space, trial) for trial in sorted(trials, key=lambda trial: trial.n)]
    tried = [trial.params for trial in told]
    if len({tuple(params[key] for key in space) for params in tried}) == point_count(space):
        return None
    by_gp = proposer == "gp" and n >= starts
    samplers = (
        optuna.samplers.GPSampler(seed=seed, n_startup_trials=starts)
        if by_gp and draw == 0
        else optuna.samplers.RandomSampler(seed=seed)
        for draw, seed in enumerate(_seeds(study, n))
    )
    asked = (_asked(space, sampler, told, maximize=maximize) for sampler in samplers)
    params = next(params for params in asked if params not in tried)
    return {key: _value(space[key], params[key]) for key in space}


def _seeds(study: str, n: int) -> Iterator[int]:
    return (int(storage.fingerprint([study, n, draw])[:8], 16) for draw in count())


def _asked(
    space: Space, sampler: "BaseSampler", told: Sequence["FrozenTrial"], *, maximize: bool
) -> dict[str, Value]:
    import optuna

    search = optuna.create_study(sampler=sampler, direction="maximize" if maximize else "minimize")
    search.add_trials(told)
    return search.ask(_distributions(space)).params


def _told(space: Space, trial: Trial) -> "FrozenTrial":
    """A trial as optuna knows it."""
    import optuna
    from optuna.trial import TrialState

    states = {
        "running": TrialState.RUNNING,
        "finished": TrialState.COMPLETE,
        "failed": TrialState.FAIL,
    }
    return optuna.trial.create_trial(
        state=states[trial.state],
        value=trial.score,
        params={key: _param(space[key], value) for key, value in trial.point.items()},
        distributions=_distributions(space),
    )


def _distributions(space: Space) -> dict[str, "BaseDistribution"]:
    return {key: _distribution(dimension) for key, dimension in space.items()}


def _distribution(dimension: Interval | Values) -> "BaseDistribution":
    from optuna import distributions

    match dimension:
        case Values(is_ordered=True):
            # Places in the list, so that the Gaussian process sees which values are near.
            return distributions.IntDistribution(0, len(dimension.root) - 1)
        case Values():
            return distributions.CategoricalDistribution(dimension.root)
        case Interval(whole=True, low=low, high=high):
            return distributions.IntDistribution(int(low), int(high), log=dimension.log)
        case Interval(low=low, high=high):
            return distributions.FloatDistribution(low, high, log=dimension.log)
        case _:
            assert_never(dimension)


def _param(dimension: Interval | Values, value: Value) -> Value:
    numbers = _numbers(dimension)
    return numbers.index(value) if numbers else value


def _value(dimension: Interval | Values, param: Value) -> Value:
    numbers = _numbers(dimension)
    return numbers[int(param)] if numbers else param


def _numbers(dimension: Interval | Values) -> tuple[Value, ...]:
    """The values that optuna knows by their place in the list; empty if it knows them as such."""
    return dimension.root if isinstance(dimension, Values) and dimension.is_ordered else ()
