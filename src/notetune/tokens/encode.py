"""Note text to token ids, with the tokenizer of the backbone."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from notetune.tokens.edges import Edges, read_declared
from notetune.tokens.words import WordCache, word_cache

LongNotes = Literal["pieces", "first"]

DOCUMENT_FIELDS = np.dtype(
    [
        ("note", "<i4"),
        ("piece", "<i4"),
        ("length", "<i4"),
        ("text_bytes", "<i4"),
        ("is_cut", "?"),
    ]
)
_CHARS_PER_TOKEN = 5  # more than most text has, so that the first try mostly suffices


@dataclass(frozen=True)
class Documents:
    """The tokens of N notes in D documents.

    Attributes:
        ids: `(total tokens,)` ids of all documents, one after another. Each document begins with
            the opener, if there is one; the last piece of a note ends in what ends a note if it
            has room, and for an encoder every piece does.
        table_D: `(D,)` of `DOCUMENT_FIELDS`: number of the note, number of the piece (0 begins the
            note), tokens, UTF-8 bytes of the text behind it, whether the note goes on after it.
        note_count: N.
    """

    ids: npt.NDArray[Any]
    table_D: npt.NDArray[Any]
    note_count: int

    def of_notes(self, is_wanted_N: npt.NDArray[np.bool_]) -> "Documents":
        """The documents of some notes, which are numbered anew."""
        if is_wanted_N.all():
            return self
        is_wanted_D = is_wanted_N[self.table_D["note"]]
        ids = self.ids[np.repeat(is_wanted_D, self.table_D["length"])]
        table_D = self.table_D[is_wanted_D]
        table_D["note"] = (np.cumsum(is_wanted_N) - 1)[table_D["note"]]
        return dataclasses.replace(
            self, ids=ids, table_D=table_D, note_count=int(is_wanted_N.sum())
        )


@dataclass(frozen=True)
class _Tokens:
    """The first tokens of a text, or all of them."""

    packed: bytes
    starts_of: Callable[[Sequence[int]], list[int]]
    """The characters at which some of the tokens start."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with what stands round the documents of its backbone.

    Attributes:
        tokenizer: Text to ids, without special ones.
        edges: What opens a document and what ends a note.
        vocabulary_size: Tokens that the backbone embeds.
    """

    tokenizer: Tokenizer
    edges: Edges
    vocabulary_size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds every id."""
        return np.dtype("<u2" if self.vocabulary_size <= 1 << 16 else "<u4")

    @cached_property
    def words(self) -> WordCache | None:
        """The ids of words met before; None if this tokenizer must see whole texts."""
        return word_cache(self.tokenizer, self.dtype)

    def documents(
        self, texts: Sequence[str], max_tokens: int, long_notes: LongNotes = "pieces"
    ) -> Documents:
        """Encode texts, each into documents of at most `max_tokens` tokens.

        A long note becomes consecutive pieces that together hold all its tokens, or, with
        `long_notes` "first", the first of them only.
        """
        is_first_only = long_notes == "first"
        most_cuts = 1 if is_first_only else None
        edges, before = self.edges, self.edges.opener_count
        body = max_tokens - before - edges.ends_every_piece
        size = body * self.dtype.itemsize
        opener = self._packed(*[edges.opener_id] * before)
        end = self._packed(edges.end_id)
        end_of_note, end_of_piece = (b"", end) if edges.ends_every_piece else (end, b"")
        packed: list[bytes] = []
        rows: list[tuple[int, int, int, int, bool]] = []
        for number, text in enumerate(texts):
            tokens = self._first_tokens(text, body) if is_first_only else self._tokens(text)
            fills_its_pieces = tokens.packed and len(tokens.packed) % size == 0
            ids_of_note = tokens.packed if fills_its_pieces else tokens.packed + end_of_note
            cuts = range(body, len(ids_of_note) // self.dtype.itemsize, body)[:most_cuts]
            bounds = [0, *(tokens.starts_of(cuts) if cuts else ()), len(text)]
            if is_first_only:
                bounds = bounds[:2]
            for piece, (start, end) in enumerate(itertools.pairwise(bounds)):
                ids = ids_of_note[piece * size : (piece + 1) * size] + end_of_piece
                packed += (opener, ids)
                length = before + len(ids) // self.dtype.itemsize
                is_cut = piece < len(cuts)
                rows.append((number, piece, length, _utf8_bytes(text, start, end), is_cut))
        return Documents(
            np.frombuffer(b"".join(packed), self.dtype),
            np.array(rows, DOCUMENT_FIELDS),
            len(texts),
        )

    def _packed(self, *ids: int | None) -> bytes:
        return np.array(ids, self.dtype).tobytes()

    def _first_tokens(self, text: str, wanted: int) -> _Tokens:
        """More than `wanted` tokens of a text, or all of them if it has no more."""
        window = _CHARS_PER_TOKEN * wanted
        cache = self.words
        if cache is not None and window < len(text) and (words := cache.split(text[:window])):
            words.pop()  # it may go on after the window
            tokens = _of_words(cache, words)
            if len(tokens.packed) > wanted * self.dtype.itemsize:
                return tokens
        return self._tokens(text)

    def _tokens(self, text: str) -> _Tokens:
        if self.words is not None and (words := self.words.split(text)):
            return _of_words(self.words, words)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        packed = np.array(encoding.ids, self.dtype).tobytes()
        return _Tokens(packed, lambda cuts: _starts(encoding.offsets, cuts, len(text)))


def _of_words(cache: WordCache, words: list[str]) -> _Tokens:
    packed = cache.packed(words)
    return _Tokens(b"".join(packed), lambda cuts: cache.starts_of(words, packed, cuts))


def _starts(
    offsets: Sequence[tuple[int, int]], tokens: Sequence[int], text_length: int
) -> list[int]:
    """Where tokens start; what ends a note, after all others, starts where the text ends."""
    return [offsets[token][0] if token < len(offsets) else text_length for token in tokens]


def _utf8_bytes(text: str, start: int, end: int) -> int:
    return end - start if text.isascii() else len(text[start:end].encode())


def load_encoder(
    backbone: Path, edges: Edges | None = None, *, frames_pieces: bool = False
) -> Encoder:
    """The encoder of a backbone folder.

    Args:
        backbone: The folder.
        edges: What stands round documents; BOS and EOS where nothing is said.
        frames_pieces: In place of BOS and EOS, put what the tokenizer puts round a text, `[CLS]`
            and `[SEP]`, round every piece, if it puts something there.

    Raises:
        BackboneError: If `tokenizer.json` is missing or damaged, or BOS or EOS is not declared.
    """
    declared = read_declared(backbone)
    edges = edges or (declared.framed_edges if frames_pieces else None) or declared.edges("bos")
    return Encoder(declared.tokenizer, edges, declared.vocabulary_size)
