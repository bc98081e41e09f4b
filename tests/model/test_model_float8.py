"""Float8 linear layers: within the error of their rounding, and adapters train on top of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import VOCABULARY, random_llama
from torch import nn

import notetune
from notetune.errors import BackboneError, BundleError
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.batch import packed_batch
from notetune.model.float8 import Float8Linear, quantise, quantise_layers
from notetune.model.merge import merge_adapters
from notetune.model.stack import DOMAIN, Layer, stack

GENERAL = Path(notetune.__file__).parent / "general/shakespeare.txt"
QUANTISED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def uneven(*shape, seed=0):
    """Rows of sizes from 1e-3 to 1e3, with values a thousand times smaller among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    values *= 10 ** torch.linspace(-3, 3, shape[0])[:, None]
    values[:, ::3] *= 1e-3
    return values


def rounding_error(rows):
    """Most that e4m3 moves a value: half of its last of three bits, or of the smallest step."""
    scale = rows.abs().amax(1, keepdim=True) / 448
    return torch.maximum(rows.abs() * 2**-4, scale * 2**-10)


def product_error(left, right):
    """Most that the product with the transpose of `right` is off, its own rounding included."""
    of_left, of_right = rounding_error(left), rounding_error(right)
    error = left.abs() @ of_right.t() + of_left @ (right.abs() + of_right).t()
    return error * (1 + 2**-8) + (left @ right.t()).abs() * 2**-8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("float8"))


def test_a_quantised_value_is_off_by_its_rounding_alone():
    rows = uneven(40, 64)
    values, scales = quantise(rows)
    assert values.dtype == torch.float8_e4m3fn
    restored = values.float() * scales
    assert ((restored - rows).abs() <= rounding_error(rows) * 1.0001).all()
    assert (restored - rows).abs().max() > 0


def test_zeros_and_the_smallest_rows_keep_their_size_and_no_other():
    rows = torch.tensor([[0.0, 0.0], [1e-30, -5e-31], [1e30, 3e29], [float("nan"), 1.0]])
    values, scales = quantise(rows)
    restored = values.float() * scales
    assert torch.allclose(restored[:3], rows[:3], rtol=2**-4, atol=0)
    assert restored[3].isnan().all()


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 64), (1, 13, 64)])
def test_output_and_gradient_are_off_by_the_rounding_alone(has_bias, shape):
    torch.manual_seed(0)
    exact = nn.Linear(64, 48, bias=has_bias)
    exact.weight.data = uneven(48, 64, seed=1)
    layer = Float8Linear(exact)
    rows = uneven(shape[-2], 64, seed=2)
    inputs = rows.view(shape).clone().requires_grad_()
    outputs = layer(inputs)
    gradient = uneven(shape[-2], 48, seed=3)
    outputs.backward(gradient.view(outputs.shape))

    weight, bias = exact.weight.data, exact.bias.data if has_bias else torch.zeros(48)
    expected = rows @ weight.t()
    bound = product_error(rows, weight)
    off = (outputs.detach().view(-1, 48) - bias - expected).abs()
    assert (off <= bound + (expected + bias).abs() * 2**-8).all()
    expected = gradient @ weight
    off = (inputs.grad.view(-1, 64) - expected).abs()
    assert (off <= product_error(gradient, weight.t())).all()


def test_the_error_is_as_small_as_that_of_independent_roundings():
    torch.manual_seed(0)
    exact = nn.Linear(256, 256, bias=False)
    rows = torch.randn(100, 256)
    # An e4m3 value is off by 2^-4 / sqrt(3) of its power of two, on average over the values within
    # one by 0.026 of itself; the product has two such errors.
    relative = (Float8Linear(exact)(rows) - exact(rows)).norm() / exact(rows).norm()
    assert 0.02 < relative < 0.026 * 2**0.5 * 1.1


def test_the_linear_layers_of_the_decoder_are_float8_and_nothing_else(folder):
    model = load_backbone(str(folder), "float8").model
    found = [name for name, m in model.named_modules() if isinstance(m, Float8Linear)]
    assert len(found) == 2 * len(QUANTISED)
    assert {name.rpartition(".")[2] for name in found} == set(QUANTISED)
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert {types.pop(f"{name}.weight") for name in found} == {torch.float8_e4m3fn}
    assert set(types.values()) == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


@pytest.fixture(scope="module")
def row():
    """Six passages of English in the tokens of the shipped backbone, which knows English."""
    backbone = load_backbone("tiny")
    passages = GENERAL.read_text(encoding="utf-8").split("\n\n\n")[:6]
    documents = [np.array(backbone.token_ids(passage)[:120]) for passage in passages]
    return packed_batch(documents, range(len(documents)))


def trained(dtype, spec, row):
    """The shipped backbone with an adapter that says something, its loss and gradients."""
    model = stack(load_backbone("tiny", dtype), [Layer(DOMAIN, spec, is_trained=True)], seed=1)
    torch.manual_seed(2)
    for parameter in model.parameters_by_name().values():
        parameter.data += 0.02 * torch.randn_like(parameter)
    loss = model.summed_token_loss(row)
    loss.backward()
    return model, loss.item()


@pytest.mark.parametrize(
    "spec",
    [LoRA(rank=4, targets=QUANTISED), Prefix(virtual_tokens=3), Prompt(), AdaptationPrompt()],
    ids=lambda spec: spec.kind,
)
def test_adapters_learn_on_float8_what_they_learn_on_float32(spec, row):
    exact, exact_loss = trained("float32", spec, row)
    model, loss = trained("float8", spec, row)
    assert model.backbone.fingerprint == exact.backbone.fingerprint
    assert loss == pytest.approx(exact_loss, rel=2e-3)
    pairs = zip(model.parameters_by_name().items(), exact.parameters_by_name().items(), strict=True)
    ours, theirs = [], []
    for (name, parameter), (other_name, other) in pairs:
        assert name == other_name
        assert parameter.dtype == torch.float32
        ours.append(parameter.grad.flatten())
        theirs.append(other.grad.flatten())
    assert len(ours) >= 1
    assert torch.cosine_similarity(torch.cat(ours), torch.cat(theirs), dim=0) > 0.99
    assert all(p.grad is None for p in model.backbone.model.parameters() if not p.requires_grad)


def test_an_adapter_trained_on_float8_goes_onto_the_float32_backbone(tmp_path, row):
    model, _ = trained("float8", LoRA(rank=2), row)
    save_adapter(tmp_path, model.adapters[DOMAIN], model.backbone)
    saved = read_adapter(tmp_path)
    exact = stack(load_backbone("tiny"), [Layer(DOMAIN, saved, is_trained=False)])
    assert len(saved.tensors) == len(model.tensors(DOMAIN)) > 0
    for name, tensor in model.tensors(DOMAIN).items():
        assert torch.equal(exact.tensors(DOMAIN)[name], tensor)
    with torch.inference_mode():
        expected = exact.hidden_states(row)
        off = expected - model.hidden_states(row).float()
    assert off.norm() < 0.1 * expected.norm()


def test_a_new_adapter_starts_as_on_a_bfloat16_backbone(folder):
    """Its random start is not rounded to float8."""
    starts = [
        stack(load_backbone(str(folder), dtype), [Layer(DOMAIN, LoRA(), is_trained=True)], seed=3)
        for dtype in ("bfloat16", "float8")
    ]
    (name, theirs), *_ = starts[0].tensors(DOMAIN).items()
    assert torch.equal(starts[1].tensors(DOMAIN)[name], theirs)
    assert len(theirs.unique()) > 100


@pytest.mark.parametrize("spec", [Full(), LoRA(dora=True)], ids=["full", "dora"])
def test_what_needs_the_weights_themselves_is_refused(folder, spec):
    with pytest.raises(BundleError, match=r"works on the weights themselves.*bfloat16"):
        stack(load_backbone(str(folder), "float8"), [Layer(DOMAIN, spec, is_trained=True)])


def test_nothing_is_merged_into_float8_weights(row):
    model, _ = trained("float8", LoRA(), row)
    with pytest.raises(BundleError, match="float8 weights cannot take an adapter in"):
        merge_adapters(model)


def test_a_device_without_float8_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    with pytest.raises(BackboneError, match="Some GPU has no float8 matrix products"):
        quantise_layers(nn.ModuleList([nn.Linear(16, 16)]), torch.device("cuda"))


def test_layers_of_other_sizes_stay_as_they_are_and_must_not_be_all():
    layers = nn.Sequential(nn.Linear(16, 24), nn.Linear(32, 16))
    quantise_layers(layers, torch.device("cpu"))
    assert [type(layer) for layer in layers] == [nn.Linear, Float8Linear]
    with pytest.raises(BackboneError, match="multiples of 16"):
        quantise_layers(nn.Sequential(nn.Linear(16, 24)), torch.device("cpu"))


def test_an_outline_is_float8_too_and_counts_the_same_parameters(folder):
    outline = outline_backbone(str(folder), "float8")
    assert outline.dtype == "float8"
    weights = [m.weight for m in outline.model.modules() if isinstance(m, Float8Linear)]
    assert {(w.dtype, w.device.type) for w in weights} == {(torch.float8_e4m3fn, "meta")}
    whole = outline_backbone(str(folder), "bfloat16")
    counts = [sum(p.numel() for p in b.model.parameters()) for b in (outline, whole)]
    assert counts[0] == counts[1] > VOCABULARY * 32
