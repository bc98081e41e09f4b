"""A packed row knows its documents, its targets and the pieces of each note."""

import numpy as np
import torch
from builders import random_batch, random_documents
from hypothesis import given
from hypothesis import strategies as st

from notetune.model.batch import packed_batch


def test_targets_are_all_tokens_but_the_first_of_each_document():
    batch = random_batch([3, 1, 4])
    assert batch.context_T.tolist() == [0, 1, 4, 5, 6]
    assert batch.target_count == 5
    assert batch.document_T.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert batch.last_D.tolist() == [2, 3, 7]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=6))
def test_halves_are_whole_notes_in_order(notes):
    lengths = [length for note in notes for length in note]
    pieces = [len(note) for note in notes]
    row = packed_batch(random_documents(lengths), np.arange(len(lengths)) + 7, pieces_N=pieces)
    halves = row.halves()
    assert len(halves) == min(2, len(notes))
    assert [n for half in halves for n in half.pieces_N] == pieces
    assert [n for half in halves for n in half.lengths_D] == lengths
    assert [n for half in halves for n in half.documents_D] == row.documents_D.tolist()
    assert torch.equal(torch.cat([half.ids_T for half in halves]), row.ids_T)
    assert torch.equal(torch.cat([half.positions_T for half in halves]), row.positions_T)
    assert sum(half.target_count for half in halves) == row.target_count
    of_notes = list(map(sum, notes))
    apart = [abs(sum(of_notes[:cut]) - sum(of_notes[cut:])) for cut in range(1, len(notes))]
    sizes = [len(half.ids_T) for half in halves]
    assert len(halves) == 1 or abs(sizes[0] - sizes[1]) == min(apart)
    firsts = [7 + sum(pieces[:number]) for number in range(len(notes))]
    assert [n for half in halves for n in half.first_documents_N] == firsts


def test_each_document_is_a_note_where_nothing_is_said():
    row = random_batch([3, 5])
    assert row.pieces_N == (1, 1)
    assert row.first_documents_N.tolist() == row.documents_D.tolist()
