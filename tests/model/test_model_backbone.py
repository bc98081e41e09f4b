import pytest
from builders import random_llama

from notetune.errors import BackboneError
from notetune.model.backbone import load_backbone


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
    ],
    ids=["broken config", "list config", "unknown type", "broken weights", "missing layer"],
)
def test_damaged_folders_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(BackboneError, match=message):
        load_backbone(str(folder))
