import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import random_llama, small_store
from transformers import AutoModelForCausalLM

from notetune import infer
from notetune.model.backbone import load_backbone
from notetune.model.stack import stack
from notetune.tokens.edges import Edges
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import encode_notes

TEXTS = ["one note", "another, somewhat longer note " * 3, "x", "four words are here", "é" * 30]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infer")
    backbone = random_llama(folder / "backbone")
    return folder, small_store(folder / "store", backbone, TEXTS, splits=["test"] * 5)


@pytest.mark.parametrize("tokens_per_row", [64, 4096])
@pytest.mark.parametrize("edges", [Edges(None, 1), Edges(0, 1), Edges(1, 1)])
def test_packed_documents_are_predicted_as_by_plain_transformers_alone(
    parts, edges, tokens_per_row
):
    folder, _ = parts
    store = encode_notes(load_encoder(folder / "backbone", edges), 40, TEXTS)
    documents = np.arange(len(store.lengths_D))
    plain = AutoModelForCausalLM.from_pretrained(folder / "backbone").eval()
    nats, targets = 0.0, 0
    with torch.inference_mode():
        for number in documents:
            ids = torch.from_numpy(store.document(int(number)))[None]
            nats += plain(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            targets += ids.shape[1] - 1
    model = stack(load_backbone(str(folder / "backbone")))
    losses = infer.document_losses(model, store, documents, tokens_per_row)
    got = infer.perplexity(store, documents, losses)
    tokens = sum(len(text.encode()) + 1 for text in TEXTS)  # one more ends each
    assert got.targets == targets == tokens - (len(documents) if edges.opener_id is None else 0)
    assert got.perplexity == pytest.approx(math.exp(nats / targets), rel=1e-5)
    text_bytes = sum(len(text.encode()) for text in TEXTS)
    assert got.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-5)


def test_the_batch_mean_gives_every_batch_of_ten_documents_the_same_weight(parts, tmp_path):
    folder, _ = parts
    texts = [f"{number} note" * (1 + 3 * (number % 4)) for number in range(23)]
    store = small_store(tmp_path, folder / "backbone", texts, splits=["test"] * 23)
    documents = store.documents_of("test")
    plain = AutoModelForCausalLM.from_pretrained(folder / "backbone").eval()
    means = []
    with torch.inference_mode():
        for start in range(0, len(documents), 10):
            nats, targets = 0.0, 0
            for number in documents[start : start + 10]:
                ids = torch.from_numpy(store.document(int(number)))[None]
                nats += plain(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
                targets += ids.shape[1] - 1
            means.append(nats / targets)
    model = stack(load_backbone(str(folder / "backbone")))
    by_batch = infer.perplexity(
        store, documents, infer.document_losses(model, store, documents, 256), "batch-mean"
    )
    by_token = infer.perplexity(
        store, documents, infer.document_losses(model, store, documents, 256)
    )
    assert len(means) == 3
    assert by_batch.perplexity == pytest.approx(math.exp(np.mean(means)), rel=1e-5)
    assert by_batch.perplexity != pytest.approx(by_token.perplexity, rel=1e-4)
    assert by_batch.bits_per_byte == pytest.approx(by_token.bits_per_byte)


def test_a_batch_of_documents_without_a_target_has_no_weight():
    lengths_D = np.array([5] * 10 + [1])
    store = SimpleNamespace(lengths_D=lengths_D, text_bytes_D=lengths_D)
    got = infer.perplexity(store, np.arange(11), 2.0 * (lengths_D - 1), "batch-mean")
    assert got.perplexity == pytest.approx(math.exp(2))


def test_outputs_come_in_the_order_asked_for(parts):
    folder, store = parts
    model = stack(load_backbone(str(folder / "backbone")))
    documents = store.first_documents(["note-4", "note-0", "note-2", "note-1"])

    def lengths(batch):
        return torch.tensor(batch.lengths_D)

    got = infer.outputs_per_note(model, lengths, store, documents, 64)
    assert got.tolist() == store.lengths_D[documents].tolist()
    assert len(set(got.tolist())) == 4
    assert np.array_equal(np.sort(documents), np.unique(documents))


def test_a_note_that_is_asked_for_again_is_computed_once(parts):
    folder, store = parts
    model = stack(load_backbone(str(folder / "backbone")))
    documents = store.first_documents(["note-4", "note-0", "note-4", "note-4", "note-1"])
    computed = []

    def lengths(batch):
        computed.extend(batch.first_documents_N.tolist())
        return torch.tensor(batch.lengths_D)

    got = infer.outputs_per_note(model, lengths, store, documents, 64)
    assert got.tolist() == store.lengths_D[documents].tolist()
    assert sorted(computed) == np.unique(documents).tolist()
