"""NF4 layers: the weights that bitsandbytes packs, and adapters that train on top of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import VOCABULARY, random_llama
from safetensors.torch import load_file, save_file
from torch import nn

import notetune
from notetune.errors import BackboneError, BundleError
from notetune.model import nf4
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.batch import packed_batch
from notetune.model.merge import merge_adapters
from notetune.model.nf4 import Nf4Linear, quantise_layers
from notetune.model.stack import DOMAIN, Layer, stack

pytest.importorskip("bitsandbytes", reason="nf4 needs notetune[4bit]")

CPU = torch.device("cpu")
GENERAL = Path(notetune.__file__).parent / "general/shakespeare.txt"
QUANTISED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Of Dettmers et al. 2023, appendix E: the quantiles of a normal distribution, scaled to [-1, 1].
LEVELS = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("nf4"))


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_weight_that_is_not_finite_is_refused_before_it_is_packed(tmp_path, bad):
    folder = random_llama(tmp_path / "bad")
    tensors, name = load_file(folder / "model.safetensors"), "model.layers.0.mlp.up_proj.weight"
    tensors[name][0, 0] = bad
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=f"{name} holds numbers that are not finite"):
        load_backbone(str(folder), "nf4")


def test_each_weight_is_the_nearest_level_of_its_block():
    torch.manual_seed(0)
    exact = nn.Linear(256, 128)
    got = Nf4Linear(exact, CPU).unpacked(torch.float32).reshape(-1, 64)
    blocks = exact.weight.detach().reshape(-1, 64)
    peaks = blocks.abs().amax(1, keepdim=True)
    levels = torch.tensor(LEVELS)
    nearest = levels[(blocks[..., None] / peaks[..., None] - levels).abs().argmin(-1)] * peaks
    # The scales are rounded too, to 8 bits over their own range.
    assert (got - nearest).abs().max() < 0.02 * peaks.max()
    assert (got - nearest).norm() < 0.01 * nearest.norm()
    assert len((got / got.abs().amax(1, keepdim=True)).mul(1e4).round().unique()) <= 2 * 16


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 64), (1, 13, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradient_are_those_of_the_unpacked_weight(has_bias, shape, dtype):
    torch.manual_seed(0)
    exact = nn.Linear(64, 48, bias=has_bias).to(dtype).requires_grad_(requires_grad=False)
    layer = Nf4Linear(exact, CPU)
    plain = nn.Linear(64, 48, bias=has_bias).to(dtype)
    plain.weight.data = layer.unpacked(dtype)
    if has_bias:
        plain.bias.data = exact.bias.data
    rows, gradient = torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], 48, dtype=dtype)
    results = []
    for each in (layer, plain):
        inputs = rows.clone().requires_grad_()
        outputs = each(inputs)
        outputs.backward(gradient)
        results.append((outputs.detach(), inputs.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
    with torch.inference_mode():
        assert torch.equal(layer.eval()(rows), results[0][0])


def test_nothing_unpacked_is_kept_for_the_backward_pass():
    layer, kept = Nf4Linear(nn.Linear(64, 64), CPU), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(3, 64, requires_grad=True))
    assert kept == []


def test_the_linear_layers_of_the_decoder_are_nf4_and_nothing_else(folder):
    model = load_backbone(str(folder), "nf4").model
    found = [name for name, m in model.named_modules() if isinstance(m, Nf4Linear)]
    assert len(found) == 2 * len(QUANTISED)
    assert {name.rpartition(".")[2] for name in found} == set(QUANTISED)
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert {types.pop(f"{name}.weight") for name in found} == {torch.uint8}
    assert set(types.values()) == {torch.float32}
    assert not any(p.requires_grad for p in model.parameters())


def test_what_is_stored_in_bfloat16_is_packed_to_the_same_bits_in_any_type():
    torch.manual_seed(0)
    stored = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    wide = nn.Linear(64, 64, bias=False)
    wide.weight.data = stored.weight.data.float()
    ours, theirs = (Nf4Linear(each, CPU) for each in (stored, wide))
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.unpacked(torch.float32), theirs.unpacked(torch.float32))


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
def test_adapters_learn_on_nf4_nearly_what_they_learn_on_float32(spec, row):
    exact, exact_loss = trained("float32", spec, row)
    model, loss = trained("nf4", spec, row)
    assert model.backbone.fingerprint == exact.backbone.fingerprint
    assert model.total_count == exact.total_count
    assert loss == pytest.approx(exact_loss, rel=5e-2)
    pairs = zip(model.parameters_by_name().items(), exact.parameters_by_name().items(), strict=True)
    ours, theirs = [], []
    for (name, parameter), (other_name, other) in pairs:
        assert name == other_name
        assert parameter.dtype == torch.float32
        ours.append(parameter.grad.flatten())
        theirs.append(other.grad.flatten())
    assert len(ours) >= 1
    assert torch.cosine_similarity(torch.cat(ours), torch.cat(theirs), dim=0) > 0.9
    assert all(p.grad is None for p in model.backbone.model.parameters() if not p.requires_grad)


def test_an_adapter_trained_on_nf4_goes_onto_the_float32_backbone(tmp_path, row):
    model, _ = trained("nf4", LoRA(rank=2), row)
    save_adapter(tmp_path, model.adapters[DOMAIN], model.backbone)
    saved = read_adapter(tmp_path)
    exact = stack(load_backbone("tiny"), [Layer(DOMAIN, saved, is_trained=False)])
    assert len(saved.tensors) == len(model.tensors(DOMAIN)) > 0
    for name, tensor in model.tensors(DOMAIN).items():
        assert torch.equal(exact.tensors(DOMAIN)[name], tensor)


@pytest.mark.parametrize("spec", [Full(), LoRA(dora=True)], ids=["full", "dora"])
def test_what_needs_the_weights_themselves_is_refused(folder, spec):
    with pytest.raises(BundleError, match=r"works on the weights themselves.*bfloat16"):
        stack(load_backbone(str(folder), "nf4"), [Layer(DOMAIN, spec, is_trained=True)])


def test_nothing_is_merged_into_nf4_weights(row):
    model, _ = trained("nf4", LoRA(), row)
    with pytest.raises(BundleError, match="are quantised, so they cannot take an adapter in"):
        merge_adapters(model)


def test_layers_without_whole_blocks_stay_as_they_are_and_must_not_be_all():
    layers = nn.Sequential(nn.Linear(5, 7), nn.Linear(16, 8))
    quantise_layers(layers, CPU)
    assert [type(layer) for layer in layers] == [nn.Linear, Nf4Linear]
    with pytest.raises(BackboneError, match="multiple of 64"):
        quantise_layers(nn.Sequential(nn.Linear(5, 7)), CPU)


def test_an_outline_has_the_same_shapes_and_types_and_needs_no_bitsandbytes(folder, monkeypatch):
    def kept(backbone):
        tensors = {
            **dict(backbone.model.named_parameters()),
            **dict(backbone.model.named_buffers()),
        }
        return {name: (t.dtype, t.shape) for name, t in tensors.items()}

    loaded = load_backbone(str(folder), "nf4")
    monkeypatch.setattr(nf4, "_bitsandbytes", None)
    outline = outline_backbone(str(folder), "nf4")
    assert outline.dtype == "nf4"
    assert kept(outline) == kept(loaded)
    assert len(kept(outline)) > 4 * 2 * len(QUANTISED)
    on_a_card = outline_backbone(str(folder), "nf4", (8, 0))
    assert on_a_card.embeddings.weight.dtype == torch.bfloat16
    assert stack(outline).total_count == stack(load_backbone(str(folder))).total_count > VOCABULARY


def test_without_bitsandbytes_the_error_names_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(BackboneError, match=r"needs bitsandbytes.* install notetune\[4bit\]"):
        load_backbone(str(folder), "nf4")
