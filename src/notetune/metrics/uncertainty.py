"""How sure a mean over runs is: what other patients and other trainings would have changed.

A run is one training of a model: a seed of step 1 with its own seed of step 2. The variance of a
mean over runs is that over patients, from draws, and that over runs, from the values of the runs;
each model has its own spread over runs, because those of different ways of training differ.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import variance

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, norm, t

from notetune.errors import DataError
from notetune.metrics.bootstrap import Estimate, Replicates

LEVEL = 0.05
ENOUGH_PATIENTS = 100
"""From so many patients with the rarer value on, what fewer need is left out."""
ONE_RUN = "one run"
_POWER = 0.8
_TINY = 1e-12
_NORMAL = 1e4  # degrees of freedom of a t that is all but normal
_Z_95 = float(norm.ppf(1 - LEVEL / 2))


@dataclass(frozen=True)
class ModelRuns:
    """What the runs of a model are.

    Attributes:
        shares: Names the trainings that its runs stand on, of step 1 where there is one; models
            with the same are compared run by run. None where that is its own.
        is_deterministic: One run is all there is: another training gives the same model.
        is_candidate: May be chosen as the best validated model.
    """

    model: str
    shares: str | None = None
    is_deterministic: bool = False
    is_candidate: bool = True


@dataclass(frozen=True)
class ModelScores:
    """One figure of one model on one set of notes: of each run, and the mean over the runs."""

    about: ModelRuns
    runs: tuple[int, ...]
    per_run: tuple[float, ...]
    mean: Replicates

    @property
    def is_fixed(self) -> bool:
        """Whether no other training would give another model."""
        return self.about.is_deterministic and len(self.runs) == 1

    @property
    def has_unknown_spread(self) -> bool:
        """Whether another training would change it, but there is one run only."""
        return len(self.runs) == 1 and not self.about.is_deterministic


@dataclass(frozen=True)
class Spread:
    """Variance of an estimate, and how well it is known."""

    variance: float
    degrees_of_freedom: float

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.variance)

    def quantile(self, share: float) -> float:
        """Of Student's t with these degrees of freedom."""
        return float(t.ppf(share, self.degrees_of_freedom))


@dataclass(frozen=True)
class Difference:
    """A model against another on the same patients.

    Attributes:
        value: Mean over runs of the one less that of the other.
        spread: Of the value. Over patients alone if `why_untested` is that there is one run.
        why_untested: Why there is no p-value; None if there is one.
    """

    value: float
    spread: Spread
    why_untested: str | None = None

    def estimate(self, patients: int) -> Estimate:
        """With its 95 % interval, cut at -1 and 1."""
        half_width = self.spread.quantile(1 - LEVEL / 2) * self.spread.error
        low, high = max(-1.0, self.value - half_width), min(1.0, self.value + half_width)
        return Estimate(self.value, low, high, patients)

    @property
    def p_value(self) -> float | None:
        """Two-sided, of "the true difference is 0"; it has no floor."""
        if self.why_untested is not None:
            return None
        if self.spread.error == 0:
            return 1.0
        degrees = self.spread.degrees_of_freedom
        return float(2 * t.sf(abs(self.value) / self.spread.error, degrees))

    def detectable(self, family: int) -> float:
        """The smallest true difference found in 80 % of studies, the level shared by `family`."""
        level = self.spread.quantile(1 - LEVEL / (2 * family))
        degrees = min(self.spread.degrees_of_freedom, _NORMAL)
        power = brentq(lambda shift: nct.sf(level, degrees, shift) - _POWER, 0, 10 * (1 + level))
        return float(power) * self.spread.error


def total_spread(
    over_patients: float, over_runs: Iterable[Sequence[float]], rarer: int = ENOUGH_PATIENTS
) -> Spread:
    """Of an estimate that other patients and each independent set of runs would change.

    Args:
        over_patients: Variance of the mean over runs, over draws of patients.
        over_runs: The values of each set of runs; a single run says nothing about others.
        rarer: As of `task_scores.Labels`. Of fewer than 100 the draws show too small a variance,
            which is itself uncertain.

    Source:
        Satterthwaite (1946).
    """
    terms = [(variance(runs) / len(runs), len(runs) - 1) for runs in over_runs if len(runs) > 1]
    if rarer < ENOUGH_PATIENTS:
        over_patients *= rarer / (rarer - 1)
    total = over_patients + sum(term for term, _ in terms)
    if rarer < ENOUGH_PATIENTS:
        terms.append((over_patients, rarer - 1))
    uncertain = sum(term**2 / degrees for term, degrees in terms)
    return Spread(total, total**2 / uncertain if uncertain else math.inf)


def interval(
    scores: ModelScores,
    patients: int,
    of_few: tuple[float, float] | None = None,
    most: float = 1,
) -> Estimate:
    """The mean over runs with its 95 % interval over patients and runs, cut at 0 and `most`.

    The percentile interval over patients, or its hull with `of_few`, an interval that holds with
    few of them, each side stretched by what runs add.
    """
    value, draws = scores.mean.value, scores.mean.defined
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    over_patients = scores.mean.variance
    if of_few is not None:
        low, high = min(low, of_few[0]), max(high, of_few[1])
        over_patients = ((high - low) / (2 * _Z_95)) ** 2
    spread = total_spread(over_patients, [scores.per_run])
    below = above = spread.quantile(1 - LEVEL / 2) * spread.error if spread.error else 0.0
    if over_patients > 0:
        stretch = below / (_Z_95 * math.sqrt(over_patients))
        below, above = stretch * (value - low), stretch * (high - value)
    return Estimate(value, float(max(0, value - below)), float(min(most, value + above)), patients)


def auroc_interval(
    scores: ModelScores, patients: int, sizes: tuple[float, float], *, are_few: bool
) -> Estimate:
    """That of an AUROC: with few patients, and where no draw changes it, one by their numbers too.

    `sizes` are the patients with and without the outcome.
    """
    is_needed = are_few or not scores.mean.variance
    of_few = newcombe_interval(scores.mean.value, *sizes) if is_needed else None
    return interval(scores, patients, of_few)


def newcombe_interval(auroc: float, positives: float, negatives: float) -> tuple[float, float]:
    """The 95 % interval of an AUROC that covers with five positive patients too; at least 1 each.

    Source:
        Newcombe (2006), part 2, method 5: Hanley and McNeil's variance at the true value, with
        both sample sizes in it replaced by their mean.
    """
    balanced = (positives + negatives) / 2 - 1

    def excess(true: float) -> float:
        spread = true * (1 - true) / (positives * negatives)
        spread *= 1 + balanced * ((1 - true) / (2 - true) + true / (1 + true))
        return (auroc - true) ** 2 - _Z_95**2 * spread

    # 0 and 1 are solutions for an AUROC of 0 or 1, but not the ones looked for.
    low = brentq(excess, 0, min(auroc, 1 - _TINY)) if auroc > 0 else 0.0
    high = brentq(excess, max(auroc, _TINY), 1) if auroc < 1 else 1.0
    return float(low), float(high)


def difference(one: ModelScores, other: ModelScores, rarer: int = ENOUGH_PATIENTS) -> Difference:
    """A model against another; run by run if both stand on the same runs of step 1."""
    over_runs, shares = [one.per_run, other.per_run], one.about.shares
    if shares is not None and (shares, one.runs) == (other.about.shares, other.runs):
        over_runs = [tuple(a - b for a, b in zip(*over_runs, strict=True))]
    why = ONE_RUN if one.has_unknown_spread or other.has_unknown_spread else None
    return difference_of(one.mean.minus(other.mean), over_runs, rarer, why)


def difference_of(
    paired: Replicates, over_runs: Iterable[Sequence[float]], rarer: int, why_untested: str | None
) -> Difference:
    """A difference from its draws and the values of its runs; arguments as of `total_spread`."""
    spread = total_spread(paired.variance, over_runs, rarer)
    if why_untested is None and spread.error == 0 != paired.value:
        why_untested = "no draw of patients changes it"
    return Difference(paired.value, spread, why_untested)


def check_runs(models: Iterable[str], about: Sequence[ModelRuns]) -> dict[str, ModelRuns]:
    """What the runs of each model are; a model that nothing is said of stands alone.

    Raises:
        DataError: If something is said of a model twice.
    """
    said = {one.model: one for one in about}
    if len(said) != len(about):
        raise DataError(f"{len(about)} descriptions of runs for {len(said)} models; give one each.")
    return {model: said.get(model, ModelRuns(model)) for model in models}
