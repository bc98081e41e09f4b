"""How an admission ends: the true probabilities given the latent conditions, and draws from them.

With strength `signal` every log-odds and log-mean is `centre + signal * (value - centre)`: at 1 the
conditions act as their rows say, at 0 every admission has the same probabilities.
"""

import math
import random
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from notetune.hospital import codes
from notetune.hospital.conditions import ACUTE, CONDITIONS, LASTING, Acute, Codes, Condition
from notetune.hospital.patients import SECOND_PROBLEM, Presentation

MINUTES_PER_DAY = 24 * 60
LOS_LIMITS = (3.05, 7.05, 14.05)
"""Days at which the length-of-stay class changes, as the stay is rounded to 0.1 days first."""
PROLONGED_DAYS = 7.0
"""Ventilated days, first start to last end, above which ventilation is prolonged.

Source: Huang et al. 2020. Their rule counts from 6.75 days on and asks for at least 1.75; no stay
of this hospital is between the rules (`_off_the_limits`).
"""

_DEATH_CENTRE, _DEATH_BASE, _DEATH_PER_DECADE, _DEATH_PER_STEP = -2.0, -3.1, 0.5, 0.55
_STAY_CENTRE, _STAY_SPREAD = math.log(6.8), 0.6
_STAY_PER_STEP = 0.16
_TURNOVER_AFTER_VENTILATION = 0.5  # days between the end of ventilation and discharge, at least
_VENTILATION_CENTRE, _VENTILATION_BASE = -0.6, -0.7
_VENTILATED_CENTRE, _VENTILATED_SPREAD = math.log(3.2), 0.9
_GRACE = 0.25  # days, in the rule of Huang et al.
_LONGEST_DAYS, _SHORTEST_DAYS = 110.0, 0.4
_RARE = 0.002  # what coders write by mistake
_INTUBATED_HERE = 0.8

DIAGNOSIS_CODES = tuple(row.icd9 for row in codes.DIAGNOSES)
PROCEDURE_CODES = tuple(row.icd9 for row in codes.PROCEDURES)

Floats = npt.NDArray[np.float64]
_normal_cdf = NormalDist().cdf


@dataclass(frozen=True)
class Probabilities:
    """What a reader who knows the latent conditions would predict.

    Attributes:
        stay: Of the four length-of-stay classes, given survival; sums to 1.
        prolonged: Of more than 7 ventilated days, given ventilation.
        diagnoses: Per entry of `DIAGNOSIS_CODES`, as `procedures` per entry of `PROCEDURE_CODES`.
    """

    death: float
    stay: tuple[float, float, float, float]
    ventilated: float
    prolonged: float
    diagnoses: Floats
    procedures: Floats


@dataclass(frozen=True)
class Outcome:
    """How one admission went, drawn from its probabilities; codes are of ICD-9.

    Ventilation is from the first start to the last end; the reason for admission is coded first.
    """

    died: bool
    minutes: int
    ventilated_minutes: int
    diagnoses: tuple[str, ...]
    procedures: tuple[str, ...]
    probabilities: Probabilities


class OutcomeModel:
    """The true model at one strength of signal."""

    def __init__(self, signal: float) -> None:
        self._signal = signal
        self._diagnoses = _CodeModel(DIAGNOSIS_CODES, "diagnoses", codes.INCIDENTAL_DIAGNOSES)
        self._procedures = _CodeModel(PROCEDURE_CODES, "procedures", codes.INCIDENTAL_PROCEDURES)

    def probabilities(self, presentation: Presentation) -> Probabilities:
        """The true probabilities of an admission."""
        death, stay, ventilation, ventilated = self._predictors(presentation)
        longest = math.log(PROLONGED_DAYS - _GRACE)
        conditions = presentation.conditions
        procedures = self._procedures.probabilities(conditions, self._signal)
        under_96 = _normal_cdf((math.log(4.0) - ventilated) / _VENTILATED_SPREAD)
        shares = (_INTUBATED_HERE, under_96, 1 - under_96)
        for code, share in zip(codes.VENTILATION_PROCEDURES, shares, strict=True):
            procedures[PROCEDURE_CODES.index(code)] = ventilation * share
        return Probabilities(
            death=death,
            stay=_stay_classes(stay, ventilation, ventilated),
            ventilated=ventilation,
            prolonged=1 - _normal_cdf((longest - ventilated) / _VENTILATED_SPREAD),
            diagnoses=self._diagnoses.probabilities(conditions, self._signal),
            procedures=procedures,
        )

    def sample(self, presentation: Presentation) -> Outcome:
        """Draw an outcome; the same presentation always gives the same one."""
        rng = presentation.rng("outcome")
        true = self.probabilities(presentation)
        _, stay, _, ventilated = self._predictors(presentation)
        died = rng.random() < true.death
        is_ventilated = rng.random() < true.ventilated
        ventilated_days = math.exp(rng.gauss(ventilated, _VENTILATED_SPREAD))
        ventilated_days = is_ventilated * _off_the_limits(ventilated_days)
        days = math.exp(rng.gauss(stay - 0.4 * died, _STAY_SPREAD))
        if is_ventilated:
            days = max(days, ventilated_days + _TURNOVER_AFTER_VENTILATION)
        minutes = round(max(days, _SHORTEST_DAYS) * MINUTES_PER_DAY)
        # Off the exact ties of rounding to 0.1 days, which libraries break differently.
        minutes -= minutes in [round(limit * MINUTES_PER_DAY) for limit in LOS_LIMITS]
        uniform = np.random.default_rng(rng.getrandbits(64)).random
        procedures = _drawn(PROCEDURE_CODES, true.procedures, uniform(len(PROCEDURE_CODES)))
        diagnoses = _drawn(DIAGNOSIS_CODES, true.diagnoses, uniform(len(DIAGNOSIS_CODES)))
        return Outcome(
            died=died,
            minutes=minutes,
            ventilated_minutes=round(ventilated_days * MINUTES_PER_DAY),
            diagnoses=_with_reason_first(diagnoses, presentation.reason, rng),
            procedures=_with_ventilation(procedures, ventilated_days, rng),
            probabilities=true,
        )

    def _pull(self, value: float, centre: float) -> float:
        return centre + self._signal * (value - centre)

    def _predictors(self, presentation: Presentation) -> tuple[float, float, float, float]:
        """P(death), log-mean of the days, P(ventilation), log-mean of the ventilated days."""
        death = _DEATH_BASE + _DEATH_PER_DECADE * (presentation.age - 65) / 10
        stay, ventilation, ventilated = _STAY_CENTRE - 0.1, _VENTILATION_BASE, _VENTILATED_CENTRE
        first, *others = presentation.problems
        weighted: list[tuple[Condition, int, float]] = [
            (first.condition, first.step, 1.0),
            *((problem.condition, problem.step, 0.7) for problem in others),
            *((chronic, 0, 1.0) for chronic in presentation.chronic),
        ]
        for condition, step, share in weighted:
            effects = condition.effects
            death += share * (effects.death + (effects.death_per_grade + _DEATH_PER_STEP) * step)
            stay += share * (effects.log_days + _STAY_PER_STEP * step)
            ventilation += share * (effects.ventilation + effects.ventilation_per_grade * step)
            ventilated += share * (effects.log_ventilated_days + 0.12 * step)
        return (
            _logistic(self._pull(death, _DEATH_CENTRE)),
            self._pull(stay, _STAY_CENTRE),
            _logistic(self._pull(ventilation, _VENTILATION_CENTRE)),
            self._pull(ventilated, _VENTILATED_CENTRE),
        )


class _CodeModel:
    """Probability of each code of one dictionary, given the conditions that are present."""

    def __init__(self, names: tuple[str, ...], kind: str, incidental: Codes) -> None:
        index = {name: position for position, name in enumerate(names)}

        def log_absent(rows: Codes) -> Floats:
            logs = np.zeros(len(index))
            for code, probability in rows:
                logs[index[code]] += math.log1p(-probability)
            return logs

        self._absent = {row.name: log_absent(getattr(row, kind)) for row in CONDITIONS}
        self._incidental = log_absent(incidental) + math.log1p(-_RARE)
        # Of a random patient, roughly: only the centre depends on it.
        total = sum(row.weight for row in ACUTE.values())
        second = sum(row.complicates for row in ACUTE.values())
        shares = {
            row.name: row.weight / total + SECOND_PROBLEM * row.complicates / second
            for row in ACUTE.values()
        }
        shares |= {row.name: row.share for row in LASTING.values()}
        expected = np.zeros(len(index))
        for name, share in shares.items():
            expected += np.log1p(-share * -np.expm1(self._absent[name]))
        self._centre = _log_odds(1 - np.exp(self._incidental + expected))

    def probabilities(self, conditions: tuple[Condition, ...], signal: float) -> Floats:
        absent = self._incidental + sum(self._absent[condition.name] for condition in conditions)
        value = _log_odds(1 - np.exp(absent))
        pulled: Floats = 1 / (1 + np.exp(-(self._centre + signal * (value - self._centre))))
        return pulled


def _stay_classes(
    stay: float, ventilation: float, ventilated: float
) -> tuple[float, float, float, float]:
    """P(class): the stay is the longer of its own length and ventilation plus the turnover."""
    below = []
    for limit in LOS_LIMITS:
        own = _normal_cdf((math.log(limit) - stay) / _STAY_SPREAD)
        breathing = math.log(limit - _TURNOVER_AFTER_VENTILATION) - ventilated
        off = _normal_cdf(breathing / _VENTILATED_SPREAD)
        below.append(own * (1 - ventilation + ventilation * off))
    return below[0], below[1] - below[0], below[2] - below[1], 1 - below[2]


def _off_the_limits(days: float) -> float:
    """Move ventilated days off the stretch where rules with and without grace disagree."""
    for limit in (2.0 - _GRACE, PROLONGED_DAYS - _GRACE):
        if limit - 0.1 < days < limit + 0.35:
            days = limit + 0.35 if days >= limit else limit - 0.1
    return min(max(days, 0.2), _LONGEST_DAYS)


def _drawn(names: tuple[str, ...], probabilities: Floats, uniform: Floats) -> list[str]:
    return [names[position] for position in np.flatnonzero(uniform < probabilities)]


def _with_reason_first(drawn: list[str], reason: Acute, rng: random.Random) -> tuple[str, ...]:
    rng.shuffle(drawn)
    own = [code for code, _ in reason.diagnoses]
    return tuple(sorted(drawn, key=lambda code: (code != own[0], code not in own)))


def _with_ventilation(drawn: list[str], days: float, rng: random.Random) -> tuple[str, ...]:
    """Replace the drawn ventilation codes by those that the outcome implies."""
    kept = [code for code in drawn if code not in codes.VENTILATION_PROCEDURES]
    rng.shuffle(kept)
    intubation, under_96, over_96 = codes.VENTILATION_PROCEDURES
    intubated_here = rng.random() < _INTUBATED_HERE
    if days:
        kept.append(under_96 if days < 4 else over_96)
        kept += [intubation] * intubated_here
    return tuple(kept)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _log_odds(probability: Floats) -> Floats:
    bounded = np.clip(probability, 1e-6, 1 - 1e-6)
    odds: Floats = np.log(bounded / (1 - bounded))
    return odds
