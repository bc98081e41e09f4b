"""Attention inside each packed document, registered with transformers under one name."""

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from notetune.errors import BackboneError

PACKED_ATTENTION = "notetune_packed"
_OTHER_SCORES = ("softcap", "s_aux", "position_bias", "head_mask")


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    document_lengths: tuple[int, ...] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention that never crosses a document border.

    Args:
        module: The attention layer; its `is_causal` decides the direction.
        query: `(1, heads, T, head_dim)`.
        key: `(1, kv_heads, T, head_dim)`; fewer heads than the query means grouped-query attention.
        value: `(1, kv_heads, T, head_dim)`.
        attention_mask: Always None here: the lengths say everything.
        scaling: Factor on the scores.
        dropout: Probability of dropping an attention weight.
        sliding_window: How many tokens, itself included, a token sees to either side (to its
            left only if causal); None is all.
        document_lengths: Tokens per document; they sum to T.
        **options: Whatever else the attention layer says; what changes scores is refused.

    Returns:
        `(1, T, heads, head_dim)` and None (no attention weights).

    Raises:
        BackboneError: If the backbone is called without document lengths, as a padded batch, or
            its scores are not plain scaled products.
    """
    if unknown := [name for name in _OTHER_SCORES if options.get(name) is not None]:
        raise BackboneError(
            f"this backbone's attention uses {unknown[0]}, which packed rows do not have; choose a "
            "decoder without it."
        )
    if document_lengths is None or attention_mask is not None or query.shape[0] != 1:
        raise BackboneError(
            "this backbone was loaded for packed rows; call it with one row and document_lengths, "
            "or load the folder with transformers for padded batches."
        )
    start, outputs = 0, []
    for length, run in groupby(document_lengths):
        count = len(list(run))  # documents of one length that stand together run as one call
        span = slice(start, start + count * length)
        q, k, v = (_split(tensor, span, count, length) for tensor in (query, key, value))
        is_causal = getattr(module, "is_causal", True) and length > 1
        window = None
        if sliding_window is not None and length > sliding_window:
            window = _window(length, sliding_window, q.device, is_causal=is_causal)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=window,
            dropout_p=dropout,
            is_causal=is_causal and window is None,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
        start = span.stop
    return torch.cat(outputs).unsqueeze(0), None


def _window(length: int, width: int, device: torch.device, *, is_causal: bool) -> Tensor:
    """`(length, length)`: whether a token, by row, sees another, by column."""
    sees = torch.ones(length, length, dtype=torch.bool, device=device).triu(1 - width)
    return sees.tril(0 if is_causal else width - 1)


def _split(tensor: Tensor, span: slice, count: int, length: int) -> Tensor:
    heads, head_dim = tensor.shape[1], tensor.shape[3]
    return tensor[0, :, span].reshape(heads, count, length, head_dim).transpose(0, 1)


def _no_mask(*_: Any, **__: Any) -> None:
    """Documents are told apart by their lengths, so no `(T, T)` mask is ever built."""


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, _no_mask)
