"""Which documents share a row. A plan is recomputed from the lengths, never stored."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from notetune.errors import DataError

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackPlan:
    """Rows of whole documents.

    Attributes:
        order_D: `(D,)` document numbers, row after row.
        starts_R: `(R + 1,)`; row r holds `order_D[starts_R[r]:starts_R[r + 1]]`.
        tokens_per_row: The budget that no row exceeds.
    """

    order_D: Int64Array
    starts_R: Int64Array
    tokens_per_row: int

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.starts_R) - 1

    def row(self, number: int) -> Int64Array:
        """The documents of one row."""
        return self.order_D[self.starts_R[number] : self.starts_R[number + 1]]

    def fill(self, lengths_D: Int64Array) -> float:
        """Share of the row budget that holds tokens."""
        return float(lengths_D[self.order_D].sum() / (self.row_count * self.tokens_per_row))


def pack_documents(
    lengths_D: Int64Array, tokens_per_row: int, seed: int | tuple[int, ...] = 0
) -> PackPlan:
    """Assign each document to one row: longest first, into the fullest row that still has room.

    Args:
        lengths_D: `(D,)` int64, tokens per document, each in `1..tokens_per_row`.
        tokens_per_row: Row budget in tokens.
        seed: Orders documents of the same length, so that epochs can mix documents differently.

    Returns:
        A plan in which every document appears exactly once and no row exceeds the budget.

    Raises:
        DataError: If there is no document, or one is empty or longer than a row.

    Source:
        Best-fit decreasing; at most 11/9 OPT + 4 rows (Johnson 1973).

    Example:
        >>> plan = pack_documents(np.array([5, 3, 2, 6]), tokens_per_row=8)
        >>> [plan.row(r).tolist() for r in range(plan.row_count)]
        [[3, 2], [0, 1]]
    """
    _check_lengths(lengths_D, tokens_per_row)
    shuffle_D = np.random.default_rng(seed).permutation(len(lengths_D))
    longest_first_D = shuffle_D[np.argsort(-lengths_D[shuffle_D], kind="stable")]
    row_D = np.empty(len(lengths_D), dtype=np.int64)
    rows_with_room: list[list[int]] = [[] for _ in range(tokens_per_row + 1)]
    rooms = 0  # bit k is set when some row has exactly k tokens of room
    row_count = 0
    for document, length in zip(
        longest_first_D.tolist(), lengths_D[longest_first_D].tolist(), strict=True
    ):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
        else:
            room, row, row_count = tokens_per_row, row_count, row_count + 1
        row_D[document] = row
        rows_with_room[room - length].append(row)
        rooms |= 1 << (room - length)
    order_D = longest_first_D[np.argsort(row_D[longest_first_D], kind="stable")]
    starts_R = np.searchsorted(row_D[order_D], np.arange(row_count + 1))
    return PackPlan(order_D, starts_R.astype(np.int64), tokens_per_row)


def _check_lengths(lengths_D: Int64Array, tokens_per_row: int) -> None:
    if not len(lengths_D):
        raise DataError("there is no document to pack; check the sources and splits of the recipe.")
    bad = np.flatnonzero((lengths_D < 1) | (lengths_D > tokens_per_row))
    if bad.size:
        raise DataError(
            f"document {bad[0]} has {lengths_D[bad[0]]} tokens; a row holds 1..{tokens_per_row} "
            f"({bad.size} of {lengths_D.size} documents are outside). "
            "Raise tokens_per_row or lower prepare.max_tokens."
        )
