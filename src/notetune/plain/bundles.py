"""Bundles without a language model: what each says of itself, and its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from notetune import runs
from notetune.aliases import FloatArray
from notetune.config import Config, parse
from notetune.errors import BundleError
from notetune.plain.columns import Columns
from notetune.plain.linear import Linear, load_tensors, probabilities, save_tensors
from notetune.plain.stacked import Stacked
from notetune.plain.words import Words

FORMAT = 2
PARTS = "parts"
_TERMS, _COLUMNS = "terms.json", "columns.json"
_HOLDS = (
    "terms.json holds {terms:,} words and pairs of words of the training notes, each in the notes "
    "of at least {patients} patients: keep it as private as the notes."
)


class PlainCard(Config):
    """What every bundle says of itself.

    Attributes:
        format: Version of the folder's layout.
        task: Name of the outcome.
        kind: How its labels relate: one yes or no, one of several, any of several.
        classes: K class names, in the order of the scores.
        seed: Run that it belongs to; 0 where all runs are the same.
    """

    format: int = FORMAT
    task: str
    kind: Literal["binary", "multiclass", "multilabel"]
    classes: tuple[str, ...]
    seed: int = 0


class TextLimit(Config):
    """Texts are read as far as a model with these tokens reads them.

    Attributes:
        backbone_name: Name of the folder with its tokenizer.
        tokenizer_sha256: Of its tokenizer.json.
        max_tokens: Longest document.
        max_pieces: Most documents of one note.
        opener: What begins a document, as its vocabulary spells it.
        opener_id: Its id; None where nothing begins one.
        end_id: Ends a note.
        ends_every_piece: Whether it ends a piece of a note that goes on too.
    """

    backbone_name: str
    tokenizer_sha256: str
    max_tokens: int
    max_pieces: int
    opener: str
    opener_id: int | None
    end_id: int
    ends_every_piece: bool


class WordsCard(PlainCard):
    """A TF-IDF bundle.

    Attributes:
        model: Says that it is one.
        min_patients: Fewest training patients whose notes share a term.
        holds: What of the notes stands in it, in words.
        limit: How far it reads a note; to its end without.
    """

    model: Literal["tf-idf"] = "tf-idf"
    min_patients: int
    holds: str
    limit: TextLimit | None = None


class ColumnsCard(PlainCard):
    """A bundle that reads columns beside the text.

    Attributes:
        model: Says that it is one.
        columns: Their names.
    """

    model: Literal["columns"] = "columns"
    columns: tuple[str, ...]


class HybridCard(PlainCard):
    """A bundle of other bundles, whose scores a logistic stack joins.

    Attributes:
        model: Says that it is one.
        parts: Names of the bundles within it, in the order of the slopes.
        columns: Columns beside the text that they read.
    """

    model: Literal["hybrid"] = "hybrid"
    parts: tuple[str, ...]
    columns: tuple[str, ...] = ()


def what_it_holds(terms: int, min_patients: int) -> str:
    """The sentence of a card about the words in its bundle."""
    return _HOLDS.format(terms=terms, patients=min_patients)


@dataclass(frozen=True)
class WordsBundle:
    """TF-IDF and a linear model of it."""

    card: WordsCard
    words: Words
    linear: Linear

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """`(N, K)` probabilities; a limit must have cut the texts before."""
        return probabilities(self.card.kind, self.linear.logits(self.words.features(texts)))

    def save(self, folder: Path) -> None:
        """Write all but the card into an existing folder."""
        runs.write_json(folder / _TERMS, self.words.terms)
        save_tensors(folder, {**self.linear.tensors, "idf": self.words.idf_V})


@dataclass(frozen=True)
class ColumnsBundle:
    """Columns and a linear model of them."""

    card: ColumnsCard
    columns: Columns
    linear: Linear

    def scores(self, frame: pl.DataFrame) -> FloatArray:
        """`(N, K)` probabilities of the rows of a table; errors as of `Columns.features`."""
        return probabilities(self.card.kind, self.linear.logits(self.columns.features(frame)))

    def save(self, folder: Path) -> None:
        """Write all but the card into an existing folder."""
        runs.write_json(folder / _COLUMNS, self.columns.model_dump(mode="json"))
        save_tensors(folder, self.linear.tensors)


def load_words(folder: Path, card: WordsCard) -> WordsBundle:
    """A TF-IDF bundle whose files are intact.

    Raises:
        BundleError: If its files do not belong together.
    """
    terms = tuple(runs.read_json(folder / _TERMS))
    weight_KV, bias_K, idf_V = load_tensors(folder, "weight", "bias", "idf")
    bundle = WordsBundle(card, Words(terms, idf_V), Linear(weight_KV, bias_K))
    _check(folder, bundle.linear, len(card.classes), len(terms))
    return bundle


def load_columns(folder: Path, card: ColumnsCard) -> ColumnsBundle:
    """A bundle of columns whose files are intact; errors as of `load_words`."""
    columns = parse(Columns, runs.read_json(folder / _COLUMNS), str(folder / _COLUMNS))
    linear = Linear(*load_tensors(folder, "weight", "bias"))
    empty = pl.DataFrame(schema=dict.fromkeys(("note_id", *columns.names), pl.String))
    _check(folder, linear, len(card.classes), columns.features(empty).shape[1])
    return ColumnsBundle(card, columns, linear)


def save_stacked(folder: Path, stacked: Stacked) -> None:
    """Write a stack into an existing folder."""
    save_tensors(folder, {"slopes": stacked.slopes_M, "start": stacked.start_K})


def load_stacked(folder: Path, card: HybridCard) -> Stacked:
    """The stack of a hybrid bundle; errors as of `load_words`."""
    slopes_M, start_K = load_tensors(folder, "slopes", "start")
    if (len(slopes_M), len(start_K)) != (len(card.parts), len(card.classes)):
        raise _mixed(folder)
    return Stacked(card.kind, slopes_M, start_K)


def _check(folder: Path, linear: Linear, classes: int, features: int) -> None:
    shapes = (linear.weight_KF.shape, np.shape(linear.bias_K))
    if shapes != ((classes, features), (classes,)):
        raise _mixed(folder)


def _mixed(folder: Path) -> BundleError:
    return BundleError(f"{folder}: its files are of several bundles; restore it from a copy.")
