"""The oracle counts pairs, and knows nothing where there is nothing to know."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.hospital import SyntheticConfig, write_hospital
from notetune.hospital.oracle import auroc


def test_without_signal_the_oracle_is_blind(tmp_path):
    config = SyntheticConfig(patients=150, mimic4_patients=0, signal=0.0)
    truth = write_hospital(tmp_path / "h", config)
    assert set(truth.oracle["mimic3"]) == {"MOR", "LOS", "PMV", "DIAG", "PROC"}
    assert all(value == 0.5 for value in truth.oracle["mimic3"].values())
    assert set(truth.oracle["mimic4"].values()) == {None}


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40),
)
def test_the_rank_formula_equals_counting_pairs(data):
    labels = np.array([label for label, _ in data])
    scores = np.array([float(score) for _, score in data])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert auroc(labels, scores) == (pytest.approx(np.mean(pairs)) if pairs else None)
