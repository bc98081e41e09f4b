"""A bundle applied to new notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import polars as pl
import torch
from torch import Tensor

from notetune import infer
from notetune.errors import BundleError
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import WEIGHTS as BACKBONE_WEIGHTS
from notetune.model.backbone_folder import own_backbone, resolve_backbone
from notetune.model.batch import PackedBatch
from notetune.model.bundle import Bundle, load_bundle
from notetune.model.cards import BundleCard, Card, read_card
from notetune.model.losses import probabilities
from notetune.plain.bundles import (
    PARTS,
    ColumnsCard,
    HybridCard,
    WordsCard,
    load_columns,
    load_stacked,
    load_words,
)
from notetune.serve.plain import ColumnsPredictor, HybridPredictor, WordsPredictor, encoder_of
from notetune.serve.predictions import Predictions, Predictor, cleaned
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.store import encode_notes

_TOKENS_PER_ROW = 4096


@dataclass(frozen=True)
class LanguageModelPredictor:
    """A language model with its head."""

    bundle: Bundle
    encoder: Encoder

    def predict(self, texts: Sequence[str], columns: pl.DataFrame | None = None) -> Predictions:
        """Score notes; errors as of `cleaned` and `Predictions`."""
        card, model = self.bundle.card, self.bundle.model
        store = encode_notes(self.encoder, card.max_tokens, cleaned(texts))
        documents_N = store.first_documents(store.note_ids)
        most = card.max_pieces
        rows = max(_TOKENS_PER_ROW, most * (card.max_tokens + model.reserved_per_document))

        def logits(batch: PackedBatch) -> Tensor:
            found: Tensor = self.bundle.head(model.features(batch, card.pooling, card.layers))
            return found

        logits_NK = infer.outputs_per_note(model, logits, store, documents_N, rows, most)
        scores_NK = probabilities(card.kind, torch.from_numpy(logits_NK)).numpy()
        return Predictions(scores_NK, store.reading(documents_N, most))


def load_predictor(
    folder: Path,
    backbone: str | None = None,
    device: torch.device | str = "cpu",
    card: Card | None = None,
) -> Predictor:
    """Load a bundle, a language model onto its backbone.

    Without the folder of a `backbone`, it is the bundle itself if that was merged, else that of the
    name it was trained on; for a hybrid, that of its model. With the `card` that `read_card` gave,
    files are not hashed again.

    Raises:
        BundleError: If the bundle is damaged or belongs to another backbone.
        BackboneError: If the backbone cannot be used.
    """
    card = card or read_card(folder)
    match card:
        case BundleCard():
            return _language_model(folder, card, backbone, device)
        case WordsCard():
            encoder = encoder_of(card.limit, backbone) if card.limit else None
            return WordsPredictor(load_words(folder, card), encoder)
        case ColumnsCard():
            return ColumnsPredictor(load_columns(folder, card))
        case HybridCard():
            parts = _parts(folder, card)
            found = [load_predictor(at, backbone, device, part) for at, part in parts.items()]
            return HybridPredictor(load_stacked(folder, card), tuple(found))
        case _:
            assert_never(card)


def _parts(folder: Path, card: HybridCard) -> dict[Path, Card]:
    parts = {folder / PARTS / part: read_card(folder / PARTS / part) for part in card.parts}
    for place, part in parts.items():
        same = (part.task, part.kind, part.classes) == (card.task, card.kind, card.classes)
        if not same or isinstance(part, HybridCard):
            raise BundleError(f"{place} is no part of {folder}; restore the bundle from a copy.")
    return parts


def _language_model(
    folder: Path, card: BundleCard, backbone: str | None, device: torch.device | str
) -> LanguageModelPredictor:
    is_merged = (folder / BACKBONE_WEIGHTS).is_file()
    own = str(folder) if is_merged else card.backbone_name
    name = own_backbone(own, backbone)
    loaded = load_backbone(name, card.dtype, device)
    edges = None  # as bundles of the first format were made
    if card.end_id is not None:
        edges = Edges(card.opener_id, card.end_id, card.opener, card.ends_every_piece, card.join)
    encoder = load_encoder(resolve_backbone(name), edges, frames_pieces=loaded.is_encoder)
    return LanguageModelPredictor(load_bundle(folder, card, loaded), encoder)
