"""Adapter folders: ours can be read by plain peft, and those of plain peft can be read here."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, uint8

from notetune import storage
from notetune.errors import BundleError, TrainingError
from notetune.model.adapters.base import Adapter
from notetune.model.adapters.folder import (
    CARD,
    PEFT_CONFIG,
    WEIGHTS,
    AdapterCard,
    read_folder,
    refuse_missing,
)
from notetune.model.adapters.peft_config import to_peft
from notetune.model.adapters.specs import AdapterSpec, Full
from notetune.model.backbone import Backbone, write_backbone
from notetune.model.backbone_folder import BACKBONE_FILES
from notetune.model.sharded import whole


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter read from its folder."""

    spec: AdapterSpec
    tensors: dict[str, Tensor]
    """Under the names that peft gives them."""
    backbone: str | None
    """Fingerprint of the backbone it was trained on; None if its folder does not say."""


def adapter_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Weights of an adapter on the CPU, under the names of its file; whole if it is sharded."""
    return {name: whole(t).cpu().contiguous() for name, t in sorted(adapter.tensors().items())}


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and bytes, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(folder: Path, adapter: Adapter, backbone: Backbone) -> None:
    """Write an adapter so that both `read_adapter` and plain peft can load it.

    A fully fine-tuned backbone becomes a backbone folder, which plain transformers loads.

    Raises:
        TrainingError: If a weight is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, tensors = adapter.spec, adapter_tensors(adapter)
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise TrainingError(
            f"{bad[0]} is not finite after the last update; lower optim.peak_lr and train anew."
        )
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
        storage.write_json(folder / PEFT_CONFIG, written)
    card = AdapterCard(
        backbone=backbone.fingerprint, spec=spec, sha256_of_tensors=tensors_hash(tensors)
    )
    storage.write_json(folder / CARD, card.model_dump(mode="json"))


def copy_adapter(source: Path, folder: Path) -> None:
    """Copy the files of an adapter that `save_adapter` wrote, and nothing that lies beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CARD, PEFT_CONFIG, WEIGHTS, *BACKBONE_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def read_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter from its folder, never from a pickle.

    A folder that peft wrote does not say which backbone it belongs to; only names and shapes of
    its tensors are then compared with those that the backbone needs.

    Raises:
        BundleError: If a file is missing or damaged, or the weights are not the saved ones.
    """
    found = read_folder(folder)
    tensors = _read_tensors(found.weights)
    if found.backbone is not None and tensors_hash(tensors) != found.digest:
        raise BundleError(f"{found.weights} differs from what was saved; restore it.")
    return SavedAdapter(found.spec, tensors, found.backbone)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    refuse_missing(path)
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
