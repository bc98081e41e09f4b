"""One row of packed documents on its device.

Shape legend of `model/` and `train/`: T packed tokens, D documents, N notes, K classes,
H hidden units, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Documents laid end to end; attention and positions restart at each."""

    ids_T: Tensor
    """`(T,)` int64 token ids."""
    positions_T: Tensor
    """`(T,)` int64 position of each token in its own document."""
    lengths_D: tuple[int, ...]
    """Tokens per document, in order; they sum to T."""
    documents_D: npt.NDArray[np.int64]
    """`(D,)` where each document stands in its store."""
    pieces_N: tuple[int, ...] = ()
    """Documents per note, in order; they sum to D. Each is a note where nothing is said."""

    def __post_init__(self) -> None:
        total = sum(self.lengths_D)
        assert self.ids_T.shape == self.positions_T.shape == (total,)
        if not self.pieces_N:
            object.__setattr__(self, "pieces_N", (1,) * len(self.lengths_D))
        assert len(self.lengths_D) == len(self.documents_D) == sum(self.pieces_N)

    @property
    def first_D(self) -> Tensor:
        """`(D,)` index of the first token of each document."""
        return self._on_device(np.cumsum((0, *self.lengths_D[:-1])))

    @property
    def last_D(self) -> Tensor:
        """`(D,)` index of the last token of each document."""
        return self._on_device(np.cumsum(self.lengths_D) - 1)

    @property
    def document_T(self) -> Tensor:
        """`(T,)` number of the document each token belongs to, counted within the row."""
        return self._on_device(np.repeat(np.arange(len(self.lengths_D)), self.lengths_D))

    @property
    def note_D(self) -> Tensor:
        """`(D,)` number of the note each document is a piece of, counted within the row."""
        return self._on_device(np.repeat(np.arange(len(self.pieces_N)), self.pieces_N))

    @property
    def first_documents_N(self) -> npt.NDArray[np.int64]:
        """`(N,)` where the first document of each note stands in its store."""
        return np.asarray(self.documents_D[np.cumsum((0, *self.pieces_N[:-1]))])

    @property
    def context_T(self) -> Tensor:
        """Indices of the tokens that have a next token in their document."""
        tokens_T = np.arange(sum(self.lengths_D))
        return self._on_device(np.delete(tokens_T, np.cumsum(self.lengths_D) - 1))

    @property
    def target_count(self) -> int:
        """Tokens that are predicted: all but the first of each document."""
        return sum(self.lengths_D) - len(self.lengths_D)

    def _on_device(self, indices: npt.NDArray[np.int64]) -> Tensor:
        # From the lengths, which the host knows: neither a wait for the device nor any data needed.
        return torch.from_numpy(indices).to(self.ids_T.device)

    def apart(self) -> Iterator["PackedBatch"]:
        """Each document as a row of its own."""
        lengths = list(self.lengths_D)
        parts = (torch.split(tensor, lengths) for tensor in (self.ids_T, self.positions_T))
        for number, (ids_T, positions_T) in enumerate(zip(*parts, strict=True)):
            where_D = self.documents_D[number : number + 1]
            yield PackedBatch(ids_T, positions_T, (len(ids_T),), where_D)

    def halves(self) -> "tuple[PackedBatch, ...]":
        """Its first and its second notes apart, about as many tokens in each.

        A row of one note is returned as it is.
        """
        if len(self.pieces_N) == 1:
            return (self,)
        ends_N = np.cumsum(self.lengths_D)[np.cumsum(self.pieces_N) - 1]
        note = int(np.abs(2 * ends_N[:-1] - ends_N[-1]).argmin()) + 1
        document, token = sum(self.pieces_N[:note]), int(ends_N[note - 1])
        return tuple(
            PackedBatch(
                self.ids_T[tokens],
                self.positions_T[tokens],
                self.lengths_D[documents],
                self.documents_D[documents],
                self.pieces_N[notes],
            )
            for tokens, documents, notes in (
                (slice(token), slice(document), slice(note)),
                (slice(token, None), slice(document, None), slice(note, None)),
            )
        )


def packed_batch(
    documents: Sequence[npt.NDArray[np.int64]],
    numbers: Sequence[int] | npt.NDArray[np.int64],
    device: torch.device | str = "cpu",
    pieces_N: Sequence[int] = (),
) -> PackedBatch:
    """Lay documents end to end; `numbers` says where each stands in its store."""
    ids = torch.from_numpy(np.concatenate(documents))
    positions = torch.from_numpy(np.concatenate([np.arange(len(ids)) for ids in documents]))
    lengths = tuple(len(document) for document in documents)
    where = np.asarray(numbers, np.int64)
    return PackedBatch(ids.to(device), positions.to(device), lengths, where, tuple(pieces_N))
