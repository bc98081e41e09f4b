"""Conditions use codes that have titles and boost conditions that are there."""

from samples import EVERY_CONDITION

from notetune.hospital import codes
from notetune.hospital.conditions import ACUTE, LASTING, Acute


def test_every_code_of_a_condition_is_in_the_dictionary():
    known = {"diagnoses": set(codes.DIAGNOSIS_TITLES), "procedures": set(codes.PROCEDURE_TITLES)}
    assert len(EVERY_CONDITION) == len(ACUTE) + len(LASTING) == 37
    for row in EVERY_CONDITION:
        for kind, names in known.items():
            assert {code for code, _ in getattr(row, kind)} <= names
        if isinstance(row, Acute):
            assert all(row.grades)
            assert {*row.boosts, *row.leaves, *row.spares} <= set(LASTING)
