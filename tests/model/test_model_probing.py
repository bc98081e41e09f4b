"""What a token of a row sees is measured, and what cannot share a row is computed alone."""

from dataclasses import replace

import peft
import pytest
import torch
from builders import random_documents, random_llama
from tiny_families import tiny_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Phi3Config

from notetune.errors import BackboneError, BundleError
from notetune.model.adapters.specs import AdaptationPrompt, LoRA, Prefix, Prompt
from notetune.model.backbone import Backbone, load_backbone, outline_backbone, write_backbone
from notetune.model.batch import packed_batch
from notetune.model.heads import pool
from notetune.model.merge import merge_adapters
from notetune.model.probing import Reach
from notetune.model.stack import DOMAIN, Layer, stack

LENGTHS = [7, 30, 2, 19, 7, 1]
ALONE = ["gemma2", "jamba", "mamba", "qwen3_5_text"]
SMALL = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": None,
}


def saved(model, folder):
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=ALONE)
def alone(request, tmp_path):
    return saved(tiny_model(request.param), tmp_path)


def new_folder(folder):
    folder.mkdir()
    return folder


def twice(model, lengths=LENGTHS):
    """Hidden states of a row, and of its documents in rows of their own."""
    documents = random_documents(lengths)
    with torch.inference_mode():
        row = model.hidden_states(packed_batch(documents, range(len(documents))))
        each = [model.hidden_states(packed_batch([ids], [0])) for ids in documents]
    return row, torch.cat(each)


def test_documents_that_would_see_each_other_are_computed_alone_and_the_outline_foresees_it(alone):
    backbone = load_backbone(alone)
    assert backbone.reach == outline_backbone(alone).reach == Reach(0, sees_ahead=False)
    assert torch.equal(*twice(backbone))


def test_without_the_measured_reach_a_hybrid_would_leak(tmp_path):
    folder = saved(tiny_model("qwen3_5_text"), tmp_path)
    backbone = load_backbone(folder)
    backbone.model.set_attn_implementation("notetune_packed")
    row, each = twice(replace(backbone, reach=Reach(128, sees_ahead=False)))
    moved_T = (row - each).abs().amax(1)
    assert moved_T[:7].max() < 1e-5
    assert moved_T[7:].max() > 1e-2


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_features_of_documents_alone_are_pooled_as_those_of_rows(alone, pooling):
    model = stack(load_backbone(alone))
    batch = packed_batch(random_documents(LENGTHS), range(6), pieces_N=(2, 1, 3))
    with torch.inference_mode():
        found = model.features(batch, pooling)
        assert torch.equal(found, pool(model.hidden_states(batch), batch, pooling))
    assert len(found) == 3


@pytest.mark.parametrize("spec", [Prefix(), AdaptationPrompt()], ids=lambda spec: spec.kind)
def test_a_method_within_attention_is_refused_by_name_where_attention_is_not_ours(alone, spec):
    with pytest.raises(BundleError, match=rf"domain \({spec.kind}\) acts within attention"):
        stack(load_backbone(alone), [Layer(DOMAIN, spec, is_trained=True)])


@pytest.mark.parametrize("model_type", ["gemma2", "qwen3_5_text"])
def test_a_prompt_before_documents_alone_equals_plain_peft(model_type, tmp_path):
    folder = saved(tiny_model(model_type), tmp_path)
    layer = Layer(DOMAIN, Prompt(virtual_tokens=3), is_trained=True)
    model = stack(load_backbone(folder), [layer])
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    plain = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).eval()
    (own,) = model.parameters_by_name().values()
    with torch.inference_mode():
        plain.prompt_encoder["default"].embedding.weight.copy_(own)
        documents = random_documents([6, 4])
        found = model.backbone.head(model.hidden_states(packed_batch(documents, range(2))))
        each = [plain(torch.from_numpy(ids)[None]).logits[0, 3:] for ids in documents]
    assert (found - torch.cat(each)).abs().max() < 1e-5


def test_lora_on_documents_alone_learns(tmp_path):
    folder = saved(tiny_model("qwen3_5_text"), tmp_path)
    model = stack(load_backbone(folder), [Layer(DOMAIN, LoRA(rank=2), is_trained=True)])
    model.summed_token_loss(packed_batch(random_documents([5, 9]), range(2))).backward()
    learning = [p for n, p in model.parameters_by_name().items() if "lora_B" in n]
    assert learning
    assert all(parameter.grad.abs().max() > 0 for parameter in learning)


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


@pytest.fixture
def long_rope(tmp_path):
    config = Phi3Config(
        **SMALL,
        max_position_embeddings=64,
        original_max_position_embeddings=16,
        rope_parameters=LONG_ROPE,
    )
    torch.manual_seed(0)
    return saved(AutoModelForCausalLM.from_config(config), tmp_path)


def test_rows_are_shared_up_to_the_border_of_longrope_and_not_beyond(long_rope):
    backbone = load_backbone(long_rope)
    assert backbone.reach == outline_backbone(long_rope).reach == Reach(16, sees_ahead=False)
    for lengths, is_shared in (([16, 3, 9], True), ([3, 30, 9], False)):
        row, each = twice(backbone, lengths)
        assert (row - each).abs().max() < 1e-5
        batch = packed_batch(random_documents(lengths), range(3))
        assert backbone.shares_row(batch, stack(backbone)._additions()) == is_shared
    unlimited = replace(backbone, reach=Reach(64, sees_ahead=False))
    row, each = twice(unlimited, [3, 30, 9])
    assert (row - each).abs().max() > 1e-3


def test_a_decoder_that_sees_ahead_is_found_by_measuring(tmp_path):
    config = Gemma3TextConfig(**SMALL, head_dim=8, use_bidirectional_attention=True)
    torch.manual_seed(0)
    folder = saved(AutoModelForCausalLM.from_config(config), tmp_path / "gemma")
    backbone = load_backbone(folder)
    assert backbone.is_encoder
    assert outline_backbone(folder).is_encoder
    assert not load_backbone(str(random_llama(tmp_path / "llama"))).is_encoder
    with pytest.raises(BackboneError, match="is an encoder"):
        stack(backbone).summed_token_loss(packed_batch(random_documents([5]), [0]))


def test_the_outline_has_what_the_loaded_backbone_has(tmp_path):
    for model_type in ("gpt2", "roberta", "mixtral"):
        folder = saved(tiny_model(model_type), tmp_path / model_type)
        loaded, outline = load_backbone(folder), outline_backbone(folder)
        assert isinstance(loaded, Backbone)
        assert loaded.reach == outline.reach
        assert loaded.first_position == outline.first_position
        assert loaded.max_positions == outline.max_positions
    assert loaded.reach.packs_to == 128


def test_a_folder_with_images_loads_its_text_model_and_no_adapter_reaches_the_rest(tmp_path):
    whole = tiny_model("gemma3")
    folder = saved(whole, tmp_path / "whole")
    assert any("vision" in name for name, _ in whole.named_parameters())
    backbone = load_backbone(folder)
    outline = {name: p.shape for name, p in outline_backbone(folder).model.named_parameters()}
    assert {name: p.shape for name, p in backbone.model.named_parameters()} == outline
    model = stack(backbone, [Layer(DOMAIN, LoRA(rank=2), is_trained=True)])
    names = list(model.parameters_by_name())
    assert len(names) == 4 * 2 * 2
    assert not [name for name in names if "vision" in name]
    write_backbone(new_folder(tmp_path / "text"), backbone, merge_adapters(model).tensors)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        assert (plain(ids).logits - whole(ids).logits).abs().max() < 1e-4
