"""Pooling over a note, and the linear head on top."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from notetune.model.batch import PackedBatch
from notetune.model.layers import Pooling


def pool(hidden_TH: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """`(N, H)` float32: one vector per note.

    It is the mean of all its tokens, or of the first or last token of each of its pieces.
    """
    hidden_TH, note_D = hidden_TH.float(), batch.note_D
    if pooling == "mean":
        firsts_N = np.cumsum((0, *batch.pieces_N[:-1]))
        tokens_N = np.add.reduceat(batch.lengths_D, firsts_N).tolist()
        return _means(hidden_TH, note_D[batch.document_T], tokens_N)
    tokens_D = batch.first_D if pooling == "first" else batch.last_D
    return _means(hidden_TH[tokens_D], note_D, batch.pieces_N)


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
    """A linear layer from features to logits, which may standardise them while it trains."""

    mean_H: Tensor
    scale_H: Tensor

    def __init__(
        self,
        weight_KH: Tensor,
        bias_K: Tensor,
        mean_H: Tensor | None = None,
        scale_H: Tensor | None = None,
    ) -> None:
        """A head that gives the logits of the given weights, which are for features as they come.

        With the means and standard deviations of the training notes, it standardises features
        before the linear layer, so that one learning rate suits them all.
        """
        super().__init__()
        classes, width = weight_KH.shape
        mean_H = weight_KH.new_zeros(width) if mean_H is None else mean_H
        scale_H = weight_KH.new_ones(width) if scale_H is None else scale_H
        self.linear = nn.Linear(width, classes, device=weight_KH.device)
        self.register_buffer("mean_H", mean_H.float(), persistent=False)
        self.register_buffer("scale_H", scale_H.float(), persistent=False)
        with torch.no_grad():
            self.linear.weight.copy_(weight_KH.double() * scale_H)
            self.linear.bias.copy_(bias_K.double() + weight_KH.double() @ mean_H.double())

    def forward(self, features_NH: Tensor) -> Tensor:
        """`(N, H)` features to `(N, K)` logits."""
        logits: Tensor = self.linear((features_NH.float() - self.mean_H) / self.scale_H)
        return logits

    @torch.no_grad()
    def folded(self) -> "Head":
        """The same logits from a plain linear layer, up to rounding."""
        weight_KH = self.linear.weight.double() / self.scale_H
        return Head(weight_KH, self.linear.bias - weight_KH @ self.mean_H.double())
