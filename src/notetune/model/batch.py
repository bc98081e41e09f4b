"""One row of packed documents on its device.

Shape legend of `model/` and `train/`: T packed tokens, D documents, N scored notes, K classes,
H hidden units, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Documents laid end to end; attention and positions restart at each.

    Attributes:
        ids_T: `(T,)` int64 token ids.
        positions_T: `(T,)` int64 position of each token in its own document.
        lengths_D: Tokens per document, in order; they sum to T.
        documents_D: `(D,)` where each document stands in its store.
    """

    ids_T: Tensor
    positions_T: Tensor
    lengths_D: tuple[int, ...]
    documents_D: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        total = sum(self.lengths_D)
        assert self.ids_T.shape == self.positions_T.shape == (total,)
        assert len(self.lengths_D) == len(self.documents_D)

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

    def halves(self) -> "tuple[PackedBatch, ...]":
        """Its first and its second documents apart, about as many tokens in each.

        A row of one document is returned as it is.
        """
        if len(self.lengths_D) == 1:
            return (self,)
        ends_D = np.cumsum(self.lengths_D)
        cut = int(np.abs(2 * ends_D[:-1] - ends_D[-1]).argmin()) + 1
        return self._documents(slice(cut)), self._documents(slice(cut, None))

    def _documents(self, which: slice) -> "PackedBatch":
        tokens = slice(sum(self.lengths_D[: which.start or 0]), sum(self.lengths_D[: which.stop]))
        return PackedBatch(
            self.ids_T[tokens],
            self.positions_T[tokens],
            self.lengths_D[which],
            self.documents_D[which],
        )


def packed_batch(
    documents: Sequence[npt.NDArray[np.int64]],
    numbers: Sequence[int] | npt.NDArray[np.int64],
    device: torch.device | str = "cpu",
) -> PackedBatch:
    """Lay documents end to end; `numbers` says where each stands in its store."""
    ids = torch.from_numpy(np.concatenate(documents))
    positions = torch.from_numpy(np.concatenate([np.arange(len(ids)) for ids in documents]))
    lengths = tuple(len(document) for document in documents)
    return PackedBatch(ids.to(device), positions.to(device), lengths, np.asarray(numbers, np.int64))
