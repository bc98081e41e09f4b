"""The notes that the benchmarks of training read: reports in tokens, or tokens by chance."""

import csv
import gzip
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from notetune.model.piece_tokenizer import to_tokenizer
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore

TINY = Path(__file__).parents[1] / "src/notetune/backbones/tiny"
MAX_TOKENS = 512
BOS = 1


@dataclass(frozen=True)
class Notes:
    """Documents in memory, as the batches of step 1 read them."""

    documents: tuple[npt.NDArray[np.int64], ...]

    @property
    def lengths_D(self) -> Int64Array:
        """`(D,)` tokens per document."""
        return np.array([len(ids) for ids in self.documents])

    @property
    def targets(self) -> int:
        """Tokens to predict."""
        return int(self.lengths_D.sum()) - len(self.documents)

    @property
    def store(self) -> TokenStore:
        """The same, for what reads nothing else of a token store."""
        return cast(TokenStore, self)

    def document(self, number: int) -> npt.NDArray[np.int64]:
        """The token ids of one document."""
        return self.documents[number]

    def __str__(self) -> str:
        lengths = self.lengths_D
        share = (lengths == MAX_TOKENS).mean()
        return f"{len(lengths)} notes, mean {lengths.mean():.0f}, {share:.0%} of {MAX_TOKENS}"


def profile_lengths(count: int) -> Iterator[int]:
    """Lengths of mean 183, one in ten at the limit: those that the targets are stated for."""
    rng = np.random.default_rng(0)
    for number in range(count):
        drawn = int(np.clip(rng.lognormal(np.log(128), 0.55), 12, MAX_TOKENS - 1))
        yield MAX_TOKENS if number % 10 == 0 else drawn


def profile_notes(sources: Iterator[npt.NDArray[np.int64]], count: int) -> Notes:
    """Documents cut to the lengths of the profile; one that is too short for its turn is left."""
    lengths = iter(profile_lengths(count))
    documents, length = [], next(lengths)
    for ids in sources:
        if len(ids) >= length:
            documents.append(ids[:length])
            length = next(lengths, 0)
            if not length:
                break
    return Notes(tuple(documents))


def whole_notes(sources: Iterator[npt.NDArray[np.int64]], count: int) -> Notes:
    """Documents as they are, up to the limit."""
    return Notes(tuple(ids[:MAX_TOKENS] for ids in itertools.islice(sources, count)))


def llama2_tokenizer(data: Path) -> Tokenizer:
    """LLaMA 2's."""
    import sentencepiece  # a GPU machine has none, and needs none for random weights

    path = data / "llama/llama2_tokenizer.model"
    model = sentencepiece.SentencePieceProcessor(str(path))
    numbers = range(model.GetPieceSize())
    return to_tokenizer([(model.IdToPiece(n), model.GetScore(n)) for n in numbers])


def report_texts(data: Path) -> list[str]:
    """MTSamples reports, each once."""
    csv.field_size_limit(10_000_000)
    with gzip.open(data / "mtsamples/mtsamples.csv.gz") as file:
        table = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        return list(dict.fromkeys(row["transcription"] for row in table if row["transcription"]))


def reports(data: Path, shape: str) -> Iterator[npt.NDArray[np.int64]]:
    """MTSamples reports, shuffled, in the model's tokens (LLaMA 2's for random weights)."""
    notes = report_texts(data)
    if shape == "tiny":
        tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    else:
        tokenizer = llama2_tokenizer(data)
    for number in np.random.default_rng(0).permutation(len(notes)):
        ids = tokenizer.encode(notes[number], add_special_tokens=False).ids
        yield np.array([BOS, *ids])


def random_ids(vocabulary: int) -> Iterator[npt.NDArray[np.int64]]:
    """Documents of the largest length without any sense, for speed alone."""
    rng = np.random.default_rng(0)
    while True:
        yield rng.integers(2, vocabulary, MAX_TOKENS)
