"""A long note in pieces: one vector from all of them, and never half a note."""

import numpy as np
import pytest
import torch
from builders import random_batch, random_documents, random_llama
from hypothesis import given
from hypothesis import strategies as st

from notetune.model.adapters.specs import Prompt
from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import DOMAIN, Layer, stack

LENGTHS, PIECES = [9, 9, 4, 6, 12, 12, 12, 1], [3, 1, 4]
OF_ONE_PIECE = {"first": lambda h: h[:1], "last": lambda h: h[-1:], "mean": lambda h: h}


@pytest.mark.parametrize("pooling", OF_ONE_PIECE)
def test_a_note_is_the_mean_over_its_pieces_computed_one_by_one(tmp_path, pooling):
    backbone = load_backbone(str(random_llama(tmp_path)))
    model = stack(backbone, [Layer(DOMAIN, Prompt(virtual_tokens=2), is_trained=True)])
    documents = random_documents(LENGTHS)
    row = packed_batch(documents, range(8), pieces_N=PIECES)
    with torch.inference_mode():
        found = model.features(row, pooling)
        alone = [model.hidden_states(packed_batch([ids], [0])) for ids in documents]
        chosen = [OF_ONE_PIECE[pooling](hidden) for hidden in alone]
        notes = [chosen[:3], chosen[3:4], chosen[4:]]
        expected = torch.stack([torch.cat(pieces).mean(0) for pieces in notes])
    assert found.shape == (3, 32)
    assert (found - expected).abs().max() < 1e-5


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
    firsts = [7 + sum(pieces[:number]) for number in range(len(notes))]
    assert [n for half in halves for n in half.first_documents_N] == firsts


def test_each_document_is_a_note_where_nothing_is_said():
    row = random_batch([3, 5])
    assert row.pieces_N == (1, 1)
    assert row.first_documents_N.tolist() == row.documents_D.tolist()
