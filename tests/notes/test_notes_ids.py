"""One number in several spellings is one id."""

import pytest

from notetune.notes.ids import bare_id, nearly_among


@pytest.mark.parametrize(
    ("name", "bare"),
    [("007", "7"), ("7.0", "7"), ("0", "0"), ("000", "0"), ("70", "70"), ("7.5", "7.5"), ("", "")],
)
def test_zeros_before_and_point_zero_behind_are_no_part_of_an_id(name, bare):
    assert bare_id(name) == bare


def test_only_other_spellings_of_known_numbers_are_nearly_known():
    assert nearly_among(["7", "8", "MRN7", "9"], ["007", "8", "mrn7"]) == 1
