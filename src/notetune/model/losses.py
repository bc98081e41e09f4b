"""Summed losses; the caller divides by the step's target count, so any split of a step agrees."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TOKENS_PER_CHUNK = 128  # their logits stay in a CPU's cache and below malloc's limit for mmap


def exact(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they have that: no loss is summed in less."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def next_token_losses(head: Callable[[Tensor], Tensor], hidden_TH: Tensor, ids_T: Tensor) -> Tensor:
    """`(T,)` negative log-likelihood in nats of each next token; without a gradient."""
    parts = [
        F.cross_entropy(exact(head(hidden_TH[span])), ids_T[span], reduction="none")
        for span in _chunks(len(ids_T))
    ]
    return torch.cat(parts) if parts else exact(hidden_TH.new_zeros(0))


def next_token_loss(head: nn.Module, hidden_TH: Tensor, ids_T: Tensor) -> Tensor:
    """Negative log-likelihood in nats, summed over the next tokens.

    The `(T, V)` logits never exist at once: each chunk's gradient is taken while its logits are
    there, so nothing is computed twice.
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
        total = exact(hidden_TH.new_zeros(()))
        gradients = [torch.zeros_like(tensor) for tensor in (hidden_TH, *weights)]
        for span in _chunks(len(ids_T)):
            with torch.enable_grad():
                hidden = hidden_TH[span].detach().requires_grad_()
                loss = F.cross_entropy(exact(head(hidden)), ids_T[span], reduction="sum")
            total += loss.detach()
            gradients[0][span], *others = torch.autograd.grad(loss, (hidden, *weights))
            for gradient, part in zip(gradients[1:], others, strict=True):
                gradient += part
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> Any:
        saved = ctx.saved_tensors  # the scale, one by the targets of a step, may be no bfloat16
        hidden_TH, *weights = ((tensor.float() * scale[0]).to(tensor.dtype) for tensor in saved)
        return None, hidden_TH, None, *weights


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, length, _TOKENS_PER_CHUNK):
        yield slice(start, start + _TOKENS_PER_CHUNK)


def balanced_weights(kind: str, targets_NK: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """`(2, K)` weights of zeros and of ones with which both values of each label count the same.

    For `multiclass` all classes count the same, and the weights of zeros are not used. Over the
    notes that they were taken from, the weights average to 1, or to a half for a label with one
    value; a value that none of them has weighs nothing.
    """
    ones_K = targets_NK.sum(0)
    counts_2K = np.stack([len(targets_NK) - ones_K, ones_K]).astype(np.float32)
    values = np.count_nonzero(ones_K) if kind == "multiclass" else 2
    weights_2K: npt.NDArray[np.float32] = np.zeros_like(counts_2K)
    np.divide(np.float32(len(targets_NK) / values), counts_2K, out=weights_2K, where=counts_2K > 0)
    return weights_2K


def outcome_loss(
    kind: str, logits_NK: Tensor, targets_NK: Tensor, weights_2K: Tensor | None = None
) -> Tensor:
    """Cross-entropy in nats, summed over notes and averaged over labels.

    Logits and targets are `(N, K)`; targets are zeros and ones, one-hot for `multiclass`. Without
    `(2, K)` weights as of `balanced_weights` all count the same.
    """
    if kind == "multiclass":
        of_class_K = None if weights_2K is None else weights_2K[1]
        classes_N = targets_NK.argmax(1)
        return F.cross_entropy(logits_NK.float(), classes_N, weight=of_class_K, reduction="sum")
    of_value_NK = None
    if weights_2K is not None:
        of_value_NK = torch.where(targets_NK.bool(), weights_2K[1], weights_2K[0])
    loss_NK = F.binary_cross_entropy_with_logits(
        logits_NK.float(), targets_NK.float(), weight=of_value_NK, reduction="none"
    )
    return loss_NK.mean(1).sum()


def probabilities(kind: str, logits_NK: Tensor) -> Tensor:
    """`(N, K)` in float64: softmax over classes for `multiclass`, else a sigmoid per label.

    In float32 all logits above 17 would have the score 1.
    """
    exact_NK = logits_NK.double()
    return exact_NK.softmax(1) if kind == "multiclass" else exact_NK.sigmoid()
