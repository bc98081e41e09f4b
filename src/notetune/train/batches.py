"""Which documents are trained on at which step: a function of (seed, epoch), nothing else."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from notetune.model.batch import PackedBatch, packed_batch
from notetune.tokens.packing import Int64Array, PackPlan, pack_documents
from notetune.tokens.store import TokenStore


def read_row(
    store: TokenStore, documents_D: Int64Array, device: torch.device | str = "cpu"
) -> PackedBatch:
    """The documents of a store as one packed row, longest first."""
    longest_first = documents_D[np.argsort(-store.lengths_D[documents_D], kind="stable")]
    return packed_batch(
        [store.document(int(number)) for number in longest_first], longest_first, device
    )


def rows_in_order(
    store: TokenStore, documents_D: Int64Array, tokens_per_row: int, device: torch.device | str
) -> Iterator[PackedBatch]:
    """Every document once, packed; for scoring."""
    plan = pack_documents(store.lengths_D[documents_D], tokens_per_row)
    for row in range(plan.row_count):
        yield read_row(store, documents_D[plan.row(row)], device)


def pretraining_steps_per_epoch(
    lengths_D: Int64Array, tokens_per_row: int, targets_per_step: int
) -> int:
    """Steps that one pass over the documents takes: at least one, at most one per row.

    Example:
        >>> pretraining_steps_per_epoch(np.full(10, 101), tokens_per_row=101, targets_per_step=250)
        4
    """
    targets = int(lengths_D.sum()) - len(lengths_D)
    row_count = pack_documents(lengths_D, tokens_per_row).row_count
    return min(max(1, round(targets / targets_per_step)), row_count)


def pretraining_steps(
    store: TokenStore,
    documents_D: Int64Array,
    *,
    tokens_per_row: int,
    targets_per_step: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Iterator[list[PackedBatch]]:
    """Endless steps of packed rows; each epoch packs, shuffles and deals its rows anew."""
    lengths_D = store.lengths_D[documents_D]
    step_count = pretraining_steps_per_epoch(lengths_D, tokens_per_row, targets_per_step)
    for epoch in itertools.count():
        plan = pack_documents(lengths_D, tokens_per_row, (seed, epoch))
        rows = np.random.default_rng((seed, epoch, 1)).permutation(plan.row_count)
        for step_rows in np.array_split(rows, step_count):
            yield [read_row(store, documents_D[plan.row(int(r))], device) for r in step_rows]


def note_steps(
    store: TokenStore,
    documents_N: Int64Array,
    *,
    tokens_per_row: int,
    notes_per_step: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Iterator[list[PackedBatch]]:
    """Endless steps of about `notes_per_step` notes, each step packed into rows of its own."""
    lengths_N = store.lengths_D[documents_N]
    step_count = math.ceil(len(documents_N) / notes_per_step)
    for epoch in itertools.count():
        order = np.random.default_rng((seed, epoch)).permutation(len(documents_N))
        for step_notes in np.array_split(order, step_count):
            plan: PackPlan = pack_documents(lengths_N[step_notes], tokens_per_row)
            chosen: Sequence[Int64Array] = [plan.row(row) for row in range(plan.row_count)]
            yield [read_row(store, documents_N[step_notes[row]], device) for row in chosen]
