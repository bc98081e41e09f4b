"""Bundles without a language model: what each says of itself, and its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, NonNegativeInt, PositiveInt
from safetensors.numpy import save_file

from notetune import storage
from notetune.aliases import FloatArray, Join, TaskKind
from notetune.config import Config, parse
from notetune.errors import BundleError
from notetune.plain.columns import Columns
from notetune.plain.linear import Linear, load_tensors, probabilities
from notetune.plain.stacked import Stacked
from notetune.plain.tfidf import Words

FORMAT = 2
PARTS = "parts"
WEIGHTS = "weights.safetensors"
_TERMS, _COLUMNS = "terms.json", "columns.json"


_PartName = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$")]
"""A name of a folder that leads nowhere else."""


class PlainCard(Config):
    """What every bundle says of itself: the version of its layout, its task and its run.

    `classes` are K names in the order of the scores; `seed` is 0 where all runs are the same;
    `join` says whether it reads the notes of a stay as one; `note_columns` are the columns that a
    study of a table read, by the keys of `TableColumns`, and `missing` the cells that were empty to
    it, in place of those that are by default; `day_first` says how it read times with slashes;
    `source` is the kind of a source that is no table; `drops_late` says whether notes from after a
    prediction time were left out.
    """

    format: int = FORMAT
    task: str
    kind: TaskKind
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: int = 0
    join: Join = "none"
    note_columns: dict[str, str] = Field(default={})
    missing: tuple[str, ...] | None = None
    day_first: bool | None = None
    source: str = ""
    drops_late: bool = False


class TextLimit(Config):
    """Texts are read as far as a model with these tokens reads them; edges as of `BundleCard`.

    Attributes:
        backbone_name: Name of the folder with the tokenizer.
    """

    backbone_name: str
    tokenizer_sha256: str
    max_tokens: Annotated[int, Field(ge=3)]  # an opener, a token and an end
    max_pieces: PositiveInt
    opener: str
    opener_id: NonNegativeInt | None
    end_id: NonNegativeInt
    ends_every_piece: bool
    join: Join = "none"


class WordsCard(PlainCard):
    """A TF-IDF bundle.

    Attributes:
        min_patients: Fewest training patients whose notes share a term.
        holds: What of the notes stands in it, in words.
        has_marks: As of `Words`.
        limit: How far it reads a note; to its end without.
    """

    model: Literal["tf-idf"] = "tf-idf"
    min_patients: int
    holds: str
    has_marks: bool = False
    limit: TextLimit | None = None


class ColumnsCard(PlainCard):
    """A bundle that reads columns beside the text."""

    model: Literal["columns"] = "columns"
    columns: tuple[str, ...]


class HybridCard(PlainCard):
    """A bundle of other bundles, whose scores a logistic stack joins.

    Attributes:
        parts: Names of the bundles within it, in the order of the slopes.
        columns: Columns beside the text that they read.
    """

    model: Literal["hybrid"] = "hybrid"
    parts: Annotated[tuple[_PartName, ...], Field(min_length=1)]
    columns: tuple[str, ...] = ()


def what_it_holds(terms: int, min_patients: int) -> str:
    """The sentence of a card about the words in its bundle."""
    return (
        f"terms.json holds {terms:,} words and pairs of words of the training notes, each in the "
        f"notes of at least {min_patients} patients: keep it as private as the notes."
    )


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
        storage.write_json(folder / _TERMS, self.words.terms)
        save_file({**self.linear.tensors, "idf": self.words.idf_V}, folder / WEIGHTS)


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
        storage.write_json(folder / _COLUMNS, self.columns.model_dump(mode="json"))
        save_file(self.linear.tensors, folder / WEIGHTS)


def load_words(folder: Path, card: WordsCard) -> WordsBundle:
    """A TF-IDF bundle whose files are intact.

    Raises:
        BundleError: If its files do not belong together.
    """
    terms = storage.read_json(folder / _TERMS)
    is_list = isinstance(terms, list) and all(isinstance(term, str) for term in terms)
    if not is_list or len(set(terms)) < len(terms):
        raise BundleError(f"{folder / _TERMS} is no list of words; restore it from a copy.")
    weight_KV, bias_K, idf_V = load_tensors(folder / WEIGHTS, "weight", "bias", "idf")
    classes, words = len(card.classes), len(terms)
    shapes = weight_KV.shape, bias_K.shape, idf_V.shape
    _refuse_mixed(folder, shapes, ((classes, words), (classes,), (words,)))
    return WordsBundle(card, Words(tuple(terms), idf_V, card.has_marks), Linear(weight_KV, bias_K))


def read_columns(folder: Path) -> Columns:
    """The columns of a bundle and what is kept of each; errors as of `parse`."""
    return parse(Columns, storage.read_json(folder / _COLUMNS), str(folder / _COLUMNS))


def load_columns(folder: Path, card: ColumnsCard) -> ColumnsBundle:
    """A bundle of columns whose files are intact; errors as of `load_words`."""
    columns = read_columns(folder)
    _refuse_mixed(folder, columns.names, card.columns)
    weight_KF, bias_K = load_tensors(folder / WEIGHTS, "weight", "bias")
    empty = pl.DataFrame(schema=dict.fromkeys(("note_id", *columns.names), pl.String))
    classes, features = len(card.classes), columns.features(empty).shape[1]
    _refuse_mixed(folder, (weight_KF.shape, bias_K.shape), ((classes, features), (classes,)))
    return ColumnsBundle(card, columns, Linear(weight_KF, bias_K))


def save_stacked(folder: Path, stacked: Stacked) -> None:
    """Write a stack into an existing folder."""
    save_file({"slopes": stacked.slopes_M, "start": stacked.start_K}, folder / WEIGHTS)


def load_stacked(folder: Path, card: HybridCard) -> Stacked:
    """The stack of a hybrid bundle; errors as of `load_words`."""
    slopes_M, start_K = load_tensors(folder / WEIGHTS, "slopes", "start")
    shapes = slopes_M.shape, start_K.shape
    _refuse_mixed(folder, shapes, ((len(card.parts),), (len(card.classes),)))
    return Stacked(card.kind, slopes_M, start_K)


def _refuse_mixed(folder: Path, found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    if found != expected:
        raise BundleError(f"{folder}: its files are of several bundles; restore it from a copy.")
