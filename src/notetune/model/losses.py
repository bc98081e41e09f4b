"""Summed losses; the caller divides by the step's target count, so any split of a step agrees."""

import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    """Negative log-likelihood in nats, summed over the target tokens."""
    return F.cross_entropy(logits_TV.float(), targets_T, reduction="sum")


def outcome_loss(kind: str, logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over notes and averaged over labels.

    Args:
        kind: `binary`, `multiclass` or `multilabel`.
        logits_NK: `(N, K)` logits.
        targets_NK: `(N, K)` zeros and ones; one-hot for `multiclass`.
    """
    if kind == "multiclass":
        return F.cross_entropy(logits_NK.float(), targets_NK.argmax(1), reduction="sum")
    loss_NK = F.binary_cross_entropy_with_logits(
        logits_NK.float(), targets_NK.float(), reduction="none"
    )
    return loss_NK.mean(1).sum()


def probabilities(kind: str, logits_NK: Tensor) -> Tensor:
    """`(N, K)`: softmax over classes for `multiclass`, otherwise a sigmoid per label."""
    return logits_NK.float().softmax(1) if kind == "multiclass" else logits_NK.float().sigmoid()
