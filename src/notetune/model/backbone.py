"""Backbones from local Hugging Face folders: decoders and encoders."""

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel

from notetune import storage
from notetune.errors import BackboneError, RunWarning
from notetune.model.attention import Additions, DocumentLayout, with_front
from notetune.model.backbone_folder import (
    BESIDE_WEIGHTS,
    WEIGHTS,
    Dtype,
    backbone_fingerprint,
    licence_files,
    licence_of,
    model_card,
    read_config,
    resolve_backbone,
)
from notetune.model.batch import PackedBatch
from notetune.model.device import capability_of, computed_in
from notetune.model.entering import EnteringStates
from notetune.model.nf4 import is_nf4, quantise_layers
from notetune.model.probing import (
    Reach,
    TokenHead,
    body_of,
    expected_reach,
    first_position,
    head_of,
    measured_reach,
    setting,
)
from notetune.model.reading import from_folder, kind_of, text_model
from notetune.model.semantic_types import add_semantic_types

# Of the weights of a text model, in folders of old and of new, to those that it has alone.
_NAMES_OF_TEXT = {
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
_OUTLINE = "outline"
"""In place of the fingerprint of a backbone without weights."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""How far a row may be from its documents alone, of the largest value."""


class Heads(NamedTuple):
    """Of each layer query heads, key heads and width; 0 where it has none."""

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
    reach: Reach
    """What a token of a row sees."""
    first_position: int = 0
    """Of a document's first token."""
    folder: Path | None = None
    """Where it was loaded from; None if it was made in memory."""

    @property
    def is_encoder(self) -> bool:
        """Whether a token sees what follows it, so that no next token can be predicted."""
        return self.reach.sees_ahead

    def shares_row(self, batch: PackedBatch, additions: Additions) -> bool:
        """Whether the documents of a row are computed together, and not each alone."""
        virtual = additions.slot_count + additions.prefix_length
        return max(batch.lengths_D) + virtual <= self.reach.packs_to

    @property
    def layers(self) -> int:
        """How many there are."""
        return int(setting(self.model, "num_hidden_layers", 1))

    @property
    def heads(self) -> Heads:
        """Sizes from its configuration."""
        heads = int(setting(self.model, "num_attention_heads", 0))
        width = setting(self.model, "head_dim") or self.hidden_size // max(heads, 1)
        return Heads(heads, int(setting(self.model, "num_key_value_heads", heads)), int(width))

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(setting(self.model, "hidden_size"))

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
        inside = getattr(self.body, "encoder", None)
        return getattr(self.body, "layers", None) or getattr(inside, "layer", None) or ()

    def token_ids(self, text: str) -> list[int]:
        """A short text as token ids, with the special tokens that the tokenizer adds.

        Raises:
            BackboneError: If the backbone has no tokenizer.
        """
        path = self.folder / "tokenizer.json" if self.folder else None
        if path is None or not path.is_file():
            raise BackboneError(f"backbone {self.name} has no tokenizer.json to read a text with.")
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    def hidden_states(
        self,
        batch: PackedBatch,
        additions: Additions | None = None,
        layers: Sequence[int] | None = None,
        entering: EnteringStates | None = None,
    ) -> Tensor:
        """`(T, H)` last hidden states, after the final norm, of the text tokens of a packed row.

        With `layers` those of each stand side by side, `(T, H * layers)`. With `entering` states
        nothing below is computed, and nothing may stand in front of a document.

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
        if len(batch.lengths_D) > 1 and not self.shares_row(batch, additions):
            alone = [self.hidden_states(one, additions, layers, entering) for one in batch.apart()]
            return torch.cat(alone)
        inputs, text_T = self._inputs(batch, additions)
        wants_all = layers is not None and min(layers) < self.layers
        with entering.in_place_of(self.blocks, batch) if entering else nullcontext():
            output = self._run(**inputs, use_cache=False, output_hidden_states=wants_all)
        last = {self.layers: output.last_hidden_state}  # transformers may norm it only there
        chosen = last.keys() if layers is None else layers
        states = [last[n] if n in last else output.hidden_states[n] for n in chosen]
        hidden = torch.cat(states, -1).squeeze(0)
        return hidden if text_T is None else hidden.index_select(0, text_T)

    def _inputs(
        self, batch: PackedBatch, additions: Additions
    ) -> tuple[dict[str, Any], Tensor | None]:
        """What the body takes, and where the text is in it if slots stand in front of it."""
        front, before = additions.slot_count, additions.prefix_length
        lengths_D = tuple(front + length for length in batch.lengths_D)
        first = self.first_position + before
        positions_T, text_T = batch.positions_T + first, None
        inputs: dict[str, Any] = {"input_ids": batch.ids_T.unsqueeze(0)}
        if front:
            source_R = with_front(front, batch.lengths_D)
            text_T = (source_R >= front).nonzero().squeeze(1).to(self.device)
            source_R = source_R.to(self.device)
            text_TH = self.embeddings(batch.ids_T)
            slots = [slots_SH.to(text_TH.dtype) for slots_SH in additions.slots]
            embeddings_RH = torch.cat([*slots, text_TH]).index_select(0, source_R)
            inputs = {"inputs_embeds": embeddings_RH.unsqueeze(0)}
            slot_positions_S = torch.arange(first, first + front, device=self.device)
            positions_T = torch.cat([slot_positions_S, positions_T + front])[source_R]
        if self.reach.packs_to:
            inputs["position_ids"] = positions_T.unsqueeze(0)
            inputs["documents"] = DocumentLayout(lengths_D, additions, self.device)
        return inputs, text_T

    def _run(self, **inputs: Any) -> Any:
        try:
            return self.body(**inputs)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            is_told = not self.reach.packs_to or "inputs_embeds" in str(error)
            if "input_ids" in inputs or not is_told or isinstance(error, torch.OutOfMemoryError):
                raise
            raise BackboneError(
                f"backbone {self.name} takes no embeddings in place of token ids, so nothing can "
                "stand in front of a document; take an adapter of kind lora or full."
            ) from None

    @property
    def body(self) -> Any:
        """The module that makes hidden states."""
        return body_of(self.model)

    @property
    def head(self) -> TokenHead:
        """The module from `(T, H)` hidden states to `(T, V)` next-token logits.

        Raises:
            BackboneError: If the backbone is an encoder.
        """
        head = head_of(self.model)
        if self.is_encoder or head is None:
            raise BackboneError(
                f"{self.name} is an encoder, which predicts no next token; give a decoder as the "
                "backbone and name encoders under encoders.models."
            )
        return head


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
    kind, options = kind_of(folder)
    plain = _plain(dtype, device)
    # What is stored is read as it is used, so that layers in nf4 are never there in another type.
    stored = "auto" if dtype == "nf4" else plain
    if (text := text_model(folder, stored)) is not None:
        options |= {"config": text, "key_mapping": _NAMES_OF_TEXT}
    model, loading = from_folder(
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
    _refuse_not_finite(model, folder)
    if dtype == "nf4":
        if getattr(model.config, "quantization_config", None) is not None:
            raise BackboneError(
                f"the weights in {folder} are quantised already; set dtype: bfloat16, or nf4 on a "
                "backbone with plain weights."
            )
        quantise_layers(body_of(model), device)
        _convert(model, plain)
    return _backbone(model.to(device), folder, backbone_fingerprint(folder))


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
    config = text_model(folder, plain) or from_folder(AutoConfig, folder, plain)
    kind, options = kind_of(folder)
    with torch.device("meta"):
        model = kind.from_config(config, dtype=plain, **options)
    if dtype == "nf4":
        quantise_layers(body_of(model), torch.device("meta"))
    return _backbone(model, folder, _OUTLINE)


def write_backbone(folder: Path, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Write other weights for a backbone as a folder that plain transformers loads.

    Its licence comes along.
    """
    assert backbone.folder is not None
    config = read_config(backbone.folder / "config.json")
    config.pop("torch_dtype", None)  # what older versions called it
    if "text_config" in config:  # the weights are those of the text model alone
        kind = type(backbone.model).__name__
        config = {**backbone.model.config.to_diff_dict(), "architectures": [kind]}
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    storage.write_json(folder / "config.json", {**config, "dtype": dtypes[-1]})
    beside = [path for name in BESIDE_WEIGHTS if (path := backbone.folder / name).is_file()]
    for path in [*beside, *licence_files(backbone.folder)]:
        shutil.copyfile(path, folder / path.name)
    front = {"license": licence_of(backbone.folder).name, "base_model": backbone.folder.name}
    card = model_card(front, f"# {backbone.folder.name} with other weights")
    (folder / "README.md").write_text(card, encoding="utf-8")
    with storage.written(folder / WEIGHTS, sum(tensor.nbytes for tensor in tensors.values())):
        save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})


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


@torch.no_grad()
def _refuse_not_finite(model: Any, folder: Path) -> None:
    """Look at every weight that is a number of its own, at the cost of reading it once."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.itemsize > 1 and weight.numel():
            low, high = weight.aminmax()
            if not (low.isfinite() and high.isfinite()):
                raise BackboneError(
                    f"{folder}: {name} holds numbers that are not finite; restore it from a copy."
                )


def _backbone(model: Any, folder: Path, fingerprint: str) -> Backbone:
    model.requires_grad_(requires_grad=False).eval()
    name, most = folder.resolve().name, int(setting(model, "max_position_embeddings", 0))
    most = most if most > 0 else sys.maxsize
    with torch.inference_mode():
        if fingerprint == _OUTLINE:
            reach = expected_reach(model, most, sees_ahead=model.get_output_embeddings() is None)
        else:
            reach = measured_reach(
                model, most, TOLERANCE[model.get_input_embeddings().weight.dtype]
            )
    first = first_position(model)
    return Backbone(model, name, fingerprint, most - first, reach, first, folder)
