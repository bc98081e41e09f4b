"""Documents on disk: memory-mapped token ids with the note and patient of every document."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from notetune import storage
from notetune.errors import RunError
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Documents, Encoder
from notetune.tokens.packing import Int64Array


@dataclass(frozen=True)
class TokenStore:
    """All documents of a prepared run: D of N notes."""

    ids: npt.NDArray[Any]
    """`(total tokens,)`, memory-mapped, of all documents, one after another."""
    offsets: Int64Array
    """`(D + 1,)`; document d holds `ids[offsets[d]:offsets[d + 1]]`."""
    note_number_D: Int64Array
    """Which note the document comes from, in the order of `note_ids`."""
    piece_D: npt.NDArray[np.int32]
    """0 for the first piece of its note that is read: its beginning, or where notes are joined its
    end."""
    text_bytes_D: npt.NDArray[np.int32]
    """UTF-8 bytes of the text behind the document."""
    note_ids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    source_N: npt.NDArray[np.str_]
    split_N: npt.NDArray[np.str_]
    is_cut_D: npt.NDArray[np.bool_]
    """Whether the note has further pieces."""
    in_corpus_N: npt.NDArray[np.bool_]
    """Whether step 1 may train on the note, if it is in the training split."""
    edges: Edges
    max_tokens: int
    """Longest document that there may be."""

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

    def corpus_documents(self, sources: Sequence[str] = ()) -> Int64Array:
        """Document numbers that step 1 may train on, of the given sources (all when none)."""
        documents_D = self.documents_of("train", sources)
        return documents_D[self.in_corpus_N[self.note_number_D[documents_D]]]

    def first_documents(self, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> Int64Array:
        """The first document of each note, cut at the token limit.

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

    def reading(self, documents_N: Int64Array, most_pieces: int) -> "Reading":
        """What is read of notes from their first documents on: at most so many pieces of each."""
        numbers_N = self.note_number_D[documents_N]
        ends_N = np.searchsorted(self.note_number_D, numbers_N, side="right")
        ends_N = np.minimum(ends_N, documents_N + most_pieces)
        return Reading(
            np.asarray(self.offsets[ends_N] - self.offsets[documents_N]),
            np.asarray(ends_N - documents_N),
            np.asarray(self.is_cut_D[ends_N - 1]),
        )

    def read_texts(
        self, texts: Sequence[str], documents_N: Int64Array, most_pieces: int
    ) -> list[str]:
        """What `reading` counts of whole notes as they were encoded: their beginnings or ends."""
        ends_N = documents_N + self.reading(documents_N, most_pieces).pieces_N
        bytes_D = np.concatenate([[0], np.cumsum(self.text_bytes_D, dtype=np.int64)])
        sizes_N = (bytes_D[ends_N] - bytes_D[documents_N]).tolist()
        pairs = ((text.encode(), size) for text, size in zip(texts, sizes_N, strict=True))
        if self.edges.join == "by time":
            return [text[len(text) - size :].decode(errors="ignore") for text, size in pairs]
        return [text[:size].decode(errors="ignore") for text, size in pairs]


def whole_pieces(store: TokenStore, is_counted_N: npt.NDArray[np.bool_]) -> int:
    """The fewest pieces a note with which `WHOLE_SHARE` of some notes are read whole."""
    pieces_N = np.bincount(store.note_number_D, minlength=len(store.note_ids))[is_counted_N]
    return int(np.quantile(pieces_N, WHOLE_SHARE, method="inverted_cdf")) if len(pieces_N) else 1


@dataclass(frozen=True)
class Reading:
    """How much of each note is read."""

    tokens_N: Int64Array
    """With what opens and what ends."""
    pieces_N: Int64Array
    """Documents that they stand in."""
    truncated_N: npt.NDArray[np.bool_]
    """Whether the note has more than them."""

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The same under the names that it has in a table."""
        return {"tokens": self.tokens_N, "pieces": self.pieces_N, "truncated": self.truncated_N}


FORMAT = 5
WHOLE_SHARE = 0.95
"""Share of the training notes that are read whole where the recipe leaves it to us."""
_IDS = "ids.bin"
_TABLE, _SHARD_IDS = "documents.npy", "ids.npy"
_ARRAYS = ("offsets", "note_number_D", "piece_D", "text_bytes_D", "is_cut_D")
_TEXTS = ("note_ids", "patient_ids", "source_N", "split_N")
_IN_CORPUS = "in_corpus_N"
IN_CORPUS = f"{_IN_CORPUS}.npy"
"""The file that says which notes step 1 may read."""
_NOTES_AT_A_TIME = 10_000


def encode_notes(encoder: Encoder, max_tokens: int, texts: Sequence[str]) -> TokenStore:
    """Encode notes into a store in memory, where each is told by its number from 0."""
    documents = encoder.documents(texts, max_tokens)
    names: dict[str, Any] = dict.fromkeys(_TEXTS, np.arange(len(texts)).astype(np.str_))
    return TokenStore(
        ids=documents.ids,
        **_arrays([documents]),
        **names,
        in_corpus_N=np.ones(len(texts), np.bool_),
        edges=encoder.edges,
        max_tokens=max_tokens,
    )


def save_documents(folder: Path, documents: Documents) -> None:
    """Write the documents of some notes into a folder, for `read_documents`."""
    storage.write_array(folder / _TABLE, documents.table_D)
    storage.write_array(folder / _SHARD_IDS, documents.ids)


def read_documents(folder: Path) -> Documents:
    """The documents that `save_documents` wrote; every note has at least one."""
    return Documents(np.load(folder / _SHARD_IDS), np.load(folder / _TABLE))


def join_documents(
    folder: Path,
    parts: Iterable[Documents],
    columns: Mapping[str, Any],
    edges: Edges,
    max_tokens: int,
) -> None:
    """Write one store from the documents of all notes, which come in parts.

    Only one of the parts is in memory at a time. `columns` are `(N,)` strings over the notes of all
    parts, `note_ids`, `patient_ids`, `source_N` and `split_N`; and, unless step 1 may train on all
    notes, Boolean `in_corpus_N`.
    """
    tables = []
    with (folder / _IDS).open("wb") as file:
        for part in parts:
            file.write(part.ids.data)
            dtype = part.ids.dtype
            # A view, even an empty one, would keep all ids in memory.
            tables.append(Documents(part.ids[:0].copy(), part.table_D))
    for name, array in _arrays(tables).items():
        storage.write_array(folder / f"{name}.npy", array)
    for name in _TEXTS:
        _save_texts(folder / f"{name}.npy", columns[name])
    everything_N = np.ones(len(columns["note_ids"]), np.bool_)
    in_corpus_N = np.asarray(columns.get(_IN_CORPUS, everything_N), np.bool_)
    storage.write_array(folder / IN_CORPUS, in_corpus_N)
    made = {"edges": dataclasses.asdict(edges), "max_tokens": max_tokens}
    storage.write_json(folder / "store.json", {"format": FORMAT, "dtype": dtype.name, **made})


def open_store(folder: Path) -> TokenStore:
    """Open a store; its arrays stay on disk until they are read.

    Raises:
        RunError: If a file is missing or the format is not the one that this version reads.
    """
    description = storage.read_json(folder / "store.json")
    if description["format"] != FORMAT:
        raise RunError(f"{folder} has format {description['format']}; prepare the run again.")
    try:
        arrays: dict[str, Any] = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
            for name in (*_ARRAYS, *_TEXTS, _IN_CORPUS)
        }
        ids = np.memmap(folder / _IDS, dtype=description["dtype"], mode="r")
    except (OSError, ValueError):
        raise RunError(f"{folder} is not a whole token store; prepare the run again.") from None
    edges, max_tokens = Edges(**description["edges"]), description["max_tokens"]
    return TokenStore(ids=ids, **arrays, edges=edges, max_tokens=max_tokens)


def _arrays(parts: Sequence[Documents]) -> dict[str, Any]:
    """The `(D,)` arrays of a store; note numbers go on from part to part."""
    table_D = np.concatenate([part.table_D for part in parts])
    first_notes = np.cumsum([0, *(part.note_count for part in parts)])[:-1]
    first_note_D = np.repeat(first_notes, [len(part.table_D) for part in parts])
    return {
        "offsets": np.concatenate([[0], np.cumsum(table_D["length"], dtype=np.int64)]),
        "note_number_D": first_note_D + table_D["note"],
        "piece_D": table_D["piece"].copy(),
        "text_bytes_D": table_D["text_bytes"].copy(),
        "is_cut_D": table_D["is_cut"].copy(),
    }


def _save_texts(path: Path, texts: Any) -> None:
    """Write strings as `storage.write_array` would, without an array of all of them in memory."""
    starts = range(0, len(texts), _NOTES_AT_A_TIME)
    blocks = (np.asarray(texts[n : n + _NOTES_AT_A_TIME], np.str_) for n in starts)
    dtype = np.result_type("<U1", *{block.dtype for block in blocks})
    header = {"descr": dtype.str, "fortran_order": False, "shape": (len(texts),)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for n in starts:
            file.write(np.asarray(texts[n : n + _NOTES_AT_A_TIME], dtype).tobytes())
