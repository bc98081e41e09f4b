"""Sentences of notes: spans that are the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.notes.sentences import sentences


def pieces(text, most=99):
    return [text[start:end] for start, end in sentences(text, most)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Died. Was ill!  Why? unknown", ["Died. ", "Was ill!  ", "Why? ", "unknown"]),
        ("Plan:\n1. aspirin\n2. rest\n", ["Plan:\n", "1. aspirin\n", "2. rest\n"]),
        (
            "Seen by Dr. Quill and Mrs. Feather. Stable",
            ["Seen by Dr. Quill and Mrs. Feather. ", "Stable"],
        ),
        ("BP 120.5 fell vs. 130", ["BP 120.5 fell vs. 130"]),
        ("one line\n\n\nnext\n - \n", ["one line\n\n\n", "next\n - \n"]),
        ("12 . 3", ["12 . 3"]),
        ("患者男性。既往病史。 治疗", ["患者男性。", "既往病史。 ", "治疗"]),
        ("बुखार है। दर्द है", ["बुखार है। ", "दर्द है"]),
    ],
)
def test_a_note_is_cut_where_a_reader_would(text, expected):
    assert pieces(text) == expected


@given(st.text(alphabet="ab1. \n!é。", max_size=60), st.integers(1, 5))
def test_the_pieces_are_the_text_and_few_enough(text, most):
    found = pieces(text, most)
    assert "".join(found) == text
    assert 1 <= len(found) <= most


def test_of_a_long_note_neighbours_stand_together_in_like_lengths():
    lengths = [len(piece) for piece in pieces("A few words here. " * 100, 10)]
    assert len(lengths) == 10
    assert max(lengths) <= 2 * min(lengths)
