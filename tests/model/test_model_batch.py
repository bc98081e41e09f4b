import numpy as np
import pytest
import torch
from builders import random_batch, random_documents, random_llama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from notetune.errors import BackboneError
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import stack


@pytest.fixture(scope="module", params=[4, 2, 1], ids=["mha", "gqa", "mqa"])
def folder(request, tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"), kv_heads=request.param)


@pytest.fixture(scope="module")
def backbone(folder) -> Backbone:
    backbone = load_backbone(str(folder))
    backbone.model.double()
    return backbone


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_packed_logits_equal_those_of_plain_transformers_one_by_one(backbone, plain, lengths, seed):
    documents = random_documents(lengths, seed)
    with torch.inference_mode():
        batch = packed_batch(documents, range(len(documents)))
        packed = backbone.logits(backbone.hidden_states(batch))
        one_by_one = [plain(torch.from_numpy(ids)[None]).logits[0] for ids in documents]
    assert packed.shape == (sum(lengths), backbone.model.config.vocab_size)
    assert (packed - torch.cat(one_by_one)).abs().max() < 1e-6


def test_summed_loss_equals_the_sum_of_plain_transformers_losses(backbone, plain):
    lengths = [7, 30, 2, 19, 7]
    documents = random_documents(lengths)
    with torch.inference_mode():
        got = stack(backbone).summed_token_loss(packed_batch(documents, range(5)))
        expected = 0.0
        for ids in documents:
            tokens = torch.from_numpy(ids)[None]
            expected += plain(tokens, labels=tokens).loss.item() * (len(ids) - 1)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_targets_are_all_tokens_but_the_first_of_each_document():
    batch = random_batch([3, 1, 4])
    assert batch.context_T.tolist() == [0, 1, 4, 5, 6]
    assert batch.target_count == 5
    assert batch.document_T.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert batch.last_D.tolist() == [2, 3, 7]


def test_a_padded_batch_is_refused_instead_of_leaking(backbone):
    with pytest.raises(BackboneError, match="its documents"):
        backbone.model(input_ids=torch.ones(2, 4, dtype=torch.long))


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
