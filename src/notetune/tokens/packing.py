"""Which documents share a row. A plan is recomputed from the lengths, never stored."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from notetune.errors import DataError

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackPlan:
    """Rows of whole documents."""

    order_D: Int64Array
    """`(D,)` document numbers, row after row."""
    starts_R: Int64Array
    """`(R + 1,)`; row r holds `order_D[starts_R[r]:starts_R[r + 1]]`."""

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.starts_R) - 1

    def row(self, number: int) -> Int64Array:
        """The documents of one row."""
        return self.order_D[self.starts_R[number] : self.starts_R[number + 1]]


def pack_documents(
    lengths_D: Int64Array, tokens_per_row: int, seed: int | tuple[int, ...] = 0
) -> PackPlan:
    """Assign each document to one row: longest first, into the fullest row that still has room.

    Every document is in the plan exactly once, and no row exceeds the budget.

    Args:
        lengths_D: `(D,)` int64, tokens per document, each in `1..tokens_per_row`.
        tokens_per_row: Row budget in tokens.
        seed: Orders documents of the same length, so that epochs can mix documents differently.

    Raises:
        DataError: If there is no document, or one is empty or longer than a row.

    Source: Best-fit decreasing; at most 11/9 OPT + 4 rows (Johnson 1973).

    Example:
        >>> plan = pack_documents(np.array([5, 3, 2, 6]), tokens_per_row=8)
        >>> [plan.row(r).tolist() for r in range(plan.row_count)]
        [[3, 2], [0, 1]]
    """
    if not len(lengths_D):
        raise DataError("there is no document to pack; check the sources and splits of the recipe.")
    bad = np.flatnonzero((lengths_D < 1) | (lengths_D > tokens_per_row))
    if bad.size:
        raise DataError(
            f"document {bad[0]} has {lengths_D[bad[0]]} tokens; a row holds 1..{tokens_per_row} "
            f"({bad.size} of {lengths_D.size} documents are outside). "
            "Raise tokens_per_row or lower prepare.max_tokens."
        )
    tokens_per_row = min(tokens_per_row, int(lengths_D.sum()))  # no row needs more
    shuffle_D = np.random.default_rng(seed).permutation(len(lengths_D))
    # Small integers are sorted by radix, which takes a tenth of the time.
    keys_D = lengths_D.astype(np.min_scalar_type(tokens_per_row))[shuffle_D]
    by_length_D = shuffle_D[np.argsort(keys_D, kind="stable")]
    counts = np.bincount(lengths_D)
    next_of = np.cumsum(counts) - counts  # where the next document of each length stands
    order, sizes = [], []
    for group in _row_groups(counts, tokens_per_row):
        blocks = []
        for length, per_row in group.parts:
            first = next_of[length]
            next_of[length] += group.row_count * per_row
            documents = by_length_D[first : next_of[length]]
            blocks.append(documents.reshape(group.row_count, per_row))
        rows = np.concatenate(blocks, axis=1)
        order.append(rows.ravel())
        sizes.append(np.full(len(rows), rows.shape[1]))
    starts_R = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return PackPlan(np.concatenate(order), starts_R.astype(np.int64))


class _RowGroup(NamedTuple):
    """Rows that hold the same numbers of documents of the same lengths."""

    row_count: int
    parts: tuple[tuple[int, int], ...]
    """(length, documents of that length in each row), longest first."""


def _row_groups(counts: Int64Array, tokens_per_row: int) -> list[_RowGroup]:
    """All rows, longest documents first, for `counts[length]` documents of each length.

    Documents of one length are placed together: a row that takes one of them is then the fullest
    with room for the next, until it has none.
    """
    by_room: defaultdict[int, list[_RowGroup]] = defaultdict(list)
    rooms = 0  # bit k is set when some group has exactly k tokens of room
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room, group = tokens_per_row, _RowGroup(left, ())
            if fitting := rooms >> length:
                room = length + (fitting & -fitting).bit_length() - 1
                group = by_room[room].pop()
                if not by_room[room]:
                    rooms ^= 1 << room
            per_row = room // length
            full = min(group.row_count, left // per_row)
            rest = left - full * per_row if full < group.row_count else 0
            untouched = group.row_count - full - min(rest, 1) if group.parts else 0
            for row_count, taken in ((full, per_row), (min(rest, 1), rest), (untouched, 0)):
                if row_count:
                    parts = (*group.parts, (length, taken)) if taken else group.parts
                    by_room[room - taken * length].append(_RowGroup(row_count, parts))
                    rooms |= 1 << room - taken * length
            left -= full * per_row + rest
    groups = [group for groups in by_room.values() for group in groups]
    return sorted(groups, key=lambda group: group.parts, reverse=True)


def steps_per_epoch(
    lengths_D: Int64Array,
    tokens_per_row: int,
    targets_per_step: int,
    reserved_per_document: int = 0,
) -> int:
    """Steps that one pass over the documents takes: at least one, at most one per row.

    Example:
        >>> steps_per_epoch(np.full(10, 101), tokens_per_row=101, targets_per_step=250)
        4
    """
    targets = int(lengths_D.sum()) - len(lengths_D)
    row_count = pack_documents(lengths_D + reserved_per_document, tokens_per_row).row_count
    return min(max(1, round(targets / targets_per_step)), row_count)
