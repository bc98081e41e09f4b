import itertools

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from notetune.notes.overlap import (
    Finding,
    normalised_text,
    shared_patients,
    shared_texts,
    split_findings,
)

TEXTS = ["Chest pain.", "chest  PAIN.\n", "Chest [**Known lastname 1**] pain.", "Fever", "Cough"]
SPLITS = ["train", "validation", "test"]


def test_texts_that_differ_in_case_space_or_marks_are_the_same():
    assert len({normalised_text(text) for text in TEXTS}) == 3
    assert normalised_text("seen ___ at\n[**Hospital1\n18**]") == "seen at"
    assert normalised_text("a [**" + "x" * 500) == "a [**" + "x" * 500
    assert normalised_text("a _ b") == "a _ b"


def test_many_marks_that_never_close_take_linear_time():
    assert normalised_text("[**" * 100_000).count("[**") == 100_000


def test_clean_splits_give_six_findings_of_zero():
    table = pl.DataFrame({"patient_id": ["1", "2", "3"], "split": SPLITS, "text": TEXTS[2:]})
    findings = split_findings(table)
    assert len(findings) == 6
    assert {(f.split_a, f.split_b) for f in findings} == set(itertools.combinations(SPLITS, 2))
    assert all(f.count == 0 and f.share == 0.0 and not f.blocks for f in findings)


def test_one_patient_on_two_sides_blocks_and_a_repeated_text_does_not():
    table = pl.DataFrame(
        {
            "patient_id": ["1", "2", "1", "3", "4", "4"],
            "split": ["train", "train", "test", "test", "test", "test"],
            "text": [TEXTS[0], "Fever", "Cough", TEXTS[1], TEXTS[2], "Rash"],
        }
    )
    found = [finding for finding in split_findings(table) if finding.count]
    assert found == [
        Finding("same patient", "train", "test", 1, 1 / 3, blocks=True),
        Finding("same text", "train", "test", 2, 2 / 4, blocks=False),
    ]


@given(st.lists(st.sampled_from(TEXTS)), st.lists(st.sampled_from(TEXTS)))
def test_the_count_of_shared_texts_is_that_of_comparing_every_pair(ours, theirs):
    finding = shared_texts("corpus", theirs, "test", ours)
    same = [any(normalised_text(a) == normalised_text(b) for b in theirs) for a in ours]
    assert finding.count == sum(same)
    assert finding.share == (sum(same) / len(ours) if ours else 0.0)


def test_patients_are_counted_once_however_many_notes_they_have():
    finding = shared_patients("corpus", ["1", "1", "2"], "test", ["2", "2", "2", "3"])
    assert finding == Finding("same patient", "corpus", "test", 1, 0.5, blocks=True)
