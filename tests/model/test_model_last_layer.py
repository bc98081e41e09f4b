"""Only pooled tokens pass the last layer, and nothing else changes."""

import pytest
import torch
from builders import ENCODERS, VOCABULARY, in_float64, random_batch, random_encoder
from test_contract_families import FAMILIES, save
from transformers import GPT2Config, GPT2LMHeadModel

from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt, PTuning
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.heads import pool
from notetune.model.last_layer import last_layer_of
from notetune.model.probing import Reach
from notetune.model.stack import DOMAIN, TASK, Layer, stack

LENGTHS = [9, 4, 17, 4, 1]
FEED_FORWARD = LoRA(rank=4, alpha=8, targets=("q_proj", "gate_proj", "down_proj"))
ADAPTERS = {
    "lora": LoRA(rank=4, alpha=8, targets=("k_proj", "up_proj", "down_proj")),
    "dora": LoRA(rank=4, alpha=8, targets=("v_proj", "down_proj"), dora=True),
    "prefix": Prefix(virtual_tokens=3),
    "prompt": Prompt(virtual_tokens=3),
    "p-tuning": PTuning(virtual_tokens=3, hidden=8),
    "adaptation prompt": AdaptationPrompt(length=3, layers=2),
    "full": Full(),
}


def randomised(backbone, layers):
    model = stack(backbone, layers, seed=1, predicts_tokens=False)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.parameters_by_name().items():
            if "norm" not in name.lower() and "magnitude" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return in_float64(model)


def outcome(model, features_DH):
    """Features and the gradients of all that trains."""
    weights = torch.randn(features_DH.shape, generator=torch.Generator().manual_seed(1))
    for parameter in model.parameters_by_name().values():
        parameter.grad = None
    (features_DH * weights).sum().backward()
    gradients = {name: p.grad for name, p in model.parameters_by_name().items()}
    return features_DH.detach(), gradients


def assert_same_as_the_whole_last_layer(model, pooling):
    batch = random_batch(LENGTHS)
    found, gradients = outcome(model, model.features(batch, pooling))
    expected, whole = outcome(model, pool(model.hidden_states(batch), batch, pooling))
    assert (found - expected).abs().max() < 1e-6
    reached = [name for name, gradient in whole.items() if gradient is not None]
    assert reached == [name for name, gradient in gradients.items() if gradient is not None]
    assert reached
    for name in reached:
        scale = max(1.0, whole[name].abs().max().item())
        assert (gradients[name] - whole[name]).abs().max() < 1e-6 * scale, name


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_gradients_of_every_family_are_those_of_the_whole_layer(
    tmp_path, family, pooling
):
    backbone = load_backbone(save(tmp_path / "model", FAMILIES[family]))
    model = randomised(backbone, [Layer(TASK, FEED_FORWARD, is_trained=True)])
    assert_same_as_the_whole_last_layer(model, pooling)


@pytest.mark.parametrize("pooling", ["first", "last"])
@pytest.mark.parametrize("method", ADAPTERS)
def test_features_and_gradients_of_every_method_are_those_of_the_whole_layer(
    tmp_path, method, pooling
):
    backbone = load_backbone(save(tmp_path / "model", FAMILIES["LLaMA 2"]))
    domain = Layer(DOMAIN, ADAPTERS[method], is_trained=True)
    model = randomised(backbone, [domain, Layer(TASK, FEED_FORWARD, is_trained=True)])
    assert_same_as_the_whole_last_layer(model, pooling)


@pytest.mark.parametrize("pooling", ["first", "last"])
@pytest.mark.parametrize("adapter", [Full(), LoRA(targets=("dense", "Wi", "Wo"))])
@pytest.mark.parametrize("kind", ENCODERS)
def test_features_and_gradients_of_encoders_are_those_of_the_whole_layer(
    tmp_path, kind, adapter, pooling
):
    backbone = load_backbone(str(random_encoder(tmp_path / "encoder", ENCODERS[kind])))
    model = randomised(backbone, [Layer(TASK, adapter, is_trained=True)])
    assert_same_as_the_whole_last_layer(model, pooling)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("kind", ["LLaMA 2", *ENCODERS])
def test_the_last_layer_sees_the_pooled_tokens_alone(tmp_path, kind, pooling):
    if kind in ENCODERS:
        backbone = load_backbone(str(random_encoder(tmp_path / "encoder", ENCODERS[kind])))
    else:
        backbone = load_backbone(save(tmp_path / "model", FAMILIES[kind]))
    seen = []
    body = backbone.model.get_decoder()
    layers = body.encoder.layer if kind == "BERT" else body.layers
    for layer in (layers[0], layers[-1]):
        part = layer.intermediate if kind == "BERT" else layer.mlp
        part.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[1]))
    stack(backbone).features(random_batch(LENGTHS), pooling)
    assert seen == [35, 35 if pooling == "mean" else 5]


@pytest.mark.parametrize(("pooling", "tokens"), [("first", 35), ("last", 5), ("mean", 35)])
def test_the_last_tokens_alone_ask_in_the_last_layer(tmp_path, pooling, tokens):
    backbone = load_backbone(save(tmp_path / "model", FAMILIES["LLaMA 2"]))
    seen = []
    for layer in (backbone.model.model.layers[0], backbone.model.model.layers[-1]):
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.o_proj):
            part.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[1]))
    stack(backbone).features(random_batch(LENGTHS), pooling)
    assert seen == [35, 35, 35, tokens, 35, tokens]


def test_layers_of_another_build_compute_all_tokens():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    model = GPT2LMHeadModel(config).eval()
    ids = random_batch([8]).ids_T[None]
    with torch.inference_mode():
        expected = model(ids).logits
        backbone = Backbone(model, "gpt2", "x", 32, Reach(0, sees_ahead=False))
        with last_layer_of(backbone, torch.tensor([7]), 8, see_all=True):
            assert torch.equal(model(ids).logits, expected)
