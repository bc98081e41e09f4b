"""Note text to token ids, with the tokenizer of the backbone."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from notetune.errors import BackboneError
from notetune.tokens.edges import Edges, read_declared
from notetune.tokens.words import WordCache, word_cache

LongNotes = Literal["pieces", "first"]

DOCUMENT_FIELDS = np.dtype(
    [(name, "<i4") for name in ("note", "piece", "length", "text_bytes")] + [("is_cut", "?")]
)
_Starts = Callable[[Sequence[int]], list[int]]
"""The characters of a text at which some of its tokens start."""
_CHARS_PER_TOKEN = 5  # more than most text has, so that the first try mostly suffices


@dataclass(frozen=True)
class Documents:
    """The tokens of N notes, each in one or more of D documents."""

    ids: npt.NDArray[Any]
    """`(total tokens,)` ids of all documents, one after another. Each document begins with the
    opener, if there is one; the last piece of a note ends in what ends a note if it has room, and
    for an encoder every piece does."""
    table_D: npt.NDArray[Any]
    """`(D,)` of `DOCUMENT_FIELDS`: number of the note, number of the piece (0 begins the note),
    tokens, UTF-8 bytes of the text behind it, whether there are further pieces."""

    @property
    def note_count(self) -> int:
        """N."""
        return int(self.table_D["note"][-1]) + 1 if len(self.table_D) else 0

    def of_notes(self, is_wanted_N: npt.NDArray[np.bool_]) -> "Documents":
        """The documents of some notes, which are numbered anew."""
        if is_wanted_N.all():
            return self
        is_wanted_D = is_wanted_N[self.table_D["note"]]
        ids = self.ids[np.repeat(is_wanted_D, self.table_D["length"])]
        table_D = self.table_D[is_wanted_D]
        table_D["note"] = (np.cumsum(is_wanted_N) - 1)[table_D["note"]]
        return Documents(ids, table_D)


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with what stands round the documents of its backbone."""

    tokenizer: Tokenizer
    edges: Edges
    vocabulary_size: int
    """Tokens that the backbone embeds."""

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
        `long_notes` "first", the first of them only. Where notes are joined, all but the piece
        with the beginning are full, and they are numbered from the end.
        """
        most = 1 if long_notes == "first" else None
        edges, before = self.edges, int(self.edges.opener_id is not None)
        body = max_tokens - before - edges.ends_every_piece
        size = body * self.dtype.itemsize
        opener = np.array([edges.opener_id] * before, self.dtype).tobytes()
        end = np.array(edges.end_id, self.dtype).tobytes()
        end_of_note, end_of_piece = (b"", end) if edges.ends_every_piece else (end, b"")
        packed: list[bytes] = []
        rows: list[tuple[int, int, int, int, bool]] = []
        newest_first = edges.join == "by time"
        for number, text in enumerate(texts):
            tokens, starts_of = self._tokens(text, body if most and not newest_first else len(text))
            fills_its_pieces = tokens and len(tokens) % size == 0
            ids_of_note = tokens if fills_its_pieces else tokens + end_of_note
            first = (len(ids_of_note) % size or size) if newest_first else size
            cuts = range(first, len(ids_of_note), size)
            starts = starts_of([cut // self.dtype.itemsize for cut in cuts]) if cuts else []
            bounds = [(0, 0), *zip(cuts, starts, strict=True), (len(ids_of_note), len(text))]
            pieces = [*itertools.pairwise(bounds)][:: -1 if newest_first else 1]
            for piece, ((a, start), (b, stop)) in enumerate(pieces[:most]):
                ids = ids_of_note[a:b] + end_of_piece
                packed += (opener, ids)
                length = before + len(ids) // self.dtype.itemsize
                in_bytes = stop - start if text.isascii() else len(text[start:stop].encode())
                rows.append((number, piece, length, in_bytes, piece < len(cuts)))
        all_ids = np.frombuffer(b"".join(packed), self.dtype)
        return Documents(all_ids, np.array(rows, DOCUMENT_FIELDS))

    def _tokens(self, text: str, wanted: int) -> tuple[bytes, _Starts]:
        """More than `wanted` tokens from the beginning of a text, or all of them."""
        cache, window = self.words, _CHARS_PER_TOKEN * wanted
        if cache is not None and window < len(text):
            words = cache.split(text[:window]) or []
            tokens, starts_of = _of_words(cache, words[:-1])  # the last may go on after the window
            if len(tokens) > wanted * self.dtype.itemsize:
                return tokens, starts_of
        if cache is not None and (words_of_all := cache.split(text)):
            return _of_words(cache, words_of_all)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)

        def starts(tokens: Sequence[int]) -> list[int]:
            of_all = [*(start for start, _ in encoding.offsets), len(text)]  # the end is a token
            return [of_all[token] for token in tokens]

        return np.array(encoding.ids, self.dtype).tobytes(), starts


def _of_words(cache: WordCache, words: list[str]) -> tuple[bytes, _Starts]:
    packed = [cache[word] for word in words]
    return b"".join(packed), lambda tokens: cache.starts_of(words, packed, tokens)


def load_encoder(
    backbone: Path, edges: Edges | None = None, *, frames_pieces: bool = False
) -> Encoder:
    """The encoder of a backbone folder.

    Where `edges` do not say what stands round documents, it is BOS and EOS; with `frames_pieces`,
    what the tokenizer puts round a text, `[CLS]` and `[SEP]`, if it puts something there.

    Raises:
        BackboneError: If `tokenizer.json` is missing or damaged, BOS or EOS is not declared, or
            `edges` are not of this backbone.
    """
    declared = read_declared(backbone)
    edges = edges or (declared.framed_edges if frames_pieces else None) or declared.edges("bos")
    ids = [edges.end_id, *([] if edges.opener_id is None else [edges.opener_id])]
    if (last := max(ids)) >= declared.vocabulary_size:
        raise BackboneError(
            f"token {last} stands round documents, but {backbone} has {declared.vocabulary_size} "
            "tokens, from 0; give the backbone that they are of."
        )
    return Encoder(declared.tokenizer, edges, declared.vocabulary_size)
