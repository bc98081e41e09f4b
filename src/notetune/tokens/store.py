"""Documents on disk: memory-mapped token ids with the note and patient of every document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from notetune import runs
from notetune.errors import RunError
from notetune.tokens.encode import Encoder
from notetune.tokens.packing import Int64Array

_NOTES_PER_CHUNK = 1000


@dataclass(frozen=True)
class TokenStore:
    """All documents of a prepared run.

    Attributes:
        ids: `(total tokens,)` memory-mapped ids of all documents, one after another.
        offsets: `(D + 1,)`; document d holds `ids[offsets[d]:offsets[d + 1]]`.
        note_number_D: `(D,)` which note the document comes from, in the order of `note_ids`.
        piece_D: `(D,)` 0 for the first piece of its note.
        text_bytes_D: `(D,)` UTF-8 bytes of the text behind the document.
        note_ids: `(N,)` note ids.
        patient_ids: `(N,)` patient ids.
        source_N: `(N,)` source of each note.
        split_N: `(N,)` split of each note.
    """

    ids: npt.NDArray[Any]
    offsets: Int64Array
    note_number_D: Int64Array
    piece_D: npt.NDArray[np.int32]
    text_bytes_D: npt.NDArray[np.int32]
    note_ids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    source_N: npt.NDArray[np.str_]
    split_N: npt.NDArray[np.str_]

    @property
    def lengths_D(self) -> Int64Array:
        """`(D,)` tokens per document."""
        return np.diff(self.offsets)

    def document(self, number: int) -> Int64Array:
        """The token ids of one document."""
        return np.asarray(self.ids[self.offsets[number] : self.offsets[number + 1]], np.int64)

    def documents_of(self, split: str, sources: Sequence[str] = ()) -> Int64Array:
        """Document numbers of a split, of the given sources (all when none is given)."""
        is_wanted_N = self.split_N == split
        if sources:
            is_wanted_N &= np.isin(self.source_N, list(sources))
        return np.flatnonzero(is_wanted_N[self.note_number_D])

    def first_documents(self, note_ids: Sequence[str]) -> Int64Array:
        """The first document of each note: its beginning, cut at the token limit.

        Raises:
            RunError: If a note is not in the store.
        """
        order = np.argsort(self.note_ids)
        wanted = np.asarray(note_ids, dtype=np.str_)
        place = np.searchsorted(self.note_ids, wanted, sorter=order)
        number_N = order[np.minimum(place, len(order) - 1)]
        missing = np.flatnonzero(self.note_ids[number_N] != wanted)
        if missing.size:
            raise RunError(
                f"note {wanted[missing[0]]} is not in the token store ({missing.size} are "
                "missing); prepare the run again."
            )
        first_D = np.flatnonzero(self.piece_D == 0)
        return first_D[np.searchsorted(self.note_number_D[first_D], number_N)]

    def is_truncated(self, documents_D: Int64Array) -> npt.NDArray[np.bool_]:
        """`(D,)` whether the note of each first document goes on in a further piece."""
        pieces_N = np.bincount(self.note_number_D, minlength=len(self.note_ids))
        return np.asarray(pieces_N[self.note_number_D[documents_D]] > 1)


_ARRAYS = ("offsets", "note_number_D", "piece_D", "text_bytes_D")
_TEXTS = ("note_ids", "patient_ids", "source_N", "split_N")


def encode_notes(
    encoder: Encoder,
    max_tokens: int,
    texts: Sequence[str],
    columns: Mapping[str, Sequence[str]],
) -> TokenStore:
    """Encode notes into a store in memory.

    Args:
        encoder: The backbone's encoder.
        max_tokens: Longest document.
        texts: `(N,)` note texts.
        columns: `(N,)` each, under the names `note_ids`, `patient_ids`, `source_N`, `split_N`.
    """
    ids: list[int] = []
    lengths, note_numbers, pieces, sizes = [], [], [], []
    for number, documents in enumerate(encoder.documents(texts, max_tokens)):
        for document in documents:
            ids.extend(document.ids)
            lengths.append(len(document.ids))
            note_numbers.append(number)
            pieces.append(document.piece)
            sizes.append(len(texts[number][document.start : document.end].encode()))
    return TokenStore(
        ids=np.asarray(ids, np.uint16 if encoder.vocabulary_size <= 1 << 16 else np.uint32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        note_number_D=np.asarray(note_numbers, np.int64),
        piece_D=np.asarray(pieces, np.int32),
        text_bytes_D=np.asarray(sizes, np.int32),
        **{name: np.asarray(columns[name], np.str_) for name in _TEXTS},
    )


def write_store(
    folder: Path,
    encoder: Encoder,
    max_tokens: int,
    texts: Sequence[str],
    columns: Mapping[str, Sequence[str]],
) -> None:
    """Encode notes into an existing empty folder, a chunk at a time; arguments as above."""
    chunks = []
    with (folder / "ids.bin").open("wb") as file:
        for first in range(0, len(texts), _NOTES_PER_CHUNK):
            part = slice(first, first + _NOTES_PER_CHUNK)
            some = {name: values[part] for name, values in columns.items()}
            chunk = encode_notes(encoder, max_tokens, texts[part], some)
            file.write(chunk.ids.tobytes())
            chunks.append((first, replace(chunk, ids=chunk.ids[:0])))
    lengths_D = np.concatenate([chunk.lengths_D for _, chunk in chunks])
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths_D)]).astype(np.int64),
        "note_number_D": np.concatenate([first + chunk.note_number_D for first, chunk in chunks]),
        "piece_D": np.concatenate([chunk.piece_D for _, chunk in chunks]),
        "text_bytes_D": np.concatenate([chunk.text_bytes_D for _, chunk in chunks]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for name in _TEXTS:
        np.save(folder / f"{name}.npy", np.char.encode(np.asarray(columns[name], np.str_), "utf-8"))
    description = {"format": runs.FORMAT, "dtype": chunks[0][1].ids.dtype.name}
    runs.write_json(folder / "store.json", description)


def open_store(folder: Path) -> TokenStore:
    """Open a store; the ids stay on disk until they are read.

    Raises:
        RunError: If a file is missing or the format is newer than this version reads.
    """
    description = runs.read_json(folder / "store.json")
    if description["format"] != runs.FORMAT:
        raise RunError(f"{folder} has format {description['format']}; prepare the run again.")
    try:
        arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy") for name in _ARRAYS}
        texts: dict[str, Any] = {
            name: np.char.decode(np.load(folder / f"{name}.npy"), "utf-8") for name in _TEXTS
        }
        ids = np.memmap(folder / "ids.bin", dtype=description["dtype"], mode="r")
    except (OSError, ValueError):
        raise RunError(f"{folder} is not a whole token store; prepare the run again.") from None
    return TokenStore(ids=ids, **arrays, **texts)
