"""Pooling over a note, and the linear head on top."""

from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from notetune.model.batch import PackedBatch

Pooling = Literal["first", "last", "mean"]


def pool(hidden_TH: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """`(N, H)` float32: one vector per note.

    It is the mean of all its tokens, or of the first or last token of each of its pieces.
    """
    hidden_TH, note_D = hidden_TH.float(), batch.note_D
    match pooling:
        case "first":
            return _means(hidden_TH[batch.first_D], note_D, batch.pieces_N)
        case "last":
            return _means(hidden_TH[batch.last_D], note_D, batch.pieces_N)
        case "mean":
            firsts_N = np.cumsum((0, *batch.pieces_N[:-1]))
            tokens_N = np.add.reduceat(batch.lengths_D, firsts_N).tolist()
            return _means(hidden_TH, note_D[batch.document_T], tokens_N)
        case _:
            assert_never(pooling)


def _means(values_XH: Tensor, note_X: Tensor, counts_N: Sequence[int]) -> Tensor:
    """`(N, H)` means of the values of each note, of which there are `counts_N`."""
    sums_NH = values_XH.new_zeros(len(counts_N), values_XH.shape[1])
    sums_NH = sums_NH.index_add(0, note_X, values_XH)
    return sums_NH / values_XH.new_tensor(counts_N).unsqueeze(1)


def log_prior(kind: str, targets_NK: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """`(K,)` logits that predict the training prevalence of each label, one note added to each."""
    positives_K = targets_NK.sum(0) + 1.0
    others = positives_K.sum() if kind == "multiclass" else len(targets_NK) + 2.0 - positives_K
    prior_K: npt.NDArray[np.float32] = np.log(positives_K / others).astype(np.float32)
    return prior_K


class Head(nn.Module):
    """A linear layer from pooled hidden states to logits; it starts at the label prevalence."""

    def __init__(self, hidden_size: int, prior_K: npt.NDArray[np.float32], seed: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, len(prior_K))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.linear.weight.normal_(0.0, 0.02, generator=generator)
            self.linear.bias.copy_(torch.from_numpy(prior_K))

    def forward(self, features_NH: Tensor) -> Tensor:
        """`(N, H)` features to `(N, K)` logits."""
        logits: Tensor = self.linear(features_NH.to(self.linear.weight.dtype))
        return logits

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor]) -> "Head":
        """A head with saved weights."""
        classes, hidden_size = weights["linear.weight"].shape
        head = cls(hidden_size, np.zeros(classes, np.float32))
        head.load_state_dict(weights)
        return head
