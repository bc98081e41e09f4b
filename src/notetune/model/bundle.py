"""A bundle: everything but the backbone that scoring new notes needs, in one folder."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import from_numpy, inference_mode

from notetune.errors import BundleError
from notetune.model.adapters.files import read_adapter
from notetune.model.adapters.folder import is_adapter
from notetune.model.backbone import Backbone
from notetune.model.cards import BundleCard
from notetune.model.heads import Head
from notetune.model.stack import Layer, Stack, probe, stack
from notetune.plain.linear import load_tensors

_HEAD = "head.safetensors"


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, ready to score."""

    card: BundleCard
    model: Stack
    head: Head


def save_head(folder: Path, head: Head) -> None:
    """Write a head into an existing folder."""
    weights = {name: t.detach().cpu().contiguous() for name, t in head.state_dict().items()}
    save_file(weights, folder / _HEAD)


def load_bundle(folder: Path, card: BundleCard, backbone: Backbone) -> Bundle:
    """Put a bundle, with the card that it has, onto its freshly loaded backbone, all frozen.

    Raises:
        BundleError: If an adapter does not act, or the bundle belongs to another backbone.
    """
    if backbone.fingerprint != card.backbone_fingerprint:
        raise BundleError(
            f"{folder} was trained on the backbone {card.backbone_name} "
            f"({card.backbone_fingerprint}), not on {backbone.name} ({backbone.fingerprint}); "
            "give its own backbone with --backbone."
        )
    if card.max_tokens > backbone.max_positions:
        raise BundleError(
            f"{folder}: max_tokens is {card.max_tokens}, and {backbone.name} has "
            f"{backbone.max_positions} positions; restore the bundle from a copy."
        )
    held = {path.parent.name for path in folder.glob("*/*") if is_adapter(path.parent)}
    if held != {*card.adapters} or len(held) != len(card.adapters):
        raise BundleError(
            f"{folder} lists the adapters {', '.join(card.adapters) or 'none'} and holds "
            f"{', '.join(sorted(held)) or 'none'}; restore the bundle from a copy."
        )
    layers = [Layer(name, read_adapter(folder / name), is_trained=False) for name in card.adapters]
    model = stack(backbone, layers)
    model.check(probe(backbone), lambda row: model.features(row, card.pooling, card.layers))
    with inference_mode():
        width = model.features(probe(backbone), card.pooling, card.layers).shape[1]
    head = _head(folder / _HEAD, len(card.classes), width)
    return Bundle(card, model, head.to(backbone.device).eval())


def _head(path: Path, classes: int, width: int) -> Head:
    weight_KH, bias_K = map(from_numpy, load_tensors(path, "linear.weight", "linear.bias"))
    if weight_KH.shape != (classes, width) or bias_K.shape != (classes,):
        raise BundleError(
            f"{path} is {tuple(weight_KH.shape)}, where {classes} classes and {width} features "
            "meet; restore it from a copy."
        )
    return Head(weight_KH, bias_K)
