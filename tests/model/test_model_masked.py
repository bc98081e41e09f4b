"""Masked language modelling: which tokens are hidden, the loss, and the folder that comes out."""

import json

import numpy as np
import pytest
import torch
from builders import VOCABULARY, byte_tokenizer, random_batch, random_documents
from transformers import AutoModel, AutoModelForMaskedLM

from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.model.masked import EncoderShape, Masking, new_masked_encoder
from notetune.tokens.encode import load_encoder

LENGTHS = [7, 30, 2, 19]
MASK = 300


def new_encoder(seed=0):
    return new_masked_encoder(
        EncoderShape(hidden=32, layers=2, heads=4),
        byte_tokenizer(),
        (0, 1),
        VOCABULARY,
        max_tokens=64,
        share=0.3,
        seed=seed,
    )


def test_hidden_tokens_are_masked_replaced_or_kept_in_the_published_shares():
    masking = Masking(0.15, MASK, special_ids=(0, 1), vocabulary_size=VOCABULARY)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 100_000)
    row = packed_batch([ids], [0])
    batch = masking.apply(row, np.random.default_rng(1))
    seen, target = batch.inputs.ids_T.numpy(), batch.is_target_T
    assert torch.equal(batch.ids_T, torch.from_numpy(ids))
    assert target.mean() == pytest.approx(0.15 * 258 / 260, abs=0.005)
    assert not target[np.isin(ids, (0, 1))].any()
    assert (seen[~target] == ids[~target]).all()
    shares = [(seen == MASK)[target].mean(), (seen == ids)[target].mean()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.01)
    others = seen[target & (seen != MASK) & (seen != ids)]
    assert len(set(others)) > 200
    assert others.max() < VOCABULARY


def test_a_row_always_has_a_token_to_predict():
    masking = Masking(0.0001, MASK, special_ids=(0, 1), vocabulary_size=VOCABULARY)
    batch = masking.apply(packed_batch([np.array([0, 7, 1])], [0]), np.random.default_rng(0))
    assert batch.is_target_T.tolist() == [False, True, False]
    assert batch.target_count == 1


def test_what_is_hidden_depends_on_seed_and_step_alone():
    masking = Masking(0.3, MASK, special_ids=(0, 1), vocabulary_size=VOCABULARY)
    rows = [[random_batch(LENGTHS, seed)] for seed in (1, 1, 2)]
    hidden = [step[0].is_target_T.tolist() for step in masking.steps(rows, seed=5)]
    resumed = [
        step[0].is_target_T.tolist() for step in masking.steps(rows[1:], seed=5, first_step=1)
    ]
    assert resumed == hidden[1:]
    assert hidden[0] != hidden[1]
    assert next(masking.steps(rows, seed=6))[0].is_target_T.tolist() != hidden[0]


def test_halves_of_a_row_hide_the_same_tokens_and_their_losses_add_up():
    encoder = new_encoder()
    encoder.model.eval()
    row = packed_batch(random_documents(LENGTHS), range(4))
    batch = encoder.masking.apply(row, np.random.default_rng(2))
    halves = batch.halves()
    assert [half.documents_D.tolist() for half in halves] == [[0, 1], [2, 3]]
    assert sum(half.target_count for half in halves) == batch.target_count
    with torch.inference_mode():
        parts = sum(encoder.summed_loss(half).item() for half in halves)
        assert parts == pytest.approx(encoder.summed_loss(batch).item(), rel=1e-5)


def test_the_summed_loss_and_its_gradient_equal_those_of_plain_transformers(tmp_path):
    encoder = new_encoder()
    encoder.save(tmp_path)
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    encoder.model.eval()
    documents = random_documents(LENGTHS)
    batch = encoder.masking.apply(packed_batch(documents, range(4)), np.random.default_rng(2))
    loss = encoder.summed_loss(batch)
    loss.backward()
    expected = torch.zeros(())
    is_target_T = torch.from_numpy(batch.is_target_T)
    labels_T = batch.ids_T.masked_fill(~is_target_T, -100)
    for ids, labels in zip(batch.inputs.ids_T.split(LENGTHS), labels_T.split(LENGTHS), strict=True):
        logits = plain(ids[None]).logits[0]
        expected = expected + torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=-100, reduction="sum"
        )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    ours = dict(encoder.model.named_parameters())
    assert len(ours) == len(gradients) > 30
    for name, parameter in ours.items():
        assert (parameter.grad - gradients[name]).abs().max() < 1e-5 * max(1, loss.item()), name


def test_the_saved_folder_is_a_plain_encoder_with_the_tokens_of_the_notes(tmp_path):
    encoder = new_encoder(seed=3)
    encoder.save(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert backbone.is_encoder
    batch = random_batch(LENGTHS)
    encoder.model.eval()
    with torch.inference_mode():
        here, loaded = (b.hidden_states(batch) for b in (encoder.backbone, backbone))
    assert (here - loaded).abs().max() < 1e-6
    assert AutoModel.from_pretrained(tmp_path).config.hidden_size == 32
    assert "notetune" not in (tmp_path / "config.json").read_text()
    assert "[MASK]" in json.dumps(json.loads((tmp_path / "tokenizer.json").read_text()))
    texts = ["Chest pain [MASK] é", "x" * 90]
    tokens = load_encoder(tmp_path, frames_pieces=True).documents(texts, 32)
    encoder_of_notes = byte_tokenizer()
    ids = encoder_of_notes.encode(texts[0]).ids
    assert tokens.ids[: len(ids) + 2].tolist() == [0, *ids, 1]
    assert tokens.table_D["length"].tolist() == [len(ids) + 2, 32, 32, 30]
