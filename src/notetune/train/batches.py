"""Which documents are trained on at which step: a function of (seed, epoch), nothing else."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune.model.batch import PackedBatch, packed_batch
from notetune.tokens.packing import Int64Array, pack_documents, steps_per_epoch
from notetune.tokens.store import TokenStore


def read_row(
    store: TokenStore, documents_D: Int64Array, device: torch.device | str = "cpu"
) -> PackedBatch:
    """The documents of a store as one packed row, in the order given.

    A plan gives them longest first, so that documents of one length stand together.
    """
    return packed_batch([store.document(int(d)) for d in documents_D], documents_D, device)


def _read_notes(
    store: TokenStore, documents_N: Int64Array, max_pieces: int, device: torch.device | str
) -> PackedBatch:
    """Notes as one packed row, each from its first document on with at most `max_pieces` pieces."""
    pieces_N = store.reading(documents_N, max_pieces).pieces_N.tolist()
    pairs = zip(documents_N, pieces_N, strict=True)
    documents = [first + n for first, pieces in pairs for n in range(pieces)]
    return packed_batch([store.document(int(d)) for d in documents], documents, device, pieces_N)


def rows_in_order(
    store: TokenStore,
    documents_N: Int64Array,
    tokens_per_row: int,
    reserved_per_document: int,
    device: torch.device | str,
    max_pieces: int = 1,
) -> Iterator[PackedBatch]:
    """Every note once, packed with room for the virtual tokens of its documents; for scoring."""
    slots_N = _slots(store, documents_N, max_pieces, reserved_per_document)
    plan = pack_documents(slots_N, tokens_per_row)
    for row in range(plan.row_count):
        yield _read_notes(store, documents_N[plan.row(row)], max_pieces, device)


def _slots(
    store: TokenStore, documents_N: Int64Array, max_pieces: int, reserved_per_document: int
) -> Int64Array:
    """`(N,)` tokens of each note, with the virtual ones of each of its pieces."""
    reading = store.reading(documents_N, max_pieces)
    return reading.tokens_N + reserved_per_document * reading.pieces_N


def pretraining_steps(
    store: TokenStore,
    documents_D: Int64Array,
    *,
    tokens_per_row: int,
    targets_per_step: int,
    seed: int,
    reserved_per_document: int = 0,
    first_step: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[list[PackedBatch]]:
    """Endless steps of packed rows; each epoch packs, shuffles and deals its rows anew.

    A row has room for `reserved_per_document` virtual tokens in front of each document. What lies
    before `first_step` is not read.
    """
    lengths_D = store.lengths_D[documents_D]
    per_epoch = steps_per_epoch(lengths_D, tokens_per_row, targets_per_step, reserved_per_document)
    first_epoch, skipped = divmod(first_step, per_epoch)
    for epoch in itertools.count(first_epoch):
        plan = pack_documents(lengths_D + reserved_per_document, tokens_per_row, (seed, epoch))
        rows = np.random.default_rng((seed, epoch, 1)).permutation(plan.row_count)
        steps = np.array_split(rows, per_epoch)
        for step_rows in steps[skipped if epoch == first_epoch else 0 :]:
            yield [read_row(store, documents_D[plan.row(int(r))], device) for r in step_rows]


@dataclass(frozen=True)
class LabelledBatch:
    """A packed row of N notes with their labels.

    Attributes:
        targets_NK: `(N, K)` zeros and ones, in the order of the notes.
    """

    inputs: PackedBatch
    targets_NK: Tensor

    @property
    def documents_D(self) -> Int64Array:
        """`(N,)` where the first document of each note stands in its store."""
        return self.inputs.first_documents_N

    @property
    def target_count(self) -> int:
        """Notes whose loss is summed."""
        return len(self.targets_NK)

    def halves(self) -> "tuple[LabelledBatch, ...]":
        """Its first and its second notes apart; itself if it has one note."""
        rows = self.inputs.halves()
        targets = torch.split(self.targets_NK, [len(row.pieces_N) for row in rows])
        return tuple(map(LabelledBatch, rows, targets)) if len(rows) > 1 else (self,)


def shuffled_steps(
    note_count: int, notes_per_step: int, seed: int, first_step: int = 0
) -> Iterator[Int64Array]:
    """Endless steps of about `notes_per_step` note numbers; each epoch is shuffled anew."""
    per_epoch = math.ceil(note_count / notes_per_step)
    first_epoch, skipped = divmod(first_step, per_epoch)
    for epoch in itertools.count(first_epoch):
        order = np.random.default_rng((seed, epoch)).permutation(note_count)
        yield from np.array_split(order, per_epoch)[skipped if epoch == first_epoch else 0 :]


def labelled_rows(
    store: TokenStore,
    documents_N: Int64Array,
    targets_NK: npt.NDArray[np.int8],
    steps: Iterable[Int64Array],
    *,
    tokens_per_row: int,
    reserved_per_document: int = 0,
    device: torch.device | str = "cpu",
    max_pieces: int = 1,
) -> Iterator[list[LabelledBatch]]:
    """Each step's notes packed into rows of their own, all pieces of a note in one, with labels."""
    slots_N = _slots(store, documents_N, max_pieces, reserved_per_document)
    for notes in steps:
        plan = pack_documents(slots_N[notes], tokens_per_row)
        rows = []
        for number in range(plan.row_count):
            chosen = notes[plan.row(number)]
            batch = _read_notes(store, documents_N[chosen], max_pieces, device)
            targets = torch.from_numpy(targets_NK[chosen]).to(device)
            rows.append(LabelledBatch(batch, targets))
        yield rows
