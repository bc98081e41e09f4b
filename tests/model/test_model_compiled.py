"""Compiled layers compute what layers compute, and are compiled once for rows of all lengths."""

import pytest
import torch
from builders import random_batch, random_llama
from tiny_families import tiny_model
from torch._dynamo.utils import counters

from notetune.errors import BackboneError
from notetune.model.adapters.specs import AdaptationPrompt, LoRA, Prefix, Prompt
from notetune.model.backbone import load_backbone
from notetune.model.compiled import compile_layers
from notetune.model.stack import DOMAIN, Layer, stack

ROWS = [[9, 4], [7], [5, 5, 5], [30, 2, 11, 1], [3, 3, 16, 8, 8]]
INDUCTOR = pytest.param("inductor", marks=pytest.mark.slow)
SPECS = [
    LoRA(rank=2),
    Prefix(virtual_tokens=3),
    Prompt(virtual_tokens=3),
    AdaptationPrompt(length=3),
]
# Graphs of backward passes are most of the time, and one method of the fast ones may show them.
BACKENDS = [
    *((spec, "aot_eager" if spec.kind == "lora" else "eager", ()) for spec in SPECS),
    *((spec, "inductor", pytest.mark.slow) for spec in SPECS),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def graphs():
    """How many graphs have been compiled in a test."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def trained(folder, spec, dtype="float32"):
    model = stack(load_backbone(str(folder), dtype), [Layer(DOMAIN, spec, is_trained=True)], seed=1)
    torch.manual_seed(2)
    for parameter in model.parameters_by_name().values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.train_mode()
    return model


def step(model, lengths):
    """Loss and gradients of a row."""
    loss = model.summed_token_loss(random_batch(lengths))
    parameters = list(model.parameters_by_name().values())
    return loss.item(), torch.autograd.grad(loss, parameters)


@pytest.mark.parametrize(
    ("spec", "backend"),
    [
        pytest.param(spec, backend, marks=marks, id=f"{spec.kind}-{backend}")
        for spec, backend, marks in BACKENDS
    ],
)
def test_compiled_layers_give_the_same_loss_and_gradients_and_no_length_compiles_again(
    folder, graphs, spec, backend
):
    model, compiled = trained(folder, spec), trained(folder, spec)
    compile_layers(compiled.backbone, backend)
    counts = []
    for lengths in ROWS:
        loss, gradients = step(model, lengths)
        compiled_loss, compiled_gradients = step(compiled, lengths)
        assert compiled_loss == pytest.approx(loss, rel=1e-5)
        assert len(gradients) >= 1
        for ours, theirs in zip(compiled_gradients, gradients, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max())
        counts.append(graphs())
    assert counts[0] > 0
    assert counts == counts[:1] * len(ROWS)


def test_deeper_models_are_no_more_graphs(tmp_path, folder, graphs):
    counts = []
    for backbone in (folder, random_llama(tmp_path, layers=3)):
        torch._dynamo.reset()
        counters.clear()
        model = trained(backbone, LoRA(rank=2))
        compile_layers(model.backbone, "eager")
        step(model, [9, 4])
        counts.append(graphs())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "mamba"])
def test_an_encoder_or_a_model_built_otherwise_is_refused(model_type, tmp_path):
    tiny_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="set compiled: false"):
        compile_layers(load_backbone(str(tmp_path)))
