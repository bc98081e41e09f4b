import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.notes.clean import clean_text

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("mark", BREAKS)
def test_every_line_break_becomes_one_line_feed(mark):
    assert clean_text(f"a{mark}b{mark}{mark}c") == "a\nb\n\nc"


def test_two_hundred_notes_with_a_lone_return_stay_two_hundred_records():
    notes = [f"FINDINGS: none\rIMPRESSION: {n}" for n in range(200)]
    cleaned = [clean_text(note) for note in notes]
    assert len({note.splitlines()[1] for note in cleaned}) == 200
    assert not any("\r" in note for note in cleaned)


def test_control_characters_go_and_everything_clinical_stays():
    assert clean_text("\ufeffBP\x00 120\x1b/80\x7f\x9f") == "BP 120/80"
    kept = "Dose:\t5 mg (\u00b5g)\n\n[**Known lastname 12**] is ___ y/o, 37.2\u00b0C, \u05d0"
    assert clean_text(kept) == kept


def test_spaces_at_line_ends_and_blank_edges_go():
    assert clean_text(" \nName:  ___  \n \nSex: F\t\n\n ") == "Name:  ___\n\nSex: F"


def test_mark_ends_become_spaces_only_on_request():
    assert clean_text("Dr. [**Last Name**]x") == "Dr. [**Last Name**]x"
    assert clean_text("Dr. [**Last Name**]x", open_marks=True) == "Dr.  Last Name x"


def test_a_lone_surrogate_becomes_writable():
    assert clean_text("a\ud800b").encode() == "a\ufffdb".encode()


def test_a_long_run_of_spaces_takes_linear_time():
    assert clean_text("a" + " " * 2_000_000 + "b").count(" ") == 2_000_000


PIECES = st.characters() | st.sampled_from([*BREAKS, " ", "\t", "[**", "**]", "\ud800"])


@given(st.lists(PIECES).map("".join))
def test_the_result_is_writable_and_cleaning_it_again_changes_nothing(text):
    for open_marks in (False, True):
        cleaned = clean_text(text, open_marks=open_marks)
        cleaned.encode()
        assert clean_text(cleaned, open_marks=open_marks) == cleaned
        assert cleaned.split("\n") == [line.rstrip() for line in cleaned.split("\n")]
        assert len(cleaned.splitlines()) <= cleaned.count("\n") + 1
