"""Families of decoders: packed rows are exact, and what cannot be exact is refused."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import VOCABULARY, byte_tokenizer, random_documents
from tiny_families import tiny_model
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from notetune.errors import BackboneError
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.batch import packed_batch
from notetune.model.stack import DOMAIN, Layer, stack

LENGTHS = [7, 30, 2, 19, 7, 1]
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES = {
    "LLaMA 1": LlamaConfig(**SMALL | {"num_key_value_heads": 4}),
    "LLaMA 2": LlamaConfig(**SMALL, rms_norm_eps=1e-5, tie_word_embeddings=False),
    "LLaMA 3": LlamaConfig(**SMALL | {"eos_token_id": [1, 2]}, rope_parameters=LLAMA3_ROPE),
    "LLaMA 3.2, tied": LlamaConfig(**SMALL, head_dim=16, tie_word_embeddings=True),
    "Mistral, one head of keys": MistralConfig(**SMALL | {"num_key_value_heads": 1}),
    "Mistral, window of 6": MistralConfig(**SMALL, sliding_window=6),
    "Qwen2, tied": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "Qwen2, window in one layer": Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "Qwen3": Qwen3Config(**SMALL, head_dim=16),
}


@dataclass(frozen=True)
class Saved:
    folder: str
    config: PreTrainedConfig


def save(folder, config, **options):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers begins with zeros, which would test nothing
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder, **options)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture(params=FAMILIES, ids=lambda name: name.replace(" ", "-"))
def saved(request, tmp_path):
    config = FAMILIES[request.param]
    return Saved(save(tmp_path / "model", config), config)


def logits_one_by_one(folder, documents, dtype=torch.float32):
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.inference_mode():
        return [plain(torch.from_numpy(ids)[None]).logits[0].float() for ids in documents]


def packed_logits(backbone, documents):
    with torch.inference_mode():
        batch = packed_batch(documents, range(len(documents)))
        return backbone.head(backbone.hidden_states(batch)).float().split(LENGTHS)


def test_packed_rows_equal_plain_transformers_on_one_document(saved):
    documents = random_documents(LENGTHS)
    packed = packed_logits(load_backbone(saved.folder), documents)
    alone = logits_one_by_one(saved.folder, documents)
    differences = [(a - b).abs().max().item() for a, b in zip(packed, alone, strict=True)]
    assert len(differences) == len(LENGTHS)
    assert max(differences) < 1e-5


def test_bfloat16_rows_equal_plain_transformers_up_to_its_rounding(saved):
    documents = random_documents(LENGTHS)
    backbone = load_backbone(saved.folder, "bfloat16")
    packed = torch.cat(packed_logits(backbone, documents))
    alone = torch.cat(logits_one_by_one(saved.folder, documents, torch.bfloat16))
    exact = torch.cat(logits_one_by_one(saved.folder, documents))
    rounding = (alone - exact).square().mean().sqrt()
    assert 0 < (packed - exact).square().mean().sqrt() < 1.5 * rounding
    assert backbone.dtype == "bfloat16"


def test_an_outline_has_the_shapes_of_the_loaded_backbone_and_needs_no_weights(saved):
    loaded = load_backbone(saved.folder)
    shapes = {name: tuple(p.shape) for name, p in loaded.model.named_parameters()}
    weights = Path(saved.folder) / "model.safetensors"
    weights.unlink()
    outline = outline_backbone(saved.folder, "bfloat16")
    assert {name: tuple(p.shape) for name, p in outline.model.named_parameters()} == shapes
    assert (outline.device.type, outline.dtype) == ("meta", "bfloat16")
    assert outline.hidden_size == loaded.hidden_size
    assert outline.max_positions == loaded.max_positions == 128


def test_a_window_changes_long_documents_so_the_test_above_sees_it(tmp_path):
    documents = random_documents(LENGTHS)
    windowed = FAMILIES["Mistral, window of 6"]
    folder = save(tmp_path / "model", windowed)
    before = packed_logits(load_backbone(folder), documents)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sliding_window": None}))
    after = packed_logits(load_backbone(folder), documents)
    changed = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True)]
    assert changed == [length > 6 for length in LENGTHS]


def test_sharded_weights_are_those_of_one_file(tmp_path):
    config = FAMILIES["LLaMA 2"]
    one = load_backbone(save(tmp_path / "one", config))
    folder = save(tmp_path / "shards", config, max_shard_size="30KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) >= 3
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    documents = random_documents(LENGTHS)
    pairs = zip(
        packed_logits(one, documents), packed_logits(load_backbone(folder), documents), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    shards[1].unlink()
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(folder)


def test_adapters_and_loss_stay_in_float32_on_a_bfloat16_backbone(tmp_path):
    from notetune.model.adapters.specs import LoRA

    backbone = load_backbone(save(tmp_path / "model", FAMILIES["LLaMA 3"]), "bfloat16")
    model = stack(backbone, [Layer(DOMAIN, LoRA(rank=2), is_trained=True)])
    batch = packed_batch(random_documents(LENGTHS), range(len(LENGTHS)))
    loss = model.summed_token_loss(batch)
    loss.backward()
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    assert len(trained) == 8  # two matrices in two layers, each of two tensors
    assert model.trainable_count == sum(p.numel() for p in trained)
    assert {p.dtype for p in trained} == {p.grad.dtype for p in trained} == {torch.float32}
    assert loss.dtype == torch.float32


# What follows the last layer is part of the logits: a factor, a cap.
LOGITS = {
    "scaled": GraniteConfig(**SMALL, logits_scaling=8.0),
    "capped": Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.5),
    "multiplied": CohereConfig(**SMALL, logit_scale=0.0625),
}


@pytest.mark.parametrize("config", LOGITS.values(), ids=LOGITS.keys())
def test_logits_are_scaled_and_capped_as_transformers_has_them(config, tmp_path):
    folder = save(tmp_path / "model", config)
    backbone, documents = load_backbone(folder), random_documents(LENGTHS)
    found, expected = packed_logits(backbone, documents), logits_one_by_one(folder, documents)
    assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) < 1e-5
    bare = backbone.model.get_output_embeddings()
    with torch.inference_mode():
        states = backbone.hidden_states(packed_batch(documents[:1], [0]))
        assert (bare(states) - expected[0]).abs().max() > 1e-2


def test_a_decoder_whose_logits_are_made_in_another_way_is_refused(tmp_path):
    tiny_model("modernbert-decoder").save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="makes its logits in a way"):
        load_backbone(str(tmp_path))


def test_a_configuration_that_names_impossible_layers_is_refused(tmp_path):
    folder = save(tmp_path / "model", FAMILIES["Qwen3"])
    config = tmp_path / "model" / "config.json"
    kinds = {"layer_types": ["full_attention", "linear_attention"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | kinds))
    with pytest.raises(BackboneError, match="cannot be run on token ids alone"):
        load_backbone(folder)


def test_a_document_longer_than_the_backbone_was_built_for_is_refused(tmp_path):
    backbone = load_backbone(save(tmp_path / "model", FAMILIES["LLaMA 1"]))
    with pytest.raises(BackboneError, match="129 tokens, but backbone model was built for 128"):
        backbone.hidden_states(packed_batch([np.full(129, 5)], [0]))
