"""A backbone is a folder of weights that can be read without running anything."""

import json
import pickle

import pytest
from builders import random_llama

from notetune.errors import BackboneError
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import (
    backbone_fingerprint,
    licence_of,
    own_backbone,
    resolve_backbone,
)


@pytest.fixture
def folder(tmp_path):
    return random_llama(tmp_path / "llama")


def test_the_fingerprint_follows_weights_configuration_and_tokenizer(folder, tmp_path):
    first = backbone_fingerprint(folder)
    assert first == backbone_fingerprint(folder)
    others = {first, backbone_fingerprint(random_llama(tmp_path / "other", seed=1))}
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    others.add(backbone_fingerprint(folder))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    others.add(backbone_fingerprint(folder))
    assert len(others) == 4


def test_what_is_not_a_backbone_folder_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(BackboneError, match="is not a folder; give a Hugging Face model folder"):
        resolve_backbone(str(tmp_path / "nowhere"))
    with pytest.raises(BackboneError, match=r"has no config\.json"):
        resolve_backbone(str(tmp_path))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "7", "\udcff"])
def test_a_configuration_that_is_none_is_refused_in_one_line(folder, text):
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BackboneError, match="copy the backbone again") as error:
        load_backbone(str(folder))
    assert "\n" not in str(error.value)


def test_a_pickled_checkpoint_is_refused_unread(folder):
    (folder / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BackboneError, match=r"pickled checkpoint pytorch_model\.bin"):
        load_backbone(str(folder))


def test_a_folder_that_wants_to_run_code_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="auto_map"):
        load_backbone(str(folder))


def test_the_backbone_of_a_bundle_is_asked_for_where_it_is_not_here(tmp_path):
    assert own_backbone("minilm-l6", str(tmp_path)) == str(tmp_path)
    assert own_backbone(str(tmp_path), None) == str(tmp_path)
    with pytest.raises(BackboneError, match=r"its backbone, minilm-l6, .* with --backbone"):
        own_backbone("minilm-l6", None)


@pytest.mark.parametrize(
    ("front", "name"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# x\nlicense: no", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: 'health-ai'\n---\n", "health-ai"),
        ("# x\nlicense: no\n", ""),
        ("---\nlicense: never closed\n", ""),
    ],
)
def test_the_licence_of_a_folder_is_what_its_front_matter_and_its_file_say(tmp_path, front, name):
    (tmp_path / "README.md").write_text(front)
    assert licence_of(tmp_path) == (name, "")
    (tmp_path / "LICENSE.txt").write_text("a" * 30_000)
    assert licence_of(tmp_path) == (name, "a" * 20_000)
