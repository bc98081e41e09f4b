"""Bundles without a language model, and hybrids, applied to new notes."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from notetune import runs
from notetune.errors import BundleError, DataError
from notetune.model.backbone_folder import resolve_backbone
from notetune.plain.bundles import ColumnsBundle, TextLimit, WordsBundle
from notetune.plain.stacked import Stacked
from notetune.serve.predictions import Predictions, Predictor, cleaned, store_of
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.store import Reading


@dataclass(frozen=True)
class LimitedReader:
    """Cuts texts where a model with these tokens stops reading."""

    encoder: Encoder
    limit: TextLimit

    def read(self, texts: Sequence[str]) -> tuple[list[str], Reading]:
        """The beginnings of texts, and how much that is."""
        store, documents_N = store_of(self.encoder, self.limit.max_tokens, texts)
        most = self.limit.max_pieces
        return store.read_texts(texts, documents_N, most), store.reading(documents_N, most)


def reader_of(limit: TextLimit | None, backbone: str | None) -> LimitedReader | None:
    """What cuts texts, where there is a limit.

    Args:
        limit: As a card has it.
        backbone: Folder of its tokenizer; the one that the limit names without.

    Raises:
        BundleError: If the tokenizer is another one.
    """
    if limit is None:
        return None
    name = backbone or limit.backbone_name
    tokenizer = resolve_backbone(name) / "tokenizer.json"
    if tokenizer.is_file() and runs.sha256_of_file(tokenizer) != limit.tokenizer_sha256:
        raise BundleError(
            f"the bundle cuts notes by the tokens of {limit.backbone_name}, not of {name}; give "
            "its own backbone with --backbone."
        )
    edges = Edges(limit.opener_id, limit.end_id, limit.opener, limit.ends_every_piece)
    return LimitedReader(load_encoder(tokenizer.parent, edges), limit)


@dataclass(frozen=True)
class WordsPredictor:
    """TF-IDF of whole notes, or of what the reader leaves of them."""

    bundle: WordsBundle
    reader: LimitedReader | None

    def predict(self, texts: Sequence[str], columns: pl.DataFrame | None = None) -> Predictions:
        """Score notes; errors as of `cleaned`."""
        whole, reading = cleaned(texts), None
        if self.reader is not None:
            whole, reading = self.reader.read(whole)
        return Predictions(self.bundle.scores(whole), reading)


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
