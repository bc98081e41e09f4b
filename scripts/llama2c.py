"""Convert a llama2.c checkpoint to a backbone folder.

python scripts/llama2c.py stories260K.bin tok512.model FOLDER
"""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from notetune import runs, storage
from notetune.errors import BackboneError
from notetune.model.piece_tokenizer import to_tokenizer

_HEADER = struct.Struct("<7i")
_VERSIONED_MAGIC = 0x616B3432


@dataclass(frozen=True)
class Shape:
    """The header of a llama2.c file, in its order.

    A negative vocabulary in the file says that the output layer is not the embedding;
    `has_own_output` holds that here.
    """

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    positions: int
    has_own_output: bool

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def parts(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of every block of weights, in file order."""
        kv = self.kv_heads * self.head_size
        rotary = (self.positions, self.head_size // 2)
        blocks: list[tuple[str, tuple[int, ...]]] = [
            ("embedding", (self.vocabulary, self.hidden)),
            ("attention_norm", (self.layers, self.hidden)),
            ("q", (self.layers, self.hidden, self.hidden)),
            ("k", (self.layers, kv, self.hidden)),
            ("v", (self.layers, kv, self.hidden)),
            ("o", (self.layers, self.hidden, self.hidden)),
            ("feed_forward_norm", (self.layers, self.hidden)),
            ("gate", (self.layers, self.feed_forward, self.hidden)),
            ("down", (self.layers, self.hidden, self.feed_forward)),
            ("up", (self.layers, self.feed_forward, self.hidden)),
            ("norm", (self.hidden,)),
            ("rotary_cosine", rotary),
            ("rotary_sine", rotary),
        ]
        if self.has_own_output:
            blocks.append(("output", (self.vocabulary, self.hidden)))
        return blocks


def convert(weights: Path, tokenizer: Path, folder: Path) -> Shape:
    """Write a Hugging Face LLaMA folder from a llama2.c checkpoint and its SentencePiece model.

    Raises:
        BackboneError: If a file is missing or not of its format, or the two do not fit.
    """
    for path in (weights, tokenizer):
        if not path.is_file():
            raise BackboneError(f"{path} is not a file; give the .bin and the .model of llama2.c.")
    shape, blocks = read_weights(weights)
    pieces = read_pieces(tokenizer)
    if len(pieces) != shape.vocabulary:
        raise BackboneError(
            f"{tokenizer} has {len(pieces)} pieces but {weights} embeds {shape.vocabulary} tokens; "
            "they belong to different models."
        )
    with runs.new_folder(folder, {"weights": weights.name, "tokenizer": tokenizer.name}) as new:
        save_file(to_huggingface(shape, blocks), new / "model.safetensors", {"format": "pt"})
        storage.write_json(new / "config.json", _config(shape))
        to_tokenizer(pieces).save(str(new / "tokenizer.json"))
    return shape


def read_weights(path: Path) -> tuple[Shape, dict[str, npt.NDArray[np.float32]]]:
    """Header and named weight blocks of a llama2.c checkpoint (its first, unversioned format).

    Raises:
        BackboneError: If the header is not one, or the file is not as long as it says.
    """
    data = path.read_bytes()
    if len(data) < _HEADER.size or int.from_bytes(data[:4], "little") == _VERSIONED_MAGIC:
        raise BackboneError(
            f"{path} is not a llama2.c checkpoint of the unversioned float32 format; export it "
            "with version 0."
        )
    hidden, feed_forward, layers, heads, kv_heads, vocabulary, positions = _HEADER.unpack_from(data)
    sizes = (hidden, feed_forward, layers, heads, kv_heads, abs(vocabulary), positions)
    if min(sizes) < 1 or max(sizes) > 1 << 24 or hidden % heads or heads % kv_heads:
        raise BackboneError(f"{path} is not a llama2.c checkpoint: its header holds {sizes}.")
    shape = Shape(*sizes, has_own_output=vocabulary < 0)
    counts = [int(np.prod(size)) for _, size in shape.parts]
    expected = _HEADER.size + 4 * sum(counts)
    if len(data) != expected:
        raise BackboneError(
            f"{path} has {len(data)} bytes but its header asks for {expected}; it is damaged or "
            "of another format."
        )
    values = np.frombuffer(data, np.float32, offset=_HEADER.size)
    pieces = np.split(values, np.cumsum(counts)[:-1])
    named = zip(shape.parts, pieces, strict=True)
    return shape, {name: block.reshape(size) for (name, size), block in named}


def to_huggingface(shape: Shape, blocks: dict[str, npt.NDArray[np.float32]]) -> dict[str, Tensor]:
    """The blocks under transformers' names; query and key rows reordered for its rotary layout."""
    tensors = {
        "model.embed_tokens.weight": blocks["embedding"],
        "model.norm.weight": blocks["norm"],
    }
    if shape.has_own_output:
        tensors["lm_head.weight"] = blocks["output"]
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": blocks["attention_norm"][layer],
            f"{at}.self_attn.q_proj.weight": _halves(blocks["q"][layer], shape.heads),
            f"{at}.self_attn.k_proj.weight": _halves(blocks["k"][layer], shape.kv_heads),
            f"{at}.self_attn.v_proj.weight": blocks["v"][layer],
            f"{at}.self_attn.o_proj.weight": blocks["o"][layer],
            f"{at}.post_attention_layernorm.weight": blocks["feed_forward_norm"][layer],
            f"{at}.mlp.gate_proj.weight": blocks["gate"][layer],
            f"{at}.mlp.up_proj.weight": blocks["up"][layer],
            f"{at}.mlp.down_proj.weight": blocks["down"][layer],
        }
    return {name: torch.from_numpy(np.array(block)) for name, block in tensors.items()}


def _halves(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """llama2.c rotates neighbouring rows of a head, transformers its first and second half."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": not shape.has_own_output,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }


def read_pieces(path: Path) -> list[tuple[str, float]]:
    """The pieces of a SentencePiece model, each with its score."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromFile(str(path))
    except (RuntimeError, OSError):
        raise BackboneError(f"{path} is not a SentencePiece model.") from None
    return [
        (processor.IdToPiece(number), processor.GetScore(number))
        for number in range(processor.GetPieceSize())
    ]


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
