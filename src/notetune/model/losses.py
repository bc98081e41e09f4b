"""Summed losses; the caller divides by the step's target count, so any split of a step agrees."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TOKENS_PER_CHUNK = 128  # their logits stay in a CPU's cache and below malloc's limit for mmap


def next_token_losses(head: Callable[[Tensor], Tensor], hidden_TH: Tensor, ids_T: Tensor) -> Tensor:
    """`(T,)` float32 negative log-likelihood in nats of each next token; without a gradient."""
    parts = [
        F.cross_entropy(head(hidden_TH[span]).float(), ids_T[span], reduction="none")
        for span in _chunks(len(ids_T))
    ]
    return torch.cat(parts) if parts else hidden_TH.new_zeros(0, dtype=torch.float32)


def next_token_loss(head: nn.Module, hidden_TH: Tensor, ids_T: Tensor) -> Tensor:
    """Negative log-likelihood in nats, summed over the next tokens.

    The `(T, V)` logits never exist at once: each chunk's gradient is taken while its logits are
    there, so nothing is computed twice.

    Args:
        head: Hidden states to logits.
        hidden_TH: `(T, H)` hidden states that predict.
        ids_T: `(T,)` tokens to predict.
    """
    if not torch.is_grad_enabled():
        return next_token_losses(head, hidden_TH, ids_T).sum()
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    loss: Tensor = _ChunkedLoss.apply(head, hidden_TH, ids_T, *weights)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradient together, chunk by chunk; `backward` only scales."""

    @staticmethod
    def forward(
        ctx: Any, head: nn.Module, hidden_TH: Tensor, ids_T: Tensor, *weights: Tensor
    ) -> Tensor:
        total = hidden_TH.new_zeros((), dtype=torch.float32)
        gradients = [torch.zeros_like(tensor) for tensor in (hidden_TH, *weights)]
        for span in _chunks(len(ids_T)):
            with torch.enable_grad():
                hidden = hidden_TH[span].detach().requires_grad_()
                loss = F.cross_entropy(head(hidden).float(), ids_T[span], reduction="sum")
            total += loss.detach()
            gradients[0][span], *others = torch.autograd.grad(loss, (hidden, *weights))
            for gradient, part in zip(gradients[1:], others, strict=True):
                gradient += part
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> Any:
        hidden_TH, *weights = (tensor * scale[0].to(tensor.dtype) for tensor in ctx.saved_tensors)
        return None, hidden_TH, None, *weights


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, length, _TOKENS_PER_CHUNK):
        yield slice(start, start + _TOKENS_PER_CHUNK)


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
