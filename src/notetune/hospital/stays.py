"""An admission with its outcome and its times: what the tables and the notes are written from."""

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass

from notetune.hospital.outcome_model import MINUTES_PER_DAY, Outcome, OutcomeModel
from notetune.hospital.patients import Patient, Presentation, planned_admissions, presentations

_SECOND_EPISODE = 0.15
_SHORT_OF_THE_LIMIT = 1.5  # days of ventilation below which nobody is extubated and intubated again


@dataclass(frozen=True)
class Stay:
    """One admission as on arrival and as it ended, with the start and end of what was in it.

    `ventilation` has episodes within `icu`, in order of time, and `icu` is within the admission.
    """

    presentation: Presentation
    outcome: Outcome
    icu: tuple[dt.datetime, dt.datetime]
    ventilation: tuple[tuple[dt.datetime, dt.datetime], ...]

    @property
    def admitted(self) -> dt.datetime:
        """Time of admission."""
        return self.presentation.admitted

    @property
    def discharged(self) -> dt.datetime:
        """Time of discharge or death."""
        return self.admitted + dt.timedelta(minutes=self.outcome.minutes)

    @property
    def died_at(self) -> dt.datetime | None:
        """Time of death, if in hospital."""
        return self.discharged if self.outcome.died else None

    @property
    def icu_days(self) -> float:
        """Days in intensive care."""
        return _days(*self.icu)

    @property
    def ventilated_days(self) -> float:
        """From the first start to the last end; 0 without."""
        return _days(self.ventilation[0][0], self.ventilation[-1][1]) if self.ventilation else 0.0


def stays_of(patient: Patient, model: OutcomeModel) -> Iterator[Stay]:
    """Yield a patient's admissions up to the planned number or to death."""
    for presentation in presentations(patient, planned_admissions(patient)):
        stay = stay_with(presentation, model.sample(presentation))
        yield stay
        if stay.outcome.died:
            return


def stay_with(presentation: Presentation, outcome: Outcome) -> Stay:
    """Place intensive care and ventilation within the admission."""
    rng = presentation.rng("times")
    discharged = presentation.admitted + dt.timedelta(minutes=outcome.minutes)
    icu_in = presentation.admitted + dt.timedelta(minutes=rng.randint(1, 180))
    start = icu_in + dt.timedelta(minutes=rng.randint(5, 120))
    end = start + dt.timedelta(minutes=outcome.ventilated_minutes)
    share = discharged if outcome.died else icu_in + (discharged - icu_in) * rng.uniform(0.2, 0.8)
    icu_out = min(discharged, max(share, end + dt.timedelta(hours=3)))
    icu = icu_in, _on_the_minute(icu_out)
    return Stay(presentation, outcome, icu, tuple(_episodes(start, end, rng)))


def _episodes(
    start: dt.datetime, end: dt.datetime, rng: random.Random
) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    if start == end:
        return
    if rng.random() >= _SECOND_EPISODE or _days(start, end) <= _SHORT_OF_THE_LIMIT:
        yield start, end
        return
    pause = _on_the_minute(start + (end - start) * rng.uniform(0.3, 0.6))
    yield start, pause
    yield pause + dt.timedelta(hours=rng.randint(9, 14)), end


def _days(start: dt.datetime, end: dt.datetime) -> float:
    return (end - start).total_seconds() / 60 / MINUTES_PER_DAY


def _on_the_minute(time: dt.datetime) -> dt.datetime:
    return time.replace(second=0, microsecond=0)
