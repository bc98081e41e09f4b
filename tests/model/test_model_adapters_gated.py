"""Adaptation prompts go onto layers that the backbone has."""

import pytest
from builders import put, random_llama
from transformers import AutoModelForCausalLM

from notetune.errors import BundleError
from notetune.model.adapters.specs import AdaptationPrompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


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
