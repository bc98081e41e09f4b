"""A bundle applied to new notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune import infer
from notetune.errors import DataError
from notetune.model.adapters.specs import Full
from notetune.model.backbone import WEIGHTS as BACKBONE_WEIGHTS
from notetune.model.backbone import load_backbone, resolve_backbone
from notetune.model.batch import PackedBatch
from notetune.model.bundle import Bundle, load_bundle, read_card
from notetune.model.losses import probabilities
from notetune.notes.clean import clean_text
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.store import Reading, encode_notes
from notetune.train.batches import read_row

_TOKENS_PER_ROW = 4096


@dataclass(frozen=True)
class Predictions:
    """Scores of notes, in the order in which the notes were given.

    Attributes:
        scores_NK: `(N, K)` probabilities.
        reading: How much of each note was read.
    """

    scores_NK: npt.NDArray[np.float64]
    reading: Reading


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle; scores do not depend on which notes come together."""

    bundle: Bundle
    encoder: Encoder

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Score notes.

        Raises:
            DataError: If there is no note, or a note is empty after cleaning; it is named by its
                place.
            BundleError: If an adapter of the bundle does not act on the first note. Weights that
                are all trained were looked at when they were loaded: that reads the backbone again.
        """
        cleaned = [clean_text(text) for text in texts]
        empty = [place for place, text in enumerate(cleaned) if not text.strip()]
        if empty or not cleaned:
            which = f"note number {empty[0] + 1} is empty" if empty else "there is no note"
            raise DataError(f"{which}; give at least one note, each with text.")
        card, model = self.bundle.card, self.bundle.model
        names = [str(place) for place in range(len(cleaned))]
        columns = dict.fromkeys(("note_ids", "patient_ids", "source_N", "split_N"), names)
        store = encode_notes(self.encoder, card.max_tokens, cleaned, columns)
        documents_N = store.first_documents(names)
        first = read_row(store, documents_N[:1], model.backbone.device)
        small = [layer.name for layer in model.layers if not isinstance(layer.spec, Full)]
        model.check(first, card.pooling, small, card.layers)
        most = card.max_pieces
        rows = max(_TOKENS_PER_ROW, most * (card.max_tokens + model.reserved_per_document))
        logits = infer.outputs_per_note(model, self._logits, store, documents_N, rows, most)
        return Predictions(
            probabilities(card.kind, torch.from_numpy(logits)).double().numpy(),
            store.reading(documents_N, most),
        )

    def _logits(self, batch: PackedBatch) -> Tensor:
        card = self.bundle.card
        return self.bundle.model.logits(self.bundle.head, batch, card.pooling, card.layers)


def load_predictor(
    folder: Path, backbone: str | None = None, device: torch.device | str = "cpu"
) -> Predictor:
    """Load a bundle onto its backbone.

    Args:
        folder: The bundle.
        backbone: Folder of its backbone; without it, the bundle itself if it was merged, else the
            backbone of the name it was trained on.
        device: Where to compute.

    Raises:
        BundleError: If the bundle is damaged or belongs to another backbone.
        BackboneError: If the backbone cannot be used.
    """
    card = read_card(folder)
    is_merged = (folder / BACKBONE_WEIGHTS).is_file()
    name = backbone or (str(folder) if is_merged else card.backbone_name)
    loaded = load_backbone(name, card.dtype, device)
    edges = None  # as bundles of the first format were made
    if card.end_id is not None:
        edges = Edges(card.opener_id, card.end_id, card.opener, card.ends_every_piece)
    encoder = load_encoder(resolve_backbone(name), edges, frames_pieces=loaded.is_encoder)
    return Predictor(load_bundle(folder, card, loaded), encoder)
