"""Backbones from local Hugging Face folders: decoders, and encoders of the BERT kind."""

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from notetune import runs, storage
from notetune.errors import BackboneError, RunWarning
from notetune.model.attention import PACKED_ATTENTION, Additions, DocumentLayout, with_front
from notetune.model.backbone_folder import (
    BESIDE_WEIGHTS,
    WEIGHTS,
    Dtype,
    backbone_fingerprint,
    read_config,
    resolve_backbone,
)
from notetune.model.batch import PackedBatch, packed_batch
from notetune.model.device import capability_of, computed_in
from notetune.model.nf4 import is_nf4, quantise_layers
from notetune.model.semantic_types import add_semantic_types

_ENCODERS: dict[str, dict[str, Any]] = {  # with what leaves the unused pooling layer out
    "bert": {"add_pooling_layer": False},
    "modernbert": {},
}
_EXACT_LAYERS = {"full_attention", "sliding_attention"}
# Of the largest logit.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


class Shape(NamedTuple):
    """Layers, width of the hidden states, and of each layer query heads, key heads and width."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Backbone:
    """A language model that runs on packed rows."""

    model: Any
    """The transformers model, its parameters frozen."""
    name: str
    """The folder's name, without its path."""
    fingerprint: str
    """Decided by its configuration, tokenizer and weights."""
    max_positions: int
    """Longest document it was built for, in tokens."""
    is_encoder: bool = False
    """Whether a token sees what follows it, so that no next token can be predicted."""
    folder: Path | None = None
    """Where it was loaded from; None if it was made in memory."""

    @property
    def shape(self) -> Shape:
        """Sizes from its configuration."""
        config = _text_config(self.model)
        heads = int(config.num_attention_heads)
        return Shape(
            layers=int(config.num_hidden_layers),
            hidden=self.hidden_size,
            heads=heads,
            kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(config, "head_dim", None) or self.hidden_size // heads),
        )

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(_text_config(self.model).hidden_size)

    @property
    def dtype(self) -> Dtype:
        """Type of the weights; `nf4` if that is what the linear layers inside have."""
        is_bfloat16 = self.embeddings.weight.dtype == torch.bfloat16
        plain: Dtype = "bfloat16" if is_bfloat16 else "float32"
        return "nf4" if is_nf4(self.model) else plain

    @property
    def has_plain_weights(self) -> bool:
        """Whether every weight is a number of its own, which can train or take another in."""
        is_quantised = getattr(self.model.config, "quantization_config", None) is not None
        return not (is_quantised or is_nf4(self.model))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def embeddings(self) -> Any:
        """The layer from token ids to embeddings."""
        return self.model.get_input_embeddings()

    @property
    def blocks(self) -> Sequence[Any]:
        """Its layers from below, of a build that is known; else none."""
        body = self.model.get_decoder()
        inside = getattr(body, "encoder", None)
        return getattr(body, "layers", None) or getattr(inside, "layer", None) or ()

    def token_ids(self, text: str) -> list[int]:
        """A short text as token ids, with the special tokens that the tokenizer adds.

        Raises:
            BackboneError: If the backbone has no tokenizer.
        """
        path = self.folder / "tokenizer.json" if self.folder else None
        if path is None or not path.is_file():
            raise BackboneError(f"backbone {self.name} has no tokenizer.json to read a text with.")
        ids: list[int] = Tokenizer.from_file(str(path)).encode(text).ids
        return ids

    def hidden_states(
        self,
        batch: PackedBatch,
        additions: Additions | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """`(T, H)` last hidden states, after the final norm, of the text tokens of a packed row.

        With `layers` those of each stand side by side, `(T, H * layers)`.

        Raises:
            BackboneError: If a document is longer than the backbone was built for.
        """
        additions = additions or Additions()
        front, before = additions.slot_count, additions.prefix_length
        longest, virtual = max(batch.lengths_D), front + before
        if longest + virtual > self.max_positions:
            more = f" and {virtual} virtual tokens" if virtual else ""
            raise BackboneError(
                f"a document has {longest} tokens{more}, but backbone {self.name} was built "
                f"for {self.max_positions}; lower prepare.max_tokens."
            )
        lengths_D = tuple(front + length for length in batch.lengths_D)
        positions_T = batch.positions_T + before
        inputs = {"input_ids": batch.ids_T.unsqueeze(0)}
        if front:
            source_R = with_front(front, batch.lengths_D)
            text_T = (source_R >= front).nonzero().squeeze(1).to(self.device)
            source_R = source_R.to(self.device)
            text_TH = self.embeddings(batch.ids_T)
            slots = [slots_SH.to(text_TH.dtype) for slots_SH in additions.slots]
            embeddings_RH = torch.cat([*slots, text_TH]).index_select(0, source_R)
            inputs = {"inputs_embeds": embeddings_RH.unsqueeze(0)}
            slot_positions_S = torch.arange(before, before + front, device=self.device)
            positions_T = torch.cat([slot_positions_S, positions_T + front])[source_R]
        output = self.model.get_decoder()(
            **inputs,
            position_ids=positions_T.unsqueeze(0),
            use_cache=False,
            output_hidden_states=layers is not None and min(layers) < self.shape.layers,
            documents=DocumentLayout(lengths_D, additions, self.device),
        )
        last = {self.shape.layers: output.last_hidden_state}  # transformers may norm it only there
        chosen = last.keys() if layers is None else layers
        states = [last[n] if n in last else output.hidden_states[n] for n in chosen]
        hidden = torch.cat(states, -1).squeeze(0)
        return hidden.index_select(0, text_T) if front else hidden

    @property
    def head(self) -> Any:
        """The layer from `(T, H)` hidden states to `(T, V)` next-token logits.

        Raises:
            BackboneError: If the backbone is an encoder.
        """
        if self.is_encoder:
            raise BackboneError(
                f"{self.name} is an encoder, which predicts no next token; give a decoder as the "
                "backbone and name encoders under encoders.models."
            )
        return self.model.get_output_embeddings()


def load_backbone(
    name: str, dtype: Dtype = "float32", device: torch.device | str = "cpu"
) -> Backbone:
    """Load a decoder or an encoder by folder or name, frozen and in evaluation mode.

    Its weights are kept in `dtype`, whatever they are stored in; a card without bfloat16 keeps
    them in float32 instead, which is warned of.

    Raises:
        BackboneError: If the folder cannot be used, its weights do not fit its configuration, or
            a packed row would not give exactly what its documents give alone.
    """
    folder = resolve_backbone(name)
    device = torch.device(device)
    kind, options = _kind(folder)
    plain = _plain(dtype, device)
    # What is stored is read as it is used, so that layers in nf4 are never there in another type.
    stored = "auto" if dtype == "nf4" else plain
    model, loading = _from_folder(
        kind, folder, stored, use_safetensors=True, output_loading_info=True, **options
    )
    if loading["missing_keys"] or loading["mismatched_keys"]:
        lacking = [*loading["missing_keys"], *loading["mismatched_keys"]]
        raise BackboneError(
            f"{folder} lacks or misshapes {len(lacking)} weights, {lacking[0]} first; it is "
            "incomplete or not a language model."
        )
    if kind is AutoModel:
        add_semantic_types(model.get_input_embeddings().weight, folder)
    if dtype == "nf4":
        _refuse_quantised(model, folder)
        quantise_layers(model.get_decoder(), device)
        _convert(model, plain)
    backbone = _backbone(model.to(device), folder, backbone_fingerprint(folder))
    _refuse_inexact(backbone)
    return backbone


def outline_backbone(
    name: str, dtype: Dtype = "float32", capability: tuple[int, int] | None = None
) -> Backbone:
    """A backbone on the meta device: shapes and types from `config.json`, no weights.

    Types are those on a card of a compute capability, or else on a CPU.

    Raises:
        BackboneError: If the folder has no usable configuration.
    """
    folder = resolve_backbone(name, needs_weights=False)
    plain = getattr(torch, computed_in(dtype, capability))
    config = _from_folder(AutoConfig, folder, plain)
    kind, options = _kind(folder)
    with torch.device("meta"):
        model = kind.from_config(
            config, dtype=plain, attn_implementation=PACKED_ATTENTION, **options
        )
    if dtype == "nf4":
        quantise_layers(model.get_decoder(), torch.device("meta"))
    return _backbone(model, folder, "outline")


def write_backbone(folder: Path, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Write other weights for a backbone as a folder that plain transformers loads."""
    assert backbone.folder is not None
    config = read_config(backbone.folder / "config.json")
    config.pop("torch_dtype", None)  # what older versions called it
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    runs.write_json(folder / "config.json", {**config, "dtype": dtypes[-1]})
    for name in BESIDE_WEIGHTS:
        if (backbone.folder / name).is_file():
            shutil.copyfile(backbone.folder / name, folder / name)
    with storage.written(folder / WEIGHTS, sum(tensor.nbytes for tensor in tensors.values())):
        save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})


def _kind(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The class that loads a folder, and what else it must be told."""
    model_type = read_config(folder / "config.json").get("model_type")
    if model_type in _ENCODERS:
        return AutoModel, _ENCODERS[model_type]
    return AutoModelForCausalLM, {}


def _plain(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The type of weights on a device that are not in nf4, and of products with those that are."""
    found = computed_in(dtype, capability_of(device))
    if device.type == "cuda" and dtype != "float32" == found:
        name = torch.cuda.get_device_name(device)
        more = "the weights take twice the memory" if dtype == "bfloat16" else "that is slow"
        told = f"{name} has no products in bfloat16, so {dtype} computes in float32; {more}."
        warnings.warn(RunWarning(told), stacklevel=3)
    plain: torch.dtype = getattr(torch, found)
    return plain


def _convert(model: Any, dtype: torch.dtype) -> None:
    """Give weights another type, but not what the layers in nf4 keep, nor buffers."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _refuse_quantised(model: Any, folder: Path) -> None:
    if getattr(model.config, "quantization_config", None) is not None:
        raise BackboneError(
            f"the weights in {folder} are quantised already; set dtype: bfloat16, or nf4 on a "
            "backbone with plain weights."
        )


def _lacking(folder: Path, error: ImportError) -> str:
    """What a folder needs that is not installed, such as the package of its quantised weights."""
    config = read_config(folder / "config.json").get("quantization_config")
    method = config.get("quant_method") if isinstance(config, dict) else None
    weights = f"the weights in {folder} are quantised by {method}" if method else str(folder)
    said = str(error).strip().splitlines()[0]
    return f"{weights}, which cannot be read here: {said.rstrip('.')}. Or take plain weights."


def _from_folder(kind: Any, folder: Path, dtype: torch.dtype | str, **options: Any) -> Any:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind.from_pretrained(
                str(folder),
                dtype=dtype,
                attn_implementation=PACKED_ATTENTION,
                local_files_only=True,
                trust_remote_code=False,
                **options,
            )
    except ImportError as error:
        raise BackboneError(_lacking(folder, error)) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"{folder} cannot be loaded ({type(error).__name__}); it should be a decoder or an "
            f"encoder of type {' or '.join(_ENCODERS)}, and "
            "config.json and the safetensors files belong together."
        ) from None


def _backbone(model: Any, folder: Path, fingerprint: str) -> Backbone:
    model.requires_grad_(requires_grad=False).eval()
    config = _text_config(model)
    unknown = set(getattr(config, "layer_types", None) or ()) - _EXACT_LAYERS
    if unknown:
        raise BackboneError(
            f"{folder} has layers of {min(unknown)}; packed rows are exact only for "
            f"{', '.join(sorted(_EXACT_LAYERS))}."
        )
    most = int(getattr(config, "max_position_embeddings", None) or sys.maxsize)
    is_encoder = config.model_type in _ENCODERS
    return Backbone(model, folder.resolve().name, fingerprint, most, is_encoder, folder)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)


@torch.inference_mode()
def _refuse_inexact(backbone: Backbone) -> None:
    """Compare a row of two short documents with what the whole model gives for each alone."""
    documents = [np.arange(length) % backbone.embeddings.num_embeddings for length in (3, 5)]
    batch = packed_batch(documents, range(2), backbone.device)
    kind = backbone.model.config.model_type
    try:
        packed = backbone.hidden_states(batch)
        packed = packed if backbone.is_encoder else backbone.head(packed)
        name = "last_hidden_state" if backbone.is_encoder else "logits"
        outputs = [
            backbone.model(
                ids_T[None],
                use_cache=False,
                documents=DocumentLayout((len(ids_T),), Additions(), backbone.device),
            )[name][0]
            for ids_T in torch.split(batch.ids_T, list(batch.lengths_D))
        ]
    except (TypeError, AttributeError):
        raise BackboneError(
            f"backbone {backbone.name} ({kind}) does not take packed rows; choose another backbone."
        ) from None
    alone = torch.cat(outputs).float()
    if (packed.float() - alone).abs().max() > _TOLERANCE[
        backbone.embeddings.weight.dtype
    ] * alone.abs().max():
        raise BackboneError(
            f"backbone {backbone.name} ({kind}) scales its logits, or "
            "carries something from one document into the next, in a way that packed rows do not "
            "know; choose another backbone."
        )
