import numpy as np
import pytest

from notetune.metrics.losses import DocumentLosses, judged

PATIENTS = 40


def losses(mean, rng=None, patients_D=None):
    """Losses of a hundred documents, which differ by patient and not within one."""
    rng = rng or np.random.default_rng(0)
    patients_D = rng.integers(PATIENTS, size=100) if patients_D is None else patients_D
    targets_D = rng.integers(4, 50, size=100)
    nats_D = targets_D * (mean + rng.normal(size=PATIENTS)[patients_D])
    return DocumentLosses(patients_D.astype(np.str_), nats_D, targets_D)


def test_the_interval_is_that_of_resampled_patients():
    rng = np.random.default_rng(1)
    patients_D = rng.integers(PATIENTS, size=100)
    one = losses(3, rng, patients_D)
    draws = []
    for _ in range(4_000):
        drawn = rng.choice(np.unique(patients_D), size=len(np.unique(patients_D)))
        rows = np.concatenate([np.flatnonzero(patients_D == patient) for patient in drawn])
        draws.append(np.exp(one.nats_D[rows].sum() / one.targets_D[rows].sum()))
    expected = np.quantile(draws, (0.025, 0.975))
    assert judged({"one": one})["one"].interval == pytest.approx(expected, rel=0.03)


def test_methods_are_held_against_each_other_document_by_document():
    one = losses(3)
    shift_D = 0.05 * one.targets_D * (1 + np.random.default_rng(2).normal(size=100) / 10)
    lower = DocumentLosses(one.patient_ids_D, one.nats_D - shift_D, one.targets_D)
    found = judged({"one": one, "lower": lower})
    assert found["lower"].interval[1] > found["one"].interval[0]  # which alone tells nothing
    assert [found[name].standing for name in ("one", "lower")] == ["worse", "best"]


def test_methods_that_patients_order_either_way_are_tied():
    one, rng = losses(3), np.random.default_rng(3)
    noise_D = one.targets_D * rng.normal(size=PATIENTS)[one.patient_ids_D.astype(int)] / 10
    other = DocumentLosses(one.patient_ids_D, one.nats_D + noise_D, one.targets_D)
    assert {found.standing for found in judged({"a": one, "b": other}).values()} == {"tied"}


def test_one_method_has_no_standing_and_one_patient_no_interval():
    one = losses(3)
    assert judged({"one": one})["one"].standing is None
    assert judged({"one": DocumentLosses(np.full(100, "p"), one.nats_D, one.targets_D)}) == {}
    assert judged({}) == {}
