"""Attention inside each packed document, registered with transformers under one name.

Shapes beyond the legend of `batch`: heads and kv_heads of the layer, S slots of virtual tokens, P
virtual keys of a prefix, A virtual tokens of an adaptation prompt, L layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from notetune.errors import BackboneError

PACKED_ATTENTION = "notetune_packed"
_KERNEL_TYPES = (torch.bfloat16, torch.float16)
_PACKED_ALONE = (
    "this backbone was loaded for packed rows; call it with one row and its documents, or load "
    "the folder with transformers for padded batches."
)
_OTHER_SCORES = ("softcap", "s_aux", "position_bias", "head_mask")


@dataclass(frozen=True)
class GatedPrompt:
    """An adaptation prompt of one layer, numbered from 0."""

    layer: int
    prompt: nn.Parameter
    """`(1, A, H)` virtual tokens."""
    gate: nn.Parameter
    """`(1,)` factor on what is attended to."""


@dataclass(frozen=True)
class Additions:
    """What adapters add to a forward pass, the same for every document."""

    slots: tuple[Tensor, ...] = ()
    """Each `(S, H)`: embeddings that stand in front of the text."""
    prefixes: tuple[Tensor, ...] = ()
    """Each `(2 L, kv_heads, P, head_dim)`: layer after layer its keys and its values."""
    gated: tuple[GatedPrompt, ...] = ()

    def __add__(self, other: "Additions") -> "Additions":
        """Both; those of `other` stand nearer to the text."""
        return Additions(
            self.slots + other.slots, self.prefixes + other.prefixes, self.gated + other.gated
        )

    @property
    def slot_count(self) -> int:
        """Slots in front of each document."""
        return sum(len(slots) for slots in self.slots)

    @property
    def prefix_length(self) -> int:
        """Virtual keys in front of each document."""
        return sum(prefix.shape[2] for prefix in self.prefixes)


@dataclass(frozen=True)
class DocumentLayout:
    """What each layer must know of a row, and of what adapters add to its attention."""

    lengths_D: tuple[int, ...]
    """Tokens per document, slots included; they sum to T."""
    additions: Additions
    device: torch.device
    asked_D: Tensor | None = None
    """`(D,)` indices of one token per document whose output alone is used, and which sees its whole
    document; None where all are used."""
    attended: list[tuple[bool, int | None]] = field(default_factory=list)
    """Of each call so far whether it was causal, and its window."""

    @cached_property
    def borders(self) -> Tensor:
        """`(D + 1,)` int32: where documents begin and end."""
        return _borders(self.lengths_D, self.device)

    @cached_property
    def key_borders(self) -> Tensor:
        """The same with the keys of the prefix in front of each document."""
        extra = self.additions.prefix_length
        return _borders([length + extra for length in self.lengths_D], self.device)

    @cached_property
    def key_source(self) -> Tensor:
        """See `with_front`, for the keys of the prefix."""
        return with_front(self.additions.prefix_length, self.lengths_D).to(self.device)

    def prefix(self, layer: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Keys and values `(kv_heads, P, head_dim)` in front of each document, in one layer."""
        if not (prefixes := self.additions.prefixes):
            return None
        keys = torch.cat([prefix[2 * layer] for prefix in prefixes], dim=1)
        values = torch.cat([prefix[2 * layer + 1] for prefix in prefixes], dim=1)
        return keys.to(dtype), values.to(dtype)


def with_front(front: int, lengths_D: tuple[int, ...]) -> Tensor:
    """`(D * front + T,)`: the source of each item when `front` shared items precede each document.

    It counts the shared items once and then the T items of all documents.

    Example:
        >>> with_front(2, (3, 1)).tolist()
        [0, 1, 2, 3, 4, 0, 1, 5]
    """
    starts = accumulate(lengths_D, initial=front)
    parts = [
        part
        for start, length in zip(starts, lengths_D, strict=False)
        for part in (torch.arange(front), torch.arange(start, start + length))
    ]
    return torch.cat(parts)


def _refuse_other_scores(options: Mapping[str, Any]) -> None:
    if unknown := [name for name in _OTHER_SCORES if options.get(name) is not None]:
        raise BackboneError(
            f"this backbone's attention uses {unknown[0]}, which packed rows do not have; choose a "
            "decoder without it."
        )


def _refuse_misfit(prefix: tuple[Tensor, Tensor] | None, own: tuple[Tensor, Tensor]) -> None:
    for given, found in zip(prefix or (), own, strict=False):
        wanted, shape = (given.shape[0], given.shape[2]), (found.shape[1], found.shape[3])
        if wanted != shape:
            raise BackboneError(
                f"a prefix of {wanted[0]} heads, {wanted[1]} wide, does not fit this backbone's "
                f"attention, which has {shape[0]} of {shape[1]}; take another adapter method."
            )


def _layer_of(module: nn.Module, documents: DocumentLayout) -> int:
    layer: int | None = getattr(module, "layer_idx", None)
    if layer is None and documents.additions.prefixes:
        raise BackboneError(
            "this backbone's attention does not say which layer it is of, so a prefix would stand "
            "in its first one alone; take another adapter method."
        )
    return layer or 0


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    documents: DocumentLayout | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention that never crosses a document border; its arguments are those of transformers.

    The query is `(1, heads, T, head_dim)`; key and value are `(1, kv_heads, T, head_dim)`, where
    fewer heads mean grouped-query attention. The lengths of documents stand in place of a mask. A
    token sees `sliding_window` tokens, itself included, to either side (to its left only if the
    module is causal); None is all.

    Returns:
        `(1, T, heads, head_dim)` and None (no attention weights).

    Raises:
        BackboneError: If the backbone is called without documents, as a padded batch, or its
            scores are not plain scaled products.
    """
    if documents is None or attention_mask is not None or query.shape[0] != 1:
        raise BackboneError(_PACKED_ALONE)
    _refuse_other_scores(options)
    layer = _layer_of(module, documents)
    asked_D, is_causal = documents.asked_D, bool(getattr(module, "is_causal", True))
    documents.attended.append((is_causal, sliding_window))
    if asked_D is not None:
        query = query.index_select(2, asked_D)
    prefix = documents.prefix(layer, key.dtype)
    _refuse_misfit(prefix, (key, value))
    out = _attend(
        (query, key, value),
        documents,
        prefix,
        is_causal=is_causal,
        window=sliding_window,
        dropout=dropout,
        scale=scaling,
    )
    for part in documents.additions.gated:
        if part.layer == layer:
            out = out + _attend_to_prompt(module, query, part, scaling)
    if asked_D is not None:
        out = out.new_zeros(1, key.shape[2], *out.shape[2:]).index_copy(1, asked_D, out)
    return out, None


def _attend(
    parts: tuple[Tensor, Tensor, Tensor],
    documents: DocumentLayout,
    prefix: tuple[Tensor, Tensor] | None,
    *,
    is_causal: bool,
    window: int | None,
    dropout: float,
    scale: float,
) -> Tensor:
    """`(1, Q, heads, head_dim)` for query, key and value, by the best way that takes them."""
    query, key, value = parts
    if _has_kernel(query, dropout):
        width = (window or 0) - 1  # the kernel's -1 is all
        reach = (width, 0 if is_causal else width)
        return _in_one_kernel(query, key, value, documents, prefix, scale=scale, reach=reach)
    outputs = [
        F.scaled_dot_product_attention(
            *part,
            **_direction(part[0], part[1], is_causal=is_causal, window=window),
            dropout_p=dropout,
            scale=scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for part in _by_length(query, key, value, documents, prefix)
    ]
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in outputs]).unsqueeze(0)


def _has_kernel(query: Tensor, dropout: float) -> bool:
    """Whether the GPU's kernel for documents of many lengths takes this call."""
    return query.is_cuda and query.dtype in _KERNEL_TYPES and not dropout


def _by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: DocumentLayout,
    prefix: tuple[Tensor, Tensor] | None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values of the documents; neighbours of one length stand in one batch.

    Each tensor is split once: the gradient of every slice would be as long as the row.
    """
    runs = [(length, len(list(run))) for length, run in groupby(documents.lengths_D)]
    tokens = [count * length for length, count in runs]
    asked = tokens if documents.asked_D is None else [count for _, count in runs]
    parts = [torch.split(*part, dim=2) for part in ((query, asked), (key, tokens), (value, tokens))]
    for (_, count), q, k, v in zip(runs, *parts, strict=True):
        # Each `(count, heads, length, head_dim)`.
        q, k, v = (part[0].unflatten(1, (count, -1)).transpose(0, 1) for part in (q, k, v))
        if prefix is not None:
            k, v = (
                torch.cat([front.expand(count, -1, -1, -1), own], dim=2)
                for front, own in zip(prefix, (k, v), strict=True)
            )
        yield q, k, v


def _direction(
    query: Tensor, key: Tensor, *, is_causal: bool, window: int | None
) -> dict[str, Any]:
    """How torch is told which keys a query sees; keys beyond the queries stand in front."""
    length, keys = query.shape[2], key.shape[2]
    front, width = keys - length, window or keys
    if width >= keys and (length == 1 or not (is_causal and front)):
        return {"is_causal": is_causal and length > 1}
    seen = torch.ones(length, keys, dtype=torch.bool, device=query.device)
    return {"attn_mask": seen.triu(front + 1 - width).tril(front + (not is_causal) * (width - 1))}


def _in_one_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: DocumentLayout,
    prefix: tuple[Tensor, Tensor] | None,
    *,
    scale: float,
    reach: tuple[int, int],
) -> Tensor:
    """All documents in one call of the GPU's kernel for documents of many lengths.

    Its last query stands at the last key, so keys of a prefix need no more than longer borders.
    """
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    longest, borders = max(documents.lengths_D), documents.borders
    key_borders, longest_key = borders, longest
    if documents.asked_D is not None:
        longest, borders = 1, torch.arange(len(borders), dtype=torch.int32, device=borders.device)
    if prefix is not None:
        k, v = (
            torch.cat([front.transpose(0, 1), own]).index_select(0, documents.key_source)
            for front, own in zip(prefix, (k, v), strict=True)
        )
        key_borders = documents.key_borders
        longest_key += documents.additions.prefix_length
    # torch 2.11 wants as many heads in the keys as in the query.
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    out: Tensor = varlen_attn(  # type: ignore[assignment]
        q, k, v, borders, key_borders, longest, longest_key, scale=scale, window_size=reach
    )
    return out.unsqueeze(0)


def _attend_to_prompt(module: Any, query: Tensor, part: GatedPrompt, scaling: float) -> Tensor:
    """`(1, T, heads, head_dim)`: what an adaptation prompt adds to each token.

    It is added before the layer's output projection, which is linear.
    """
    prompt = part.prompt.to(query.dtype)
    shape = (1, prompt.shape[1], -1, query.shape[3])
    key = module.k_proj(prompt).view(shape).transpose(1, 2)
    value = module.v_proj(prompt).view(shape).transpose(1, 2)
    out = F.scaled_dot_product_attention(
        query, key, value, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
    )
    return part.gate.to(query.dtype) * out.transpose(1, 2)


def _borders(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


# No mask function goes with it, so that transformers builds no mask and does not look into the
# positions for packed documents, which waits for the device. A compiler must not look into it: it
# would compile a layer again for every row.
_outside_compilers = torch.compiler.disable(packed_attention)  # type: ignore[no-untyped-call]
AttentionInterface.register(PACKED_ATTENTION, _outside_compilers)
