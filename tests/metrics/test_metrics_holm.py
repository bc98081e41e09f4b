"""Holm's adjustment, by hand."""

import pytest

from notetune.metrics.holm import holm


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    # What could not be tested makes the family larger.
    assert holm([None, 0.01, None]) == [None, pytest.approx(0.03), None]
