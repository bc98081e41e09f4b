"""Decoder backbones from local Hugging Face folders."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from notetune import runs
from notetune.errors import BackboneError
from notetune.model.attention import PACKED_ATTENTION
from notetune.model.batch import PackedBatch

SHIPPED_BACKBONE = "tiny"
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}


@dataclass(frozen=True)
class Backbone:
    """A causal language model that runs on packed rows.

    Attributes:
        model: The transformers model, its parameters frozen.
        name: The folder's name, without its path.
        fingerprint: Decided by its configuration, tokenizer and weights.
        max_positions: Longest document it was built for, in tokens.
    """

    model: nn.Module
    name: str
    fingerprint: str
    max_positions: int

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """`(T, H)` last hidden states, after the final norm, of a packed row."""
        decoder: Any = self.model.get_decoder()  # type: ignore[operator]
        output = decoder(
            input_ids=batch.ids_T.unsqueeze(0),
            position_ids=batch.positions_T.unsqueeze(0),
            use_cache=False,
            document_lengths=batch.lengths_D,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden.squeeze(0)

    def logits(self, hidden_TH: Tensor) -> Tensor:
        """`(T, V)` next-token logits of hidden states."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        logits: Tensor = head(hidden_TH)
        return logits


def resolve_backbone(name: str) -> Path:
    """The folder of a backbone: a path, or the name of the shipped one.

    Raises:
        BackboneError: If it is not a folder with a safetensors model, or holds pickled weights
            only, or asks to run code of its own.
    """
    shipped = Path(str(files("notetune") / "backbones" / name))
    folder = shipped if name == SHIPPED_BACKBONE and shipped.is_dir() else Path(name)
    if not folder.is_dir():
        raise BackboneError(
            f"backbone {name} is not a folder; give a Hugging Face model folder or "
            f"`{SHIPPED_BACKBONE}` for the shipped one."
        )
    config = folder / "config.json"
    if not config.is_file():
        raise BackboneError(f"{folder} has no config.json, so it is not a backbone folder.")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES]
        found = f"only the pickled checkpoint {pickles[0]}" if pickles else "no weights"
        raise BackboneError(
            f"{folder} holds {found}; a pickle can run code, so only .safetensors is read. "
            "Convert it with `save_pretrained(..., safe_serialization=True)`."
        )
    if "auto_map" in _read_config(config):
        raise BackboneError(f"{config} asks to run code of its own (auto_map); that is refused.")
    return folder


def load_backbone(
    name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Backbone:
    """Load a decoder, frozen and in evaluation mode.

    Raises:
        BackboneError: If the folder cannot be used, or its weights do not fit its configuration.
    """
    folder = resolve_backbone(name)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, loading = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                attn_implementation=PACKED_ATTENTION,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"{folder} cannot be loaded as a decoder ({type(error).__name__}); check that "
            "config.json and the safetensors files belong together."
        ) from None
    if loading["missing_keys"] or loading["mismatched_keys"]:
        lacking = [*loading["missing_keys"], *loading["mismatched_keys"]]
        raise BackboneError(
            f"{folder} lacks or misshapes {len(lacking)} weights, {lacking[0]} first; it is "
            "incomplete or not a decoder."
        )
    model.requires_grad_(requires_grad=False).eval().to(device)
    max_positions = int(model.config.max_position_embeddings)
    return Backbone(model, folder.resolve().name, backbone_fingerprint(folder), max_positions)


def backbone_fingerprint(folder: Path) -> str:
    """Fingerprint of configuration, tokenizer and weights."""
    return runs.fingerprint({path.name: runs.sha256_of_file(path) for path in _parts(folder)})


def _parts(folder: Path) -> Iterator[Path]:
    yield folder / "config.json"
    if (folder / "tokenizer.json").is_file():
        yield folder / "tokenizer.json"
    yield from sorted(folder.glob("*.safetensors"))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise BackboneError(f"{path} is not JSON; copy the backbone again.") from None
    if not isinstance(config, dict):
        raise BackboneError(f"{path} is not a model configuration; copy the backbone again.")
    return config
