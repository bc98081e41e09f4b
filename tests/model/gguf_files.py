"""Small GGUF files, written by the gguf package from weights in transformers' layout."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from tokenizers.pre_tokenizers import ByteLevel

LAYERS, HIDDEN, WIDE, HEADS, KV_HEADS = 2, 64, 96, 4, 2
CONTROL, USER_DEFINED = int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [
    "1 2",
    "12 3",
    "3 4",
    "a b",
    "\u0120 a",
    "\u010a \u010a",
]  # the last: a space, a line break
WHOLE = "qxz"  # a token that no merge leads to
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *("".join(m.split(" ")) for m in MERGES), WHOLE]
TOKENS += ["<think>"]


def weights():
    """By the name in transformers: GGUF name, type, heads whose rows llama.cpp reorders, values."""
    rng = np.random.default_rng(0)
    kv = HIDDEN // HEADS * KV_HEADS
    parts = {"model.embed_tokens": ("token_embd", Type.Q8_0, None, (len(TOKENS), HIDDEN))}
    for layer in range(LAYERS):
        at, to = f"model.layers.{layer}", f"blk.{layer}"
        parts |= {
            f"{at}.self_attn.q_proj": (f"{to}.attn_q", Type.Q8_0, HEADS, (HIDDEN, HIDDEN)),
            f"{at}.self_attn.k_proj": (f"{to}.attn_k", Type.Q4_1, KV_HEADS, (kv, HIDDEN)),
            f"{at}.self_attn.v_proj": (f"{to}.attn_v", Type.F32, None, (kv, HIDDEN)),
            f"{at}.self_attn.o_proj": (f"{to}.attn_output", Type.Q4_1, None, (HIDDEN, HIDDEN)),
            f"{at}.mlp.gate_proj": (f"{to}.ffn_gate", Type.Q4_1, None, (WIDE, HIDDEN)),
            f"{at}.mlp.up_proj": (f"{to}.ffn_up", Type.F16, None, (WIDE, HIDDEN)),
            f"{at}.mlp.down_proj": (f"{to}.ffn_down", Type.Q8_0, None, (HIDDEN, WIDE)),
            f"{at}.input_layernorm": (f"{to}.attn_norm", Type.F32, None, (HIDDEN,)),
            f"{at}.post_attention_layernorm": (f"{to}.ffn_norm", Type.F32, None, (HIDDEN,)),
        }
    parts["model.norm"] = ("output_norm", Type.F32, None, (HIDDEN,))
    return {
        f"{name}.weight": (f"{to}.weight", kind, heads, rng.normal(0, 0.4, size).astype(np.float32))
        for name, (to, kind, heads, size) in parts.items()
    }


def as_neighbours(rows, heads):
    """llama.cpp rotates neighbouring rows of a head, transformers its first and second half."""
    size = rows.shape[0] // heads
    order = [head * size + half * size // 2 + i for head in range(heads) for i in range(size // 2)
             for half in range(2)]  # fmt: skip
    return rows[order]


def write_gguf(path, *, architecture="llama", pre="smollm", tensors=None, edit=None):
    """A tiny decoder.

    `tensors` gives others by their GGUF name, as type and values, or None to leave one out; `edit`
    changes the writer before the file is written.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    kinds = [CONTROL] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL) - 1) + [USER_DEFINED]
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if edit is not None:
        edit(writer)
    for to, kind, heads, rows in weights().values():
        if to not in (tensors or {}):
            rows = as_neighbours(rows, heads) if heads else rows
            writer.add_tensor(to, gguf.quantize(rows, kind), raw_dtype=kind)
    for to, given in (tensors or {}).items():
        if given is not None:
            writer.add_tensor(to, given[1], raw_dtype=given[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
