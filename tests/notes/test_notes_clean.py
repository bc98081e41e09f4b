import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.audit import IN_ALL
from notetune.notes.clean import clean_text, cleaned, with_plain_characters

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


def test_invisible_marks_go_within_a_word_and_part_all_else():
    assert clean_text("hyper\u00adten\u200dsion c\u0301\u2060a\u00ad\u200cb\u2062.") == (
        "hypertension c\u0301ab ."
    )
    assert clean_text("5\u00ad10 mg q\u00ad6h, \u4e09\u200d\u4e94, 1.\u00ad5") == (
        "5 10 mg q 6h, \u4e09 \u4e94, 1. 5"
    )
    persian, hindi = "\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0915\u094d\u200d\u0937"
    assert clean_text(f"{persian} {hindi}") == f"{persian} {hindi}"
    assert clean_text("\u0645\u00ad\u200c\u0631") == "\u0645\u200c\u0631"


def test_full_width_numbers_become_plain_and_a_full_stop_between_two_stays():
    assert clean_text("\uff22\uff30\uff11\uff12\uff10\uff0f8\uff10\uff0e\uff15\uff4d\uff47") == (
        "BP120\uff0f80\uff0e5mg"
    )


def test_unusual_spaces_become_plain_ones():
    assert clean_text("a\u00a0b\u2009\u202f5\u300010 x10\u2079") == "a b  5 10 x10\u2079"


KINDS = {
    "\ra\u2028b\fc": "unusual line breaks made plain",
    "a\x00b\x96": "control characters replaced",
    "a\ud800": "halves of characters replaced",
    "\uff15": "full-width characters narrowed",
    "a\u2003b": "unusual spaces made plain",
    "a\ufeffb\u200b": "byte order marks and zero-width spaces made plain",
    "a\u00adb": "soft hyphens and joiners taken out",
}


def test_each_kind_of_change_is_named_and_what_is_no_change_is_not():
    for text, name in KINDS.items():
        assert cleaned(text).changes == (IN_ALL, name)
    assert cleaned("".join(KINDS)).changes == (IN_ALL, *KINDS.values())
    for unchanged in (
        " a \r\nb\t\n\n",
        "\u0645\u200c\u0631",
        "\u00b5g \u2013 \u05d0",
        "10\u2079",
        "",
    ):
        assert cleaned(unchanged).changes == ()


def test_published_texts_keep_their_line_breaks_and_the_space_beside_them():
    assert with_plain_characters("a \r\n5\x00\u00ad10: \r\x96\f") == "a \r\n5  10: \r\u2013\f"


CHANGED = [
    character for character in map(chr, range(sys.maxunicode + 1)) if cleaned(character).changes
]
WIDE_DIGITS = [*map(chr, range(0xFF10, 0xFF1A))]
OTHERS = (
    *"\u2028\u2029\ufeff\u200b\u00a0\u1680\u202f\u205f\u3000\u00ad\u200c\u200d",
    *map(chr, (*range(0x2000, 0x200B), *range(0x2060, 0x2065))),
)


def test_no_changed_character_of_all_but_a_digit_joins_the_numbers_beside_it():
    # C0 but tab and line feed, DEL and C1, halves, full-width digits and letters, and the others.
    assert len(CHANGED) == 30 + 33 + 2048 + 62 + len(OTHERS)
    for character in CHANGED:
        between = clean_text(f"1{character}2")[1:-1]
        assert between != ""
        assert between.isdecimal() == (character in WIDE_DIGITS)


PARTING = sorted({*CHANGED} - {*WIDE_DIGITS, *map(chr, range(0xD801, 0xE000))})


@given(st.lists(st.text("019", min_size=1), min_size=2), st.data())
def test_numbers_stay_apart_whatever_run_of_changed_characters_parts_them(numbers, data):
    apart = st.text(PARTING, min_size=1, max_size=4)
    text = numbers[0] + "".join(data.draw(apart) + number for number in numbers[1:])
    assert re.findall(r"\d+", clean_text(text)) == numbers


def test_spaces_at_line_ends_and_blank_edges_go():
    assert clean_text(" \nName:  ___  \n \nSex: F\t\n\n ") == "Name:  ___\n\nSex: F"


def test_marks_stay():
    assert clean_text("Dr. [**Last Name**]x") == "Dr. [**Last Name**]x"


def test_a_lone_surrogate_becomes_writable():
    assert clean_text("a\ud800b").encode() == "a\ufffdb".encode()


def test_a_long_run_of_spaces_takes_linear_time():
    assert clean_text("a" + " " * 2_000_000 + "b").count(" ") == 2_000_000


PIECES = st.characters() | st.sampled_from(
    [*BREAKS, " ", "\t", "[**", "**]", "\ud800", "\u00ad", "\u200c", "\uff15", "\u0645", "a"]
)


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
