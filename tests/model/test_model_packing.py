"""Packed rows compute what plain transformers computes on one document at a time."""

import pytest
import torch
from builders import random_documents, random_llama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from notetune.errors import BackboneError
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.batch import packed_batch


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
        packed = backbone.head(backbone.hidden_states(batch))
        one_by_one = [plain(torch.from_numpy(ids)[None]).logits[0] for ids in documents]
    assert packed.shape == (sum(lengths), backbone.model.config.vocab_size)
    assert (packed - torch.cat(one_by_one)).abs().max() < 1e-6


def test_a_padded_batch_is_refused_instead_of_leaking(backbone):
    with pytest.raises(BackboneError, match="its documents"):
        backbone.model(input_ids=torch.ones(2, 4, dtype=torch.long))
