import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.notes.clean import clean_text

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\u2028", "\u2029"]


@pytest.mark.parametrize("mark", BREAKS)
def test_every_line_break_becomes_one_line_feed(mark):
    assert clean_text(f"a{mark}b{mark}{mark}c") == "a\nb\n\nc"


def test_two_hundred_notes_with_a_lone_return_stay_two_hundred_records():
    notes = [f"FINDINGS: none\rIMPRESSION: {n}" for n in range(200)]
    cleaned = [clean_text(note) for note in notes]
    assert len({note.splitlines()[1] for note in cleaned}) == 200
    assert not any("\r" in note for note in cleaned)


def test_control_characters_become_spaces_and_everything_clinical_stays():
    assert clean_text("\ufeffBP\x00120\x1b/80\x7f\x1c") == "BP 120 /80"
    assert clean_text("5\ufeff10 mg") == "5 10 mg"
    kept = "Dose:\t5 mg (\u00b5g)\n\n[**Known lastname 12**] is ___ y/o, 37.2\u00b0C, \u05d0"
    assert clean_text(kept) == kept


def test_what_was_windows_1252_is_read_as_such():
    assert clean_text("5\x9610 mg\x85 \x93stable\x94, 20\x80, \x95x") == (
        "5\u201310 mg\u2026 \u201cstable\u201d, 20\u20ac, \u2022x"
    )
    undefined = [0x81, 0x8D, 0x8F, 0x90, 0x9D]
    for code in range(0x80, 0xA0):
        expected = " " if code in undefined else bytes([code]).decode("cp1252")
        assert clean_text(f"a{chr(code)}b") == f"a{expected}b"


def test_spaces_at_line_ends_and_blank_edges_go():
    assert clean_text(" \nName:  ___  \n \nSex: F\t\n\n ") == "Name:  ___\n\nSex: F"


def test_marks_stay():
    assert clean_text("Dr. [**Last Name**]x") == "Dr. [**Last Name**]x"


def test_a_lone_surrogate_becomes_writable():
    assert clean_text("a\ud800b").encode() == "a\ufffdb".encode()


def test_a_long_run_of_spaces_takes_linear_time():
    assert clean_text("a" + " " * 2_000_000 + "b").count(" ") == 2_000_000


PIECES = st.characters() | st.sampled_from([*BREAKS, " ", "\t", "[**", "**]", "\ud800"])


@given(st.lists(PIECES).map("".join))
def test_the_result_is_writable_and_cleaning_it_again_changes_nothing(text):
    cleaned = clean_text(text)
    cleaned.encode()
    assert clean_text(cleaned) == cleaned
    assert cleaned.split("\n") == [line.rstrip() for line in cleaned.split("\n")]
    assert len(cleaned.splitlines()) <= cleaned.count("\n") + 1


CONTROLS = [*map(chr, (*range(0x20), *range(0x7F, 0xA0), 0xFEFF, 0x2028, 0x2029))]


@given(st.lists(st.text("ab019.", min_size=1), min_size=2), st.data())
def test_words_and_numbers_that_control_characters_part_never_run_together(words, data):
    apart = st.text(st.sampled_from(CONTROLS), min_size=1)
    text = words[0] + "".join(data.draw(apart) + word for word in words[1:])
    assert re.findall(r"[ab019.]+", clean_text(text)) == words
