"""Pooling over a document, and the linear head on top."""

from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from notetune.model.batch import PackedBatch

Pooling = Literal["first", "last", "mean"]


def pool(hidden_TH: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """`(D, H)` float32: one vector per document, from one of its tokens or the mean of all."""
    hidden_TH = hidden_TH.float()
    match pooling:
        case "first":
            return hidden_TH[batch.first_D]
        case "last":
            return hidden_TH[batch.last_D]
        case "mean":
            sums_DH = hidden_TH.new_zeros(len(batch.lengths_D), hidden_TH.shape[1])
            sums_DH = sums_DH.index_add(0, batch.document_T, hidden_TH)
            return sums_DH / hidden_TH.new_tensor(batch.lengths_D).unsqueeze(1)
        case _:
            assert_never(pooling)


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
