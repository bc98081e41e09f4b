"""Batches to numbers: perplexity, pooled features and logits. Nothing here trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune.model.batch import PackedBatch
from notetune.model.stack import Stack
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import rows_in_order


@dataclass(frozen=True)
class Perplexity:
    """How well the next token is predicted on one set of documents.

    Attributes:
        perplexity: exp(total negative log-likelihood / target tokens).
        bits_per_byte: Total negative log-likelihood in bits per UTF-8 byte of text.
        targets: Target tokens.
    """

    perplexity: float
    bits_per_byte: float
    targets: int


@torch.inference_mode()
def perplexity(
    model: Stack, store: TokenStore, documents_D: Int64Array, tokens_per_row: int
) -> Perplexity:
    """Token-weighted perplexity of whole documents, without dropout."""
    model.eval_mode()
    nats, targets = 0.0, 0
    room = tokens_per_row, model.reserved_per_document
    for batch in rows_in_order(store, documents_D, *room, model.backbone.device):
        nats += model.summed_token_loss(batch).item()
        targets += batch.target_count
    text_bytes = int(store.text_bytes_D[documents_D].sum())
    return Perplexity(math.exp(nats / targets), nats / math.log(2) / text_bytes, targets)


@torch.inference_mode()
def outputs_per_document(
    model: Stack,
    forward: Callable[[PackedBatch], Tensor],
    store: TokenStore,
    documents_N: Int64Array,
    tokens_per_row: int,
) -> npt.NDArray[np.float32]:
    """`(N, ...)` float32: what `forward` gives for each document, in the order asked for.

    Args:
        model: What `forward` runs; its dropout is turned off.
        forward: A packed row to one output per document of the row.
        store: Where the documents are.
        documents_N: Document numbers, each once.
        tokens_per_row: Row budget; does not change the result beyond rounding.
    """
    model.eval_mode()
    outputs, numbers = [], []
    room = tokens_per_row, model.reserved_per_document
    for batch in rows_in_order(store, documents_N, *room, model.backbone.device):
        outputs.append(forward(batch).float().cpu().numpy())
        numbers.append(batch.documents_D)
    done = np.concatenate(numbers)
    place_N = np.argsort(done)[np.searchsorted(np.sort(done), documents_N)]
    return np.concatenate(outputs)[place_N]
