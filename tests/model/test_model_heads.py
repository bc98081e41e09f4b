"""One vector of each note, and the head on it."""

import pytest
import torch
from builders import random_documents, random_llama

from notetune.model.adapters.specs import Prompt
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.batch import packed_batch
from notetune.model.heads import Head, pool
from notetune.model.stack import DOMAIN, Layer, stack

LENGTHS, PIECES = [9, 9, 4, 6, 12, 12, 12, 1], [3, 1, 4]
OF_ONE_PIECE = {"first": lambda h: h[:1], "last": lambda h: h[-1:], "mean": lambda h: h}


@pytest.fixture(scope="module", params=[4, 2, 1], ids=["mha", "gqa", "mqa"])
def folder(request, tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"), kv_heads=request.param)


@pytest.fixture(scope="module")
def backbone(folder) -> Backbone:
    backbone = load_backbone(str(folder))
    backbone.model.double()
    return backbone


def test_outcome_logits_equal_plain_transformers_classification(folder, backbone):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    with torch.no_grad():
        head = Head(plain.score.weight, torch.zeros(3))
        documents = random_documents([5, 17, 1])
        batch = packed_batch(documents, range(3))
        packed = head(pool(backbone.hidden_states(batch), batch, "last"))
        one_by_one = [plain(torch.from_numpy(ids)[None]).logits[0] for ids in documents]
    assert (packed - torch.stack(one_by_one)).abs().max() < 1e-5


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
