from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from notetune.errors import BackboneError
from notetune.model import attention
from notetune.model.attention import Additions, DocumentLayout, packed_attention, with_front

LENGTHS = (5, 5, 1, 9, 3)
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 8


class Layer(nn.Module):
    layer_idx = 1

    def __init__(self, is_causal=True):
        super().__init__()
        self.is_causal = is_causal


def inputs(device="cpu", dtype=torch.float64, prefix_lengths=()):
    torch.manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    query, key, value = (torch.randn(shape).to(device, dtype) for shape in shapes)
    layers = 3
    prefixes = tuple(
        torch.randn(2 * layers, KV_HEADS, length, HEAD_DIM).to(device, dtype)
        for length in prefix_lengths
    )
    documents = DocumentLayout(LENGTHS, Additions(prefixes=prefixes), torch.device(device))
    return query, key, value, documents


def attention_by_definition(query, key, value, documents, window=None, is_causal=True):
    """Each query on its own: softmax over the keys it may see."""
    outputs, start = [], 0
    prefixes = documents.additions.prefixes
    front = [torch.cat([p[2 + part] for p in prefixes], 1) for part in (0, 1)] if prefixes else None
    for length in documents.lengths_D:
        k, v = (t[0, :, start : start + length] for t in (key, value))
        if front:
            k, v = (torch.cat(pair, dim=1) for pair in zip(front, (k, v), strict=True))
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, dim=0) for part in (k, v))
        before = k.shape[1] - length
        for place in range(length):
            width, end = window or k.shape[1], before + place + 1
            seen = slice(max(0, end - width), end if is_causal else end + width - 1)
            scores = torch.einsum("hd,hkd->hk", query[0, :, start + place], k[:, seen])
            weights = (scores * HEAD_DIM**-0.5).softmax(-1)
            outputs.append(torch.einsum("hk,hkd->hd", weights, v[:, seen]))
        start += length
    return torch.stack(outputs)[None]


def attend(query, key, value, documents, window=None, is_causal=True):
    out, weights = packed_attention(
        Layer(is_causal),
        query,
        key,
        value,
        None,
        scaling=HEAD_DIM**-0.5,
        documents=documents,
        sliding_window=window,
    )
    assert weights is None
    return out


def kernel_by_definition(
    q, k, v, borders, key_borders, longest, longest_key, *, scale, window_size
):
    """What torch's kernel for documents of many lengths promises, in plain torch on the CPU."""
    assert borders.dtype == key_borders.dtype == torch.int32
    lengths, key_lengths = borders.diff(), key_borders.diff()
    assert (lengths.max(), key_lengths.max()) == (longest, longest_key)
    outputs = []
    for a, b, c, d in zip(borders, borders[1:], key_borders, key_borders[1:], strict=False):
        distance = torch.arange(d - c)[None] - (torch.arange(b - a)[:, None] + (d - c) - (b - a))
        left, right = (size if size >= 0 else 10**6 for size in window_size)
        mask = (distance <= right) & (distance >= -left)
        parts = (q[a:b], k[c:d], v[c:d])
        out = F.scaled_dot_product_attention(
            *(part.transpose(0, 1) for part in parts), attn_mask=mask, scale=scale
        )
        outputs.append(out.transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("prefix_lengths", [(), (4,), (2, 1)])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("is_causal", [True, False])
def test_attention_is_that_of_the_definition(prefix_lengths, window, is_causal):
    row = inputs(prefix_lengths=prefix_lengths)
    expected = attention_by_definition(*row, window, is_causal)
    assert (attend(*row, window, is_causal) - expected).abs().max() < 1e-12
    assert expected.shape == (1, sum(LENGTHS), HEADS, HEAD_DIM)


@pytest.mark.parametrize("prefix_lengths", [(), (4,), (2, 1)])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_gpu_kernel_is_given_borders_and_keys_that_mean_the_same(
    monkeypatch, prefix_lengths, window, is_causal
):
    monkeypatch.setattr(attention, "varlen_attn", kernel_by_definition)
    monkeypatch.setattr(attention, "_has_kernel", lambda query, dropout: True)
    row = inputs(prefix_lengths=prefix_lengths)
    expected = attention_by_definition(*row, window, is_causal)
    assert (attend(*row, window, is_causal) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("in_one_kernel", [False, True])
@pytest.mark.parametrize("prefix_lengths", [(), (4,), (2, 1)])
@pytest.mark.parametrize("window", [None, 4])
def test_the_last_tokens_that_are_asked_for_get_what_they_get_among_all(
    monkeypatch, in_one_kernel, prefix_lengths, window
):
    monkeypatch.setattr(attention, "varlen_attn", kernel_by_definition)
    monkeypatch.setattr(attention, "_has_kernel", lambda query, dropout: in_one_kernel)
    query, key, value, documents = inputs(prefix_lengths=prefix_lengths)
    last_D = torch.tensor(LENGTHS).cumsum(0) - 1
    found = attend(query, key, value, replace(documents, asked_D=last_D), window)
    expected = attention_by_definition(query, key, value, documents, window)
    assert (found[:, last_D] - expected[:, last_D]).abs().max() < 1e-12
    others = torch.ones(sum(LENGTHS), dtype=torch.bool).index_fill(0, last_D, value=False)
    assert not found[:, others].any()


@pytest.mark.gpu
@pytest.mark.parametrize("prefix_lengths", [(), (4,)])
@pytest.mark.parametrize("window", [None, 4])
def test_the_gpu_kernel_gives_output_and_gradients_of_the_definition(prefix_lengths, window):
    row = inputs("cuda", torch.bfloat16, prefix_lengths)
    query, key, value, documents = row
    leaves = [t.detach().requires_grad_() for t in (query, key, value)]
    out = attend(*leaves, documents, window)
    out.float().square().sum().backward()
    exact = [t.detach().float().cpu().requires_grad_() for t in (query, key, value)]
    prefixes = tuple(p.cpu().to(torch.bfloat16).float() for p in documents.additions.prefixes)
    plain = DocumentLayout(LENGTHS, Additions(prefixes=prefixes), torch.device("cpu"))
    expected = attention_by_definition(*exact, plain, window)
    expected.square().sum().backward()
    assert (out.float().cpu() - expected).abs().max() < 2e-2
    for ours, theirs in zip(leaves, exact, strict=True):
        assert (ours.grad.float().cpu() - theirs.grad).abs().max() < 0.1


def test_shared_items_precede_every_document():
    assert with_front(0, (2, 1)).tolist() == [0, 1, 2]
    assert with_front(2, (3, 1)).tolist() == [0, 1, 2, 3, 4, 0, 1, 5]


def test_a_prefix_needs_attention_that_says_which_layer_it_is_of():
    class Nameless(nn.Module):
        is_causal = True

    *states, documents = inputs()
    packed_attention(Nameless(), *states, None, scaling=1.0, documents=documents)
    *states, documents = inputs(prefix_lengths=(2,))
    with pytest.raises(BackboneError, match="does not say which layer it is of"):
        packed_attention(Nameless(), *states, None, scaling=1.0, documents=documents)
