"""Who comes to the synthetic hospital: patients, and the latent conditions of each admission."""

import datetime as dt
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from notetune.hospital.conditions import ACUTE, LASTING, Acute, Chronic, Condition, Grade

MOST_CHRONIC = 3
SECOND_PROBLEM = 0.38
GRADES: tuple[Grade, ...] = (0, 1, 2)
GRADE_SHARES = (0.36, 0.42, 0.22)
ADMISSION_SHARES = (0.72, 0.19, 0.09)
"""Shares of patients with one, two and three planned admissions; a death ends the series."""

_ELDERLY, _YOUNGEST, _OLDEST = 65, 18, 96


@dataclass(frozen=True)
class Problem:
    """An acute condition with its grade."""

    condition: Acute
    grade: Grade

    @property
    def step(self) -> int:
        """-1, 0 or +1 for mild, moderate or severe."""
        return self.grade - 1


@dataclass(frozen=True)
class Patient:
    """What does not change from one admission to the next."""

    key: str
    sex: Literal["F", "M"]
    age: int
    first_admission: dt.datetime


@dataclass(frozen=True)
class Presentation:
    """An admission as it stands on arrival: everything that the admission text may tell.

    Admissions are numbered from 0. One or two acute problems have the reason for it first.
    """

    patient: Patient
    number: int
    age: int
    admitted: dt.datetime
    problems: tuple[Problem, ...]
    chronic: tuple[Chronic, ...]

    @property
    def reason(self) -> Acute:
        """The reason for admission."""
        return self.problems[0].condition

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Acute and chronic conditions together."""
        return (*(problem.condition for problem in self.problems), *self.chronic)

    @property
    def worst_grade(self) -> Grade:
        """The grade of the gravest acute problem."""
        return max(problem.grade for problem in self.problems)

    def rng(self, use: str) -> random.Random:
        """Random numbers of this admission for one use: always the same."""
        return random.Random(f"{self.patient.key}/{self.number}/{use}")


def sample_patient(key: str) -> Patient:
    """Draw a patient; the same key always gives the same one."""
    rng = random.Random(f"{key}/patient")
    age = round(rng.gauss(64, 17))
    day = dt.datetime(2105, 1, 1) + dt.timedelta(days=rng.randrange(80 * 365))  # noqa: DTZ001
    return Patient(
        key=key,
        sex=rng.choice(("F", "M")),
        age=min(max(age, _YOUNGEST), _OLDEST),
        first_admission=day + dt.timedelta(minutes=rng.randrange(24 * 60)),
    )


def planned_admissions(patient: Patient) -> int:
    """How often the patient would be admitted if no stay ended in death."""
    drawn = random.Random(f"{patient.key}/admissions").random()
    first, second, _ = ADMISSION_SHARES
    return 1 + (drawn > first) + (drawn > first + second)


def presentations(patient: Patient, planned: int) -> Iterator[Presentation]:
    """Yield the patient's admissions in order of time; stop asking when the patient has died."""
    rng = random.Random(f"{patient.key}/life")
    admitted = patient.first_admission
    chronic = _first_chronic(patient, rng)
    for number in range(planned):
        age = patient.age + (admitted - patient.first_admission).days // 365
        problems = _problems(age, chronic, rng)
        left = (name for problem in problems for name in problem.condition.leaves)
        chronic = dict.fromkeys(left) | chronic
        lasting = tuple(LASTING[name] for name in list(chronic)[:MOST_CHRONIC])
        yield Presentation(patient, number, age, admitted, problems, lasting)
        # At least 130 days apart, so that no stay reaches into the next one.
        gap = math.exp(rng.uniform(math.log(130), math.log(1100)))
        admitted += dt.timedelta(minutes=round(gap * 24 * 60))


def _first_chronic(patient: Patient, rng: random.Random) -> dict[str, None]:
    decades = (patient.age - _ELDERLY) / 10
    rows = list(LASTING.values())
    rng.shuffle(rows)
    chosen = []
    for row in rows:
        odds = row.share / (1 - row.share) * math.exp(row.per_decade * decades)
        if rng.random() < odds / (1 + odds):
            chosen.append(row.name)
    return dict.fromkeys(chosen[:MOST_CHRONIC])


def _problems(age: int, chronic: dict[str, None], rng: random.Random) -> tuple[Problem, ...]:
    rows = [row for row in ACUTE.values() if not any(name in chronic for name in row.spares)]
    (first,) = rng.choices(rows, [_weight_at(row, age, chronic) for row in rows])
    problems = [Problem(first, *rng.choices(GRADES, GRADE_SHARES))]
    if rng.random() < SECOND_PROBLEM and not first.elective:
        others = [row for row in rows if row is not first and row.complicates]
        (second,) = rng.choices(others, [row.complicates for row in others])
        problems.append(Problem(second, *rng.choices(GRADES, GRADE_SHARES)))
    return tuple(problems)


def _weight_at(row: Acute, age: int, chronic: dict[str, None]) -> float:
    mean, deviation = row.age
    fit = math.exp(-0.5 * ((age - mean) / deviation) ** 2)
    boost = 3.0 if any(name in chronic for name in row.boosts) else 1.0
    return row.weight * boost * max(fit, 1e-6)
