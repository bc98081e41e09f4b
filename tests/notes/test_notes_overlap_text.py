"""Texts are the same whatever their case, space and marks."""

from notetune.notes.overlap_text import normalised_text

TEXTS = ["Chest pain.", "chest  PAIN.\n", "Chest [**Known lastname 1**] pain.", "Fever", "Cough"]


def test_texts_that_differ_in_case_space_or_marks_are_the_same():
    assert len({normalised_text(text) for text in TEXTS}) == 3
    assert normalised_text("seen ___ at\n[**Hospital1\n18**]") == "seen at"
    assert normalised_text("a [**" + "x" * 500) == "a [**" + "x" * 500
    assert normalised_text("a _ b") == "a _ b"


def test_many_marks_that_never_close_take_linear_time():
    assert normalised_text("[**" * 100_000).count("[**") == 100_000
