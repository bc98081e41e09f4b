"""Adapters: their specification, their tensors, and their files, which plain peft reads too."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import peft
import torch
from peft import PeftModel as PeftModel  # `stack` names the type
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import Field, PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from notetune import runs
from notetune.config import Config, parse
from notetune.errors import BundleError
from notetune.model.backbone import Backbone

WEIGHTS = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"
_CARD = "adapter.json"


class LoRA(Config):
    """Low-rank additions to linear layers."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = 8
    """Rank of each addition."""
    alpha: PositiveFloat = 16
    """The addition is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of the addition, while it trains."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers that get one."""


AdapterSpec = LoRA


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter read from its folder.

    Attributes:
        spec: How it was made.
        tensors: Its weights, under the names that peft gives them.
        backbone: Fingerprint of the backbone it was trained on.
    """

    spec: AdapterSpec
    tensors: dict[str, Tensor]
    backbone: str


def to_peft(spec: AdapterSpec, task_type: str | None = None) -> peft.PeftConfig:
    """The peft configuration of a specification."""
    return peft.LoraConfig(
        task_type=task_type,
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.targets),
    )


def put_adapter(
    backbone: Backbone, wrapper: PeftModel | None, name: str, spec: AdapterSpec, seed: int
) -> PeftModel:
    """Place a new adapter into the backbone's layers; the first call makes the peft wrapper.

    Raises:
        BundleError: If the backbone has none of the layers that the adapter targets.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 reads a property that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(seed)
        try:
            if wrapper is None:
                return PeftModel(backbone.model, to_peft(spec), adapter_name=name)
            wrapper.add_adapter(name, to_peft(spec))
        except ValueError:
            raise BundleError(
                f"backbone {backbone.name} has no layer named {', '.join(spec.targets)}; "
                "set the adapter's targets to linear layers of this backbone."
            ) from None
    return wrapper


def fill_adapter(wrapper: PeftModel, name: str, saved: SavedAdapter) -> None:
    """Give an adapter its saved weights.

    Raises:
        BundleError: If a tensor is missing, left over or of another shape.
    """
    expected = get_peft_model_state_dict(wrapper, adapter_name=name)
    wrong = [
        key
        for key in expected.keys() | saved.tensors.keys()
        if key not in expected
        or key not in saved.tensors
        or expected[key].shape != saved.tensors[key].shape
    ]
    if wrong:
        raise BundleError(
            f"adapter {name} does not fit the backbone: {len(wrong)} tensors are missing, left "
            f"over or of another shape, {min(wrong)} first."
        )
    set_peft_model_state_dict(wrapper, saved.tensors, adapter_name=name)


def adapter_tensors(wrapper: PeftModel, name: str) -> dict[str, Tensor]:
    """Weights of one adapter on the CPU, under the names that peft gives them in a file."""
    state = get_peft_model_state_dict(wrapper, adapter_name=name)
    return {key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and bytes, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(
    folder: Path, wrapper: PeftModel, name: str, spec: AdapterSpec, backbone: Backbone
) -> None:
    """Write an adapter so that both `read_adapter` and plain peft can load it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = adapter_tensors(wrapper, name)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    # peft would write its own card and the backbone's path; neither may leave with an adapter.
    settings = {
        **to_peft(spec, "CAUSAL_LM").to_dict(),
        "inference_mode": True,
        "base_model_name_or_path": backbone.name,
    }
    runs.write_json(folder / _PEFT_CONFIG, {k: _plain(v) for k, v in sorted(settings.items())})
    card = {
        "format": runs.FORMAT,
        "backbone": backbone.fingerprint,
        "spec": spec.model_dump(mode="json"),
        "sha256_of_tensors": tensors_hash(tensors),
    }
    runs.write_json(folder / _CARD, card)


def read_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter from its folder, never from a pickle.

    Raises:
        BundleError: If a file is missing or damaged, or the weights are not the saved ones.
    """
    if not (folder / WEIGHTS).is_file() or not (folder / _CARD).is_file():
        raise BundleError(f"{folder} is not an adapter folder: it needs {WEIGHTS} and {_CARD}.")
    card = runs.read_json(folder / _CARD)
    if card.get("format") != runs.FORMAT:
        raise BundleError(
            f"{folder} has format {card.get('format')}; this version reads {runs.FORMAT}."
        )
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, json.JSONDecodeError):
        raise BundleError(f"{folder / WEIGHTS} is damaged; restore it from a copy.") from None
    if tensors_hash(tensors) != card["sha256_of_tensors"]:
        raise BundleError(f"{folder / WEIGHTS} differs from what was saved; restore it.")
    spec = parse(LoRA, card["spec"], str(folder / _CARD))
    return SavedAdapter(spec, tensors, card["backbone"])


def activate_adapters(wrapper: PeftModel, names: Sequence[str]) -> None:
    """Make all the named adapters act together; afterwards all of them train.

    peft's own `PeftModel.set_adapter` takes one name and switches the others off.
    """
    wrapper.base_model.set_adapter(list(names))


def freeze_adapter(wrapper: PeftModel, name: str) -> None:
    """Stop training an adapter; its dropout goes too, so that it is deterministic."""
    wrapper.set_requires_grad(name, requires_grad=False)
    for layer in _layers(wrapper, name):
        layer.lora_dropout[name] = nn.Identity()


@contextmanager
def adapter_off(wrapper: PeftModel, name: str) -> Iterator[None]:
    """Take one adapter's contribution away for a while, whatever the others do."""
    layers = list(_layers(wrapper, name))
    scales = [layer.scaling[name] for layer in layers]
    for layer in layers:
        layer.scaling[name] = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[name] = scale


def _layers(wrapper: PeftModel, name: str) -> Iterator[Any]:
    for module in wrapper.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            yield module


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
