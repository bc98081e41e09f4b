"""Adapter folders: ours can be read by plain peft, and those of plain peft can be read here."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, uint8

from notetune import runs
from notetune.config import Config, parse
from notetune.errors import BundleError
from notetune.model.adapters.base import Adapter
from notetune.model.adapters.peft_config import from_peft, to_peft
from notetune.model.adapters.specs import AdapterSpec, Full
from notetune.model.backbone import Backbone, write_backbone
from notetune.model.backbone_folder import BACKBONE_FILES
from notetune.model.backbone_folder import WEIGHTS as BACKBONE_WEIGHTS
from notetune.model.sharded import whole

WEIGHTS = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"
_CARD = "adapter.json"
FORMAT = 1


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter read from its folder."""

    spec: AdapterSpec
    tensors: dict[str, Tensor]
    """Under the names that peft gives them."""
    backbone: str | None
    """Fingerprint of the backbone it was trained on; None if its folder does not say."""


class _Card(Config):
    """What we write beside the files of peft."""

    format: int = FORMAT
    backbone: str
    spec: AdapterSpec
    sha256_of_tensors: str


def adapter_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Weights of an adapter on the CPU, under the names of its file; whole if it is sharded."""
    return {name: whole(t).cpu().contiguous() for name, t in sorted(adapter.tensors().items())}


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and bytes, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(folder: Path, adapter: Adapter, backbone: Backbone) -> None:
    """Write an adapter so that both `read_adapter` and plain peft can load it.

    A fully fine-tuned backbone becomes a backbone folder, which plain transformers loads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, tensors = adapter.spec, adapter_tensors(adapter)
    if isinstance(spec, Full):
        write_backbone(folder, backbone, tensors)
    else:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        # peft would write its own card and the backbone's path; neither may leave with an adapter.
        settings = {
            **to_peft(spec, backbone).to_dict(),
            "task_type": "FEATURE_EXTRACTION" if backbone.is_encoder else "CAUSAL_LM",
            "inference_mode": True,
            "base_model_name_or_path": backbone.name,
        }
        written = {k: sorted(v) if isinstance(v, set) else v for k, v in sorted(settings.items())}
        runs.write_json(folder / _PEFT_CONFIG, written)
    card = _Card(backbone=backbone.fingerprint, spec=spec, sha256_of_tensors=tensors_hash(tensors))
    runs.write_json(folder / _CARD, card.model_dump(mode="json"))


def copy_adapter(source: Path, folder: Path) -> None:
    """Copy the files of an adapter that `save_adapter` wrote, and nothing that lies beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_CARD, _PEFT_CONFIG, WEIGHTS, *BACKBONE_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, of ours or of peft."""
    return (folder / _CARD).is_file() or (folder / _PEFT_CONFIG).is_file()


def read_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter from its folder, never from a pickle.

    A folder that peft wrote does not say which backbone it belongs to; only names and shapes of
    its tensors are then compared with those that the backbone needs.

    Raises:
        BundleError: If a file is missing or damaged, or the weights are not the saved ones.
    """
    theirs = folder / _PEFT_CONFIG
    if not is_adapter(folder):
        raise BundleError(
            f"{folder} is not an adapter folder: it needs {_CARD} or peft's {_PEFT_CONFIG}."
        )
    if not (folder / _CARD).is_file():
        spec = from_peft(_section(theirs), str(theirs))
        return SavedAdapter(spec, _read_tensors(folder / WEIGHTS), None)
    settings = _section(folder / _CARD)
    if settings.get("format") != FORMAT:
        raise BundleError(
            f"{folder} has format {settings.get('format')}; this version reads {FORMAT}."
        )
    card = parse(_Card, settings, str(folder / _CARD))
    path = folder / (BACKBONE_WEIGHTS if isinstance(card.spec, Full) else WEIGHTS)
    tensors = _read_tensors(path)
    if tensors_hash(tensors) != card.sha256_of_tensors:
        raise BundleError(f"{path} differs from what was saved; restore it.")
    return SavedAdapter(card.spec, tensors, card.backbone)


def _section(path: Path) -> dict[str, Any]:
    settings = runs.read_json(path)
    if not isinstance(settings, dict):
        raise BundleError(f"{path} is no card of an adapter; restore it from a copy.")
    return settings


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BundleError(
            f"{path} is missing; an adapter's weights are read from safetensors only, never from a "
            "pickle."
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError):
        raise BundleError(f"{path} is damaged; restore it from a copy.") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise BundleError(
                f"{path}: {name} holds numbers that are not finite; restore it from a copy."
            )
    return tensors
