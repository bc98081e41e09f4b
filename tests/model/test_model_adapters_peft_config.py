"""What plain peft wrote is read whole or refused."""

import json

import peft
import pytest
from builders import random_llama
from transformers import AutoModelForCausalLM

from notetune.errors import BundleError
from notetune.model.adapters.files import read_adapter
from notetune.model.adapters.specs import LoRA
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, Layer, stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def from_peft(folder, tmp_path):
    """A LoRA folder that plain peft wrote, with some settings of its configuration changed."""

    def write(**changes):
        plain = AutoModelForCausalLM.from_pretrained(folder)
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        peft.get_peft_model(plain, config).save_pretrained(tmp_path / "theirs")
        path = tmp_path / "theirs/adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return tmp_path / "theirs"

    return write


def test_an_adapter_of_plain_peft_with_a_setting_that_would_be_lost_is_refused(from_peft):
    assert read_adapter(from_peft()).spec == LoRA(rank=2, alpha=8, targets=("q_proj",))
    for name, value in {
        "bias": "all",
        "modules_to_save": ["score"],
        "init_lora_weights": "pissa",
        "a_setting_of_tomorrow": 1,
    }.items():
        with pytest.raises(BundleError, match=f"sets {name}, which notetune cannot follow"):
            read_adapter(from_peft(**{name: value}))
    with pytest.raises(BundleError, match="peft type IA3 is not one of LORA"):
        read_adapter(from_peft(peft_type="IA3"))


def put(folder, spec, *, is_trained=True):
    return stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=is_trained)])


def test_an_adapter_of_plain_peft_that_does_not_fit_is_refused(folder, from_peft, tmp_path):
    saved = read_adapter(from_peft(target_modules=["q_proj", "k_proj"]))
    with pytest.raises(BundleError, match="lora adapter does not fit the backbone: 4 tensors"):
        put(folder, saved)


def test_pickled_weights_are_not_read(from_peft):
    where = from_peft()
    (where / "adapter_model.safetensors").rename(where / "adapter_model.bin")
    with pytest.raises(BundleError, match="safetensors only, never from a pickle"):
        read_adapter(where)
