"""A bundle or an adapter as a plain backbone folder, for deployment."""

import warnings
from pathlib import Path

from notetune import runs, storage
from notetune.errors import BundleError, RunWarning
from notetune.model.adapters.files import read_adapter
from notetune.model.adapters.folder import is_adapter
from notetune.model.backbone import load_backbone, write_backbone
from notetune.model.backbone_folder import backbone_fingerprint, own_backbone
from notetune.model.bundle import Bundle, load_bundle, save_head
from notetune.model.cards import BUNDLE, read_language_model_card, save_card
from notetune.model.merge import Merged, merge_adapters
from notetune.model.stack import DOMAIN, Layer, probe, stack
from notetune.ownership import refuse_existing


def merge(folder: Path, out: Path, backbone: str | None = None) -> Merged:
    """Write a backbone with the adapters of a bundle, or one adapter, in its weights, in float32.

    Plain transformers loads the new folder. That of a bundle is a bundle too, its own backbone
    with the same head on top, and predicts what the bundle predicts in float32; of one that was
    trained in bfloat16, whose scores hold the rounding of that, a warning says that they differ.

    `backbone` is a folder; a bundle knows the name of its own.

    Raises:
        BundleError: If the method cannot be merged, an adapter does not act, or a folder is not
            what it should be.
        BackboneError: If the backbone cannot be used.
        RunError: If `out` exists.
        WriteError: If it cannot be written there.
    """
    refuse_existing(out)
    storage.refuse_unwritable(out)
    bundle = None
    if (folder / BUNDLE).is_file():
        bundle = _bundle(folder, backbone)
        model = bundle.model
    elif not is_adapter(folder):
        raise BundleError(f"{folder} is neither a bundle nor an adapter folder.")
    elif backbone is None:
        raise BundleError(f"{folder} is an adapter; name its backbone with --backbone.")
    else:
        layers = [Layer(DOMAIN, read_adapter(folder), is_trained=False)]
        model = stack(load_backbone(backbone), layers)
        model.check(probe(model.backbone))
    merged, loaded = merge_adapters(model), model.backbone
    inputs = {"merged": folder.name, "backbone": loaded.fingerprint}
    with runs.new_folder(out, inputs) as temporary:
        write_backbone(temporary, loaded, merged.tensors)
        if bundle is not None:
            # Before the fingerprint, which sees every weight file.
            save_head(temporary, bundle.head)
            changes = {
                "adapters": (),
                "dtype": "float32",
                "backbone_name": out.name,
                "backbone_fingerprint": backbone_fingerprint(temporary),
            }
            save_card(temporary, bundle.card.model_copy(update=changes))
    return merged


def _bundle(folder: Path, backbone: str | None) -> Bundle:
    """A bundle in float32; that its scores differ from those in another type is warned of."""
    card = read_language_model_card(folder)
    if card.dtype == "nf4":
        raise BundleError(
            f"{folder} stands on weights in nf4, which cannot take an adapter in; predict with "
            "it as it is, or train it with dtype: bfloat16 and merge that."
        )
    if card.dtype != "float32":
        message = (
            f"{folder} was trained in {card.dtype} and is merged in float32: scores differ from "
            f"those of its study by the rounding of {card.dtype}, which can reach hundredths; "
            "judge the merged bundle by its own scores, or predict with this one."
        )
        warnings.warn(message, RunWarning, stacklevel=3)
    return load_bundle(folder, card, load_backbone(own_backbone(card.backbone_name, backbone)))
