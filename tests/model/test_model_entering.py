"""The topmost layers on states that were kept are what they are in the whole backbone."""

import json

import pytest
import torch
from builders import ENCODERS, VOCABULARY, random_batch, random_encoder, random_llama
from peft import PeftModel
from test_contract_families import FAMILIES, save
from test_model_last_layer import LENGTHS, outcome, randomised
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from notetune.errors import BundleError
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.adapters.specs import AdaptationPrompt, LoRA, Prefix, Prompt
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.entering import EnteringStates
from notetune.model.probing import Reach
from notetune.model.recompute import recompute_layers
from notetune.model.stack import DOMAIN, TASK, Layer, stack

UPPER = LoRA(rank=4, alpha=8, targets=("q_proj", "down_proj"), layers=1)


def upper_alone(model, batch, pooling, layers="last"):
    """What the upper layers make of kept states, with the gradients."""
    with torch.no_grad():
        states_TH = model.states_entering(1, batch)
    seen = []
    below = model.backbone.blocks[0].register_forward_hook(
        lambda _, inputs, output: seen.append(output)
    )
    entering = EnteringStates(1, lambda _: states_TH)
    found = outcome(model, model.features(batch, pooling, layers, entering))
    below.remove()
    assert seen
    assert all(output.data_ptr() == states_TH.data_ptr() for output in seen)
    return found


def assert_same(model, pooling="mean", layers="last"):
    batch = random_batch(LENGTHS)
    expected, whole = outcome(model, model.features(batch, pooling, layers))
    found, gradients = upper_alone(model, batch, pooling, layers)
    assert (found - expected[:, -found.shape[1] :]).abs().max() < 1e-6
    assert gradients.keys() == whole.keys()
    for name, gradient in whole.items():
        assert (gradients[name] - gradient).abs().max() < 1e-6 * max(1.0, gradient.abs().max())
    again, _ = outcome(model, model.features(batch, pooling, layers))
    assert torch.equal(again, expected)  # no layer stays left out


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_upper_layers_of_every_family_are_those_of_the_whole(tmp_path, family, pooling):
    backbone = load_backbone(save(tmp_path / "model", FAMILIES[family]))
    model = randomised(backbone, [Layer(TASK, UPPER, is_trained=True)])
    assert model.lowest_trained == 1
    assert_same(model, pooling)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_upper_layers_of_encoders_are_those_of_the_whole(tmp_path, kind):
    backbone = load_backbone(str(random_encoder(tmp_path / "encoder", ENCODERS[kind])))
    adapter = LoRA(targets=("dense", "Wi", "Wo"), layers=1)
    assert_same(randomised(backbone, [Layer(TASK, adapter, is_trained=True)]))


@pytest.mark.parametrize("domain", [LoRA(rank=2), Prefix(virtual_tokens=3), UPPER])
def test_a_frozen_domain_adapter_acts_below_and_above(tmp_path, domain):
    backbone = load_backbone(str(random_llama(tmp_path / "model")))
    layers = [Layer(DOMAIN, domain, is_trained=True), Layer(TASK, UPPER, is_trained=True)]
    model = randomised(backbone, layers)
    model.adapters[DOMAIN].set_trained(is_trained=False)
    assert_same(model, layers=(1, 2))


def test_layers_that_are_recomputed_stay_so(tmp_path):
    backbone = load_backbone(str(random_llama(tmp_path / "model")))
    recompute_layers(backbone)
    before = backbone.blocks[0].forward
    assert_same(randomised(backbone, [Layer(TASK, UPPER, is_trained=True)]))
    assert backbone.blocks[0].forward is before


@pytest.mark.parametrize(
    ("specs", "lowest"),
    [
        ([(LoRA(), False), (LoRA(layers=1), True)], 3),
        ([(LoRA(), True), (LoRA(layers=1), True)], 0),
        ([(LoRA(layers=3), True), (LoRA(layers="top half"), True)], 1),
        ([(Prompt(virtual_tokens=2), False), (AdaptationPrompt(layers=2), True)], 2),
        ([(LoRA(layers=9), True)], 0),
        ([(LoRA(), False)], 0),
    ],
)
def test_the_lowest_layer_is_that_of_all_that_trains(tmp_path, specs, lowest):
    backbone = load_backbone(str(random_llama(tmp_path / "model", layers=4)))
    names = (DOMAIN, TASK)
    layers = [
        Layer(n, spec, is_trained) for n, (spec, is_trained) in zip(names, specs, strict=False)
    ]
    assert stack(backbone, layers).lowest_trained == lowest


def test_a_lora_of_the_topmost_layers_is_one_for_peft_too(tmp_path):
    folder = random_llama(tmp_path / "model", layers=4)
    spec = LoRA(rank=4, alpha=8, layers="top quarter")
    model = randomised(load_backbone(str(folder)), [Layer(TASK, spec, is_trained=True)])
    assert all(".layers.3." in name for name in model.parameters_by_name())
    save_adapter(tmp_path / "adapter", model.adapters[TASK], model.backbone)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"model.layers.3.self_attn.{x}_proj" for x in "qv"]
    assert read_adapter(tmp_path / "adapter").spec == spec
    batch = random_batch([9])
    plain = AutoModelForCausalLM.from_pretrained(folder).double()
    with torch.inference_mode():
        expected = model.hidden_states(batch)
        theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter").double()
        found = theirs(batch.ids_T[None], output_hidden_states=True).hidden_states[-1][0]
    assert (found - expected).abs().max() < 1e-6


def test_layers_of_a_backbone_that_is_not_known_are_refused():
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    backbone = Backbone(GPT2LMHeadModel(config), "gpt2", "x", 32, Reach(0, sees_ahead=False))
    with pytest.raises(BundleError, match="layers of backbone gpt2 are not known one by one"):
        stack(backbone, [Layer(TASK, LoRA(targets=("c_attn",), layers=1), is_trained=True)])


def test_layers_without_such_a_module_are_refused(tmp_path):
    backbone = load_backbone(str(random_llama(tmp_path / "model")))
    with pytest.raises(BundleError, match="no layer named embed_tokens"):
        stack(backbone, [Layer(TASK, LoRA(targets=("embed_tokens",), layers=1), is_trained=True)])
