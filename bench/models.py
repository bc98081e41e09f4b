"""The models that the benchmarks of training run: shapes, and the same weights for all sides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from documents import MAX_TOKENS, TINY, Notes
from rows import timed
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from notetune.model.backbone import Backbone
from notetune.model.probing import Reach

SHAPES: dict[str, dict[str, Any]] = {
    "llama-18m": {
        "hidden_size": 320,
        "intermediate_size": 864,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "tie_word_embeddings": True,
    },
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "tiny": {},
    "quick": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}


PlainDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Setting:
    """What all sides of a benchmark have in common."""

    shape: str
    notes: Notes
    device: torch.device
    dtype: PlainDtype
    tokens_per_row: int

    def model(self, attention: str) -> Any:
        """The model with its weights, the same at every call, frozen."""
        options = {"dtype": getattr(torch, self.dtype), "attn_implementation": attention}
        if self.shape == "tiny" and self.device.type != "meta":
            model = AutoModelForCausalLM.from_pretrained(TINY, **options).to(self.device)
        else:
            torch.manual_seed(0)
            with self.device:
                model = AutoModelForCausalLM.from_config(config_of(self.shape), **options)
        return model.requires_grad_(requires_grad=False).eval()

    def backbone(self, model: Any) -> Backbone:
        """A model as we handle it."""
        most = 2 * MAX_TOKENS
        return Backbone(model, self.shape, "bench", most, Reach(most, sees_ahead=False))


def dtype_on(device: torch.device, given: PlainDtype | None) -> PlainDtype:
    """What is given, or else what suits the device."""
    return given or ("float32" if device.type == "cpu" else "bfloat16")


def config_of(shape: str) -> Any:
    """The configuration of a shape."""
    if shape == "tiny":
        return AutoConfig.from_pretrained(TINY)
    values = {"vocab_size": 32_000, "max_position_embeddings": 2 * MAX_TOKENS, **SHAPES[shape]}
    return LlamaConfig(**values, initializer_range=0.02)


def timed_on(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds of a work, with what it left to a GPU."""

    def run() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return timed(run)[0]
