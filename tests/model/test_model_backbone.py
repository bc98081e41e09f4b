import json

import pytest
import torch
from builders import random_llama
from safetensors.torch import load_file, save_file

from notetune.errors import BackboneError, RunWarning
from notetune.model.backbone import load_backbone
from notetune.model.device import computed_in


@pytest.fixture
def folder(tmp_path):
    return random_llama(tmp_path / "llama")


def test_a_loaded_backbone_is_frozen_and_deterministic(folder):
    backbone = load_backbone(str(folder))
    parameters = list(backbone.model.parameters())
    assert len(parameters) > 10
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not backbone.model.training
    assert (backbone.name, backbone.hidden_size, backbone.max_positions) == ("llama", 32, 128)


def _with(number):
    """A folder in which one weight is another number."""

    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"][3] = number
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a model configuration"),
        (lambda f: (f / "config.json").write_text('{"model_type": "x"}'), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "cannot be loaded"),
        (
            lambda f: (f / "config.json").write_text(
                (f / "config.json").read_text().replace('_layers": 2', '_layers": 3')
            ),
            "lacks or misshapes 9 weights",
        ),
        (_with(torch.nan), r"model\.norm\.weight holds numbers that are not finite"),
        (_with(-torch.inf), r"model\.norm\.weight holds numbers that are not finite"),
    ],
    ids=[
        "broken config",
        "list config",
        "unknown type",
        "broken weights",
        "missing layer",
        "NaN",
        "inf",
    ],
)
def test_damaged_folders_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(BackboneError, match=message):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("method", "package"),
    [("awq", "gptqmodel"), ("gptq", "optimum"), ("compressed-tensors", "compressed-tensors")],
)
def test_a_folder_that_is_quantised_already_says_which_package_it_lacks(folder, method, package):
    config = json.loads((folder / "config.json").read_text())
    more = {"format": "pack-quantized"} if method == "compressed-tensors" else {"bits": 4}
    quantised = {"quant_method": method, **more}
    config["quantization_config"] = quantised
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError) as raised:
        load_backbone(str(folder))
    assert f"quantised by {method}, which cannot be read here" in str(raised.value)
    assert package in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("dtype", "capability", "expected"),
    [
        ("float32", (9, 0), "float32"),
        ("bfloat16", (8, 0), "bfloat16"),
        ("bfloat16", (7, 5), "float32"),
        ("bfloat16", None, "bfloat16"),
        ("nf4", (8, 9), "bfloat16"),
        ("nf4", (7, 0), "float32"),
        ("nf4", None, "float32"),
    ],
)
def test_cards_before_ampere_compute_in_float32(dtype, capability, expected):
    assert computed_in(dtype, capability) == expected


def test_a_card_without_bfloat16_is_warned_of(monkeypatch):
    from notetune.model import backbone

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    with pytest.warns(RunWarning, match="Some GPU has no products in bfloat16, so bfloat16"):
        assert backbone._plain("bfloat16", torch.device("cuda")) == torch.float32
    assert backbone._plain("float32", torch.device("cuda")) == torch.float32
