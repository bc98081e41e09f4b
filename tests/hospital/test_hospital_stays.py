"""Stays of one patient follow each other, and their times lie within each other."""

import itertools

from samples import stays

from notetune.hospital.outcome_model import OutcomeModel
from notetune.hospital.patients import presentations, sample_patient
from notetune.hospital.stays import stays_of


def test_lasting_conditions_stay_and_a_death_ends_the_series():
    several = 0
    for index in range(200):
        patient = sample_patient(f"0/series/{index}")
        visits = list(presentations(patient, 3))
        for before, after in itertools.pairwise(visits):
            assert (after.admitted - before.admitted).days >= 130
            assert len(after.chronic) >= len(before.chronic)
            assert after.age >= before.age
        real = list(stays_of(patient, OutcomeModel(1.0)))
        assert not any(stay.outcome.died for stay in real[:-1])
        several += len(real) > 1
    assert several > 30


def test_times_lie_within_each_other():
    ventilated = 0
    for stay, _ in stays(300):
        assert stay.admitted < stay.icu[0] < stay.icu[1] <= stay.discharged
        moments = [time for episode in stay.ventilation for time in episode]
        assert moments == sorted(moments)
        if moments:
            ventilated += 1
            assert stay.icu[0] <= moments[0]
            assert moments[-1] <= stay.icu[1]
    assert ventilated > 60
