import json
import shutil
from itertools import cycle, islice

import peft
import pytest
import torch
from builders import random_llama
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from notetune.config import parse
from notetune.errors import BackboneError, BundleError, ConfigError
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.adapters.specs import AdaptationPrompt, Full, LoRA, Prefix, Prompt, PTuning
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, TASK, Layer, stack
from notetune.study.sections import PretrainConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


def put(folder, spec, *, is_trained=True):
    return stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=is_trained)])


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


def test_a_text_prompt_starts_from_the_embeddings_of_its_text_repeated_to_fit(folder):
    model = put(folder, Prompt(virtual_tokens=40, init="text"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode("Finish this clinical note:").ids
    assert 20 < len(ids) < 40
    repeated = torch.tensor(list(islice(cycle(ids), 40)))
    (prompt,) = model.parameters_by_name().values()
    assert torch.equal(prompt, model.backbone.model.get_input_embeddings()(repeated))


def test_a_text_prompt_needs_a_tokenizer_and_other_prompts_do_not(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    put(bare, Prompt(virtual_tokens=2))
    with pytest.raises(BackboneError, match=r"bare has no tokenizer\.json"):
        put(bare, Prompt(virtual_tokens=2, init="text"))


def test_more_adaptation_layers_than_the_backbone_has_are_refused(folder):
    with pytest.raises(BundleError, match="has 2 layers that an adaptation prompt fits, not 3"):
        put(folder, AdaptationPrompt(layers=3))
    assert len(put(folder, AdaptationPrompt()).parameters_by_name()) == 2 * 2


def test_an_output_bias_that_peft_would_add_twice_is_refused(folder, tmp_path):
    plain = AutoModelForCausalLM.from_pretrained(folder)
    plain.config.attention_bias = True
    AutoModelForCausalLM.from_config(plain.config).save_pretrained(tmp_path)
    with pytest.raises(BundleError, match="a bias in o_proj"):
        put(tmp_path, AdaptationPrompt())


def test_an_adapter_of_plain_peft_with_a_setting_that_would_be_lost_is_refused(from_peft):
    assert read_adapter(from_peft()).spec == LoRA(rank=2, alpha=8, targets=("q_proj",))
    for name, value in {
        "rank_pattern": {"q_proj": 4},
        "bias": "all",
        "modules_to_save": ["score"],
        "init_lora_weights": "pissa",
        "a_setting_of_tomorrow": 1,
    }.items():
        with pytest.raises(BundleError, match=f"sets {name}, which notetune cannot follow"):
            read_adapter(from_peft(**{name: value}))
    with pytest.raises(BundleError, match="peft type IA3 is not one of LORA"):
        read_adapter(from_peft(peft_type="IA3"))
    with pytest.raises(ConfigError, match="targets is 'all-linear'"):
        read_adapter(from_peft(target_modules="all-linear"))


def test_an_adapter_of_plain_peft_that_does_not_fit_is_refused(folder, from_peft, tmp_path):
    saved = read_adapter(from_peft(target_modules=["q_proj", "k_proj"]))
    with pytest.raises(BundleError, match="lora adapter does not fit the backbone: 4 tensors"):
        put(folder, saved)


def test_pickled_weights_are_not_read(from_peft):
    where = from_peft()
    (where / "adapter_model.safetensors").rename(where / "adapter_model.bin")
    with pytest.raises(BundleError, match="safetensors only, never from a pickle"):
        read_adapter(where)


def test_a_folder_without_a_card_is_no_adapter(tmp_path):
    with pytest.raises(BundleError, match="is not an adapter folder: it needs"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "spec", [LoRA(), Prefix(), Prompt(), PTuning(), AdaptationPrompt(), Full()]
)
def test_a_saved_adapter_holds_no_path_and_no_pickle(folder, tmp_path, spec):
    if spec.kind in ("prefix", "prompt", "p-tuning"):
        spec = spec.model_copy(update={"virtual_tokens": 2})
    model = put(folder, spec)
    save_adapter(tmp_path / "saved", model.adapters[DOMAIN], model.backbone)
    files = sorted(path.name for path in (tmp_path / "saved").iterdir())
    usual = ["adapter.json", "adapter_config.json", "adapter_model.safetensors"]
    whole = "adapter.json config.json generation_config.json model.safetensors tokenizer.json"
    assert files == (whole.split() if spec.kind == "full" else usual)
    for name in files:
        if name.endswith("config.json") or name == "adapter.json":
            assert str(folder) not in (tmp_path / "saved" / name).read_text()
    assert read_adapter(tmp_path / "saved").spec == spec


def test_a_fully_fine_tuned_backbone_is_a_backbone_folder(folder, tmp_path):
    model = put(folder, Full())
    with torch.no_grad():
        model.backbone.model.model.norm.weight.add_(0.5)
    save_adapter(tmp_path / "tuned", model.adapters[DOMAIN], model.backbone)
    again = load_backbone(str(tmp_path / "tuned"))
    assert again.fingerprint != model.backbone.fingerprint
    theirs, ours = again.model.state_dict(), model.backbone.model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_full_fine_tuning_of_a_bfloat16_backbone_trains_in_float32(folder):
    backbone = load_backbone(str(folder), "bfloat16")
    model = stack(backbone, [Layer(DOMAIN, Full(), is_trained=True)])
    assert {p.dtype for p in model.parameters_by_name().values()} == {torch.float32}
    lora = stack(load_backbone(str(folder), "bfloat16"), [Layer(TASK, LoRA(), is_trained=True)])
    assert {p.dtype for p in lora.parameters_by_name().values()} == {torch.float32}
    assert lora.backbone.dtype == "bfloat16"


def test_a_recipe_names_the_method_by_its_kind():
    kinds = ["lora", "prefix", "prompt", "p-tuning", "adaptation-prompt", "full"]
    for kind in kinds:
        config = parse(PretrainConfig, {"adapter": {"kind": kind}}, "recipe")
        assert config.adapter.kind == kind
    with pytest.raises(ConfigError, match=f"it should be one of {', '.join(kinds)}"):
        parse(PretrainConfig, {"adapter": {"kind": "lorra"}}, "recipe")
    with pytest.raises(ConfigError, match="for reparameterisation: lstm only"):
        parse(PretrainConfig, {"adapter": {"kind": "p-tuning", "layers": 4}}, "recipe")
    with pytest.raises(ConfigError, match="set projection: true"):
        parse(PretrainConfig, {"adapter": {"kind": "prefix", "hidden": 4}}, "recipe")
