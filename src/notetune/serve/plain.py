"""Bundles without a language model, and hybrids, applied to new notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from notetune import storage
from notetune.errors import BundleError, DataError
from notetune.model.backbone_folder import own_backbone, resolve_backbone
from notetune.plain.bundles import ColumnsBundle, TextLimit, WordsBundle
from notetune.plain.stacked import Stacked
from notetune.serve.predictions import Predictions, Predictor, cleaned
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.store import Reading, encode_notes


def encoder_of(limit: TextLimit, backbone: str | None) -> Encoder:
    """What counts the tokens of a limit, from the folder `backbone`, or else the one it names.

    Raises:
        BundleError: If the tokenizer is another one.
    """
    name = own_backbone(limit.backbone_name, backbone)
    tokenizer = resolve_backbone(name) / "tokenizer.json"
    if tokenizer.is_file() and storage.sha256_of_file(tokenizer) != limit.tokenizer_sha256:
        raise BundleError(
            f"the bundle cuts notes by the tokens of {limit.backbone_name}, not of {name}; give "
            "its own backbone with --backbone."
        )
    edges = Edges(limit.opener_id, limit.end_id, limit.opener, limit.ends_every_piece, limit.join)
    return load_encoder(tokenizer.parent, edges)


@dataclass(frozen=True)
class WordsPredictor:
    """TF-IDF of notes, cut where a model with the encoder's tokens stops reading, or whole."""

    bundle: WordsBundle
    encoder: Encoder | None

    def predict(self, texts: Sequence[str], columns: pl.DataFrame | None = None) -> Predictions:
        """Score notes; errors as of `cleaned`."""
        read, reading = self._read(texts)
        return Predictions(self.bundle.scores(read), reading)

    def features(self, texts: Sequence[str]) -> Any:
        """`(N, F)` sparse float32 features of notes; errors as of `cleaned`."""
        return self.bundle.words.features(self._read(texts)[0])

    def _read(self, texts: Sequence[str]) -> tuple[list[str], Reading | None]:
        """As far as they are read, and how far that is."""
        whole, limit = cleaned(texts), self.bundle.card.limit
        if self.encoder is None or limit is None:
            return whole, None
        store = encode_notes(self.encoder, limit.max_tokens, whole)
        documents_N = store.first_documents(store.note_ids)
        cut = store.read_texts(whole, documents_N, limit.max_pieces)
        return cut, store.reading(documents_N, limit.max_pieces)


@dataclass(frozen=True)
class ColumnsPredictor:
    """Columns beside the text; the text is not read."""

    bundle: ColumnsBundle

    def predict(self, texts: Sequence[str], columns: pl.DataFrame | None = None) -> Predictions:
        """Score notes; a DataError as `Predictor.predict` says."""
        names = self.bundle.columns.names
        if columns is None or not {"note_id", *names} <= {*columns.columns}:
            raise DataError(f"the bundle reads the columns {', '.join(names)}; give all of them.")
        return Predictions(self.bundle.scores(columns), None, self.bundle.columns.unkept(columns))


@dataclass(frozen=True)
class HybridPredictor:
    """Several bundles, whose scores a stack joins."""

    stacked: Stacked
    parts: tuple[Predictor, ...]

    def predict(self, texts: Sequence[str], columns: pl.DataFrame | None = None) -> Predictions:
        """Score notes; errors as of the parts."""
        found = [part.predict(texts, columns) for part in self.parts]
        scores_NK = self.stacked.scores([one.scores_NK for one in found])
        reading = next((one.reading for one in found if one.reading is not None), None)
        unkept = {name: count for one in found for name, count in one.unkept.items()}
        return Predictions(scores_NK, reading, unkept)
