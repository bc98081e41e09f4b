"""A tiny model with random weights of any type of decoder that transformers knows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from builders import VOCABULARY, random_documents
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from notetune.errors import BackboneError
from notetune.model.adapters.specs import AdapterSpec
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.batch import packed_batch
from notetune.model.probing import head_of, whole_output
from notetune.model.stack import DOMAIN, Layer, stack

CAUSAL_TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
# What becomes of some of them; all others are in the slow tests.
FATES = {
    "camembert": "packed",
    "deepseek_v3": "packed",
    "gemma3": "packed",
    "gemma3_text": "packed",
    "gpt2": "packed",
    "granite": "packed",
    "mixtral": "packed",
    "olmo2": "packed",
    "opt": "packed",
    "phi3": "packed",
    "qwen3": "packed",
    "roberta": "packed",
    "falcon": "one document",
    "falcon_mamba": "one document",
    "gemma2": "one document",
    "gpt_oss": "one document",
    "jamba": "one document",
    "mamba": "one document",
    "megatron-bert": "one document",
    "qwen3_5_text": "one document",
    "qwen3_next": "one document",
    "modernbert-decoder": "refused",
}
# What this version of transformers makes no small model of, without files or libraries of others.
NOT_BUILT = {
    "bailing_hybrid", "blt", "cohere_compass_text", "dots3_note", "gemma3n", "gemma3n_text",
    "gemma4_assistant", "gemma4_unified_assistant", "glm4_moe_lite", "musicgen",
    "musicgen_melody", "qwen4_exp", "qwen4_exp_text", "zamba", "zamba2",
}  # fmt: skip
_LENGTHS = [7, 30, 2, 19, 7, 1]
_LAYERS, _HIDDEN, _HEADS = 4, 64, 4
_SIZES = {
    # Width of the states.
    "hidden_size": _HIDDEN, "d_model": _HIDDEN, "n_embd": _HIDDEN, "dim": _HIDDEN,
    "emb_dim": _HIDDEN, "word_embed_proj_dim": _HIDDEN, "embedding_size": _HIDDEN,
    "input_embedding_size": _HIDDEN, "output_embedding_size": _HIDDEN, "lru_width": _HIDDEN,
    "attention_hidden_size": _HIDDEN, "axial_pos_embds_dim": [32, 32],
    # Inside the layers.
    "intermediate_size": 96, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "ffn_dim": 96, "d_ff": 96, "n_inner": 96, "ffn_hidden_size": 96, "decoder_ffn_dim": 96,
    "encoder_ffn_dim": 96, "d_inner": 96, "dim_ff": 96, "mlp_hidden_size": 96,
    "feed_forward_size": 96, "shared_intermediate_size": 32, "dense_intermediate_size": 96,
    "intermediate_size_mlp": 96, "expert_ffn_hidden_size": 32, "dense_ffn_hidden_size": 96,
    # Layers.
    "num_hidden_layers": _LAYERS, "n_layer": _LAYERS, "n_layers": _LAYERS, "num_layers": _LAYERS,
    "decoder_layers": _LAYERS, "encoder_layers": 1, "num_decoder_layers": _LAYERS,
    "num_encoder_layers": 1, "num_blocks": _LAYERS, "num_mem_blocks": 1,
    # Heads.
    "num_attention_heads": _HEADS, "n_head": _HEADS, "n_heads": _HEADS, "num_heads": _HEADS,
    "num_key_value_heads": 2, "kv_n_heads": 2, "head_dim": 16, "dim_head": 16, "d_head": 16,
    "decoder_attention_heads": _HEADS, "encoder_attention_heads": _HEADS, "attn_head_dim": 16,
    "global_head_dim": 16, "num_encoder_attention_heads": _HEADS,
    "num_decoder_attention_heads": _HEADS, "num_ngram_attention_heads": _HEADS, "d_kv": 16,
    "swa_head_dim": 16, "swa_v_head_dim": 16, "v_head_dim": 16, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_head_dim": 24,
    "swa_num_attention_heads": _HEADS, "swa_num_key_value_heads": 2,
    "rotary_dim": 8,
    # Experts.
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "top_k": 2, "moe_topk": 2, "n_group": 1, "topk_group": 1,
    "n_shared_experts": 1, "moe_k": 2, "num_shared_experts": 1, "moe_top_k": 2,
    "zero_expert_num": 2, "num_experts_per_token": 2, "first_k_dense_replace": 1,
    # States and windows.
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 8, "n_mamba_heads": 2,
    "state_size": 8, "mamba_d_ssm": 128, "time_step_rank": 4, "mamba_expand": 2,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "sliding_window": 6, "sliding_window_size": 6,
    "local_attention": 8, "window_size": 6, "attention_window_size": 6,
    "attention_chunk_size": 6, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 4,
    # Tokens.
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY, "n_words": VOCABULARY,
    "hidden_size_per_layer_input": 16,
    "max_position_embeddings": 128, "n_positions": 128, "max_seq_len": 128, "n_ctx": 128,
    "max_sequence_length": 128, "context_length": 128, "n_special": 0,
}  # fmt: skip
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "pad_token_id": 1}
_NEEDED = ("head_dim", "num_key_value_heads", "num_experts_per_tok")  # even if None by default
_RANGE = {"initializer_range": 0.2, "init_std": 0.2}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """The default configuration of a type with small sizes, whatever names it has for them."""
    kind = type(AutoConfig.for_model(model_type))
    return kind(**_shrunk(kind()))


def _shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    found = {k: v for k, v in config.to_dict().items() if k != "model_type"}
    changes: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(sub := vars(config).get(name), PreTrainedConfig):
            changes[name] = {**_shrunk(sub), "model_type": sub.model_type}
        elif name in _SIZES and (value is not None or name in _NEEDED):
            is_list = isinstance(value, list) and name == "intermediate_size"
            changes[name] = [_SIZES[name]] * _LAYERS if is_list else _SIZES[name]
        elif name in _RANGE:
            changes[name] = _RANGE[name]
        elif name.endswith("token_id"):
            changes[name] = None if value is None else _IDS.get(name, VOCABULARY - 1)
        elif name in ("layer_types", "layers_block_type", "block_types"):
            changes[name] = _some_layers(value)
    if "qk_rope_head_dim" in found and "head_dim" in changes:
        changes["head_dim"] = changes["qk_rope_head_dim"]
        changes["num_key_value_heads"] = _HEADS
    changes |= _BESIDE.get(config.model_type, {})
    return changes


def _some_layers(kinds: Any) -> Any:
    """As many layers as are left, with each kind among them."""
    if not isinstance(kinds, list) or len(kinds) < _LAYERS:
        return kinds
    each = list(dict.fromkeys(kinds))
    return (each + kinds)[:_LAYERS]


_BESIDE: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 16]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_model(model_type: str) -> Any:
    """A model of a type, with weights large enough that everything in it acts."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(model_type), dtype=torch.float32).eval()


@dataclass(frozen=True)
class Tried:
    """What became of a folder as a backbone."""

    fate: Literal["packed", "one document", "refused"]
    why: str = ""
    error: float = 0.0
    """Largest difference from plain transformers, as a share of the largest output."""
    backbone: Backbone | None = None


def tried(folder: Path) -> Tried:
    """Load a folder and compare a row of documents with plain transformers on each alone."""
    documents = [ids.clip(max=VOCABULARY - 5) for ids in random_documents(_LENGTHS)]
    try:
        backbone = load_backbone(str(folder))
    except BackboneError as refusal:
        return Tried("refused", str(refusal).replace(str(folder), "FOLDER"))
    head = head_of(backbone.model)
    kind = AutoModel if head is None else AutoModelForCausalLM
    plain = kind.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = backbone.hidden_states(packed_batch(documents, range(len(documents))))
        found = head(states) if head else states
        expected = torch.cat([whole_output(plain, torch.from_numpy(ids)) for ids in documents])
    error = float((found - expected).abs().max() / expected.abs().max())
    fate = "packed" if backbone.reach.packs_to else "one document"
    return Tried(fate, error=error, backbone=backbone)


def adapted(backbone: Backbone, spec: AdapterSpec) -> Tensor:
    """Hidden states of a row with an adapter that was put on."""
    model = stack(backbone, [Layer(DOMAIN, spec, is_trained=True)])
    return model.hidden_states(packed_batch(random_documents([5, 3]), range(2)))
