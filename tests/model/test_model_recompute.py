"""Layers whose activations are computed again: the same bits, and less memory."""

import pytest
import torch
from builders import random_documents, random_llama

from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.batch import packed_batch
from notetune.model.recompute import recompute_layers
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.train.step_cost import step_cost

SPECS = [LoRA(rank=2, dropout=0.3), Prefix(virtual_tokens=3), Prompt(), AdaptationPrompt(), Full()]
LENGTHS = (40, 9, 23)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(random_llama(tmp_path_factory.mktemp("recompute"), layers=4))


def put_on(backbone, spec, *, recomputed):
    if recomputed:
        recompute_layers(backbone)
    model = stack(backbone, [Layer(DOMAIN, spec, is_trained=True)], seed=1)
    model.train_mode()
    return model


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("reads", ["tokens", "last", "mean"])
def test_losses_and_gradients_have_the_same_bits(folder, spec, reads):
    found = []
    for recomputed in (False, True):
        model = put_on(load_backbone(folder), spec, recomputed=recomputed)
        torch.manual_seed(2)
        for parameter in model.parameters_by_name().values():
            parameter.data += 0.02 * torch.randn_like(parameter)
        torch.manual_seed(3)
        row = packed_batch(random_documents(LENGTHS), range(len(LENGTHS)))
        if reads == "tokens":
            loss = model.summed_token_loss(row)
        else:
            loss = model.features(row, reads).square().sum()
        trained = list(model.parameters_by_name().values())
        found.append([loss, *torch.autograd.grad(loss, trained, allow_unused=reads != "tokens")])
    assert len(found[0]) >= 2
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_layers_but_the_last_keep_their_input_alone(folder):
    costs = [
        step_cost(model := put_on(outline_backbone(folder), LoRA(rank=2), recomputed=recomputed),
                  model.summed_token_loss, (64,) * 4)
        for recomputed in (False, True)
    ]  # fmt: skip
    assert costs[1].peak_bytes < 0.7 * costs[0].peak_bytes
    hidden, feed_forward, kv, length, tokens = 32, 48, 16, 64, 256
    matrices = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * feed_forward
    adapters, scores = 2 * (2 * hidden + hidden + kv), length * hidden
    # Three of four layers run forward once more, to where the last kept tensor is made.
    again = 2 * 3 * tokens * (matrices + adapters + scores)
    last = 2 * 3 * tokens * hidden * feed_forward
    assert costs[1].flops - costs[0].flops in (again, again - last)


def test_nothing_is_computed_twice_without_gradients(folder):
    plain, model = load_backbone(folder), load_backbone(folder)
    recompute_layers(model)
    row = packed_batch(random_documents(LENGTHS), range(len(LENGTHS)))
    with torch.inference_mode():
        assert torch.equal(plain.hidden_states(row), model.hidden_states(row))
