"""Batches to numbers: perplexity, pooled features and logits. Nothing here trains."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune.model.batch import PackedBatch, packed_batch
from notetune.model.stack import Stack
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import rows_in_order
from notetune.train.schedule import Average

_NOTES_PER_BATCH = 10  # of the published evaluation


@dataclass(frozen=True)
class Perplexity:
    """How well the next token is predicted on one set of documents."""

    perplexity: float
    """exp of the average negative log-likelihood per target token."""
    bits_per_byte: float
    """Total negative log-likelihood in bits per UTF-8 byte of text. Where nothing opens a document
    its first token is given, yet its bytes count."""
    targets: int
    """Target tokens."""


def perplexity(
    store: TokenStore,
    documents_D: Int64Array,
    nats_D: npt.NDArray[np.float64],
    average: Average = "token",
) -> Perplexity:
    """Perplexity of documents, each given once, from their `document_losses`.

    Its `average` is over all tokens; or `batch-mean`, the unweighted mean over batches of ten
    documents of the mean over their tokens, which gives short batches more weight and those without
    a target none.

    Source: `batch-mean` is what the code of Gema et al. (arXiv 2307.03042) reports.
    """
    targets_D = store.lengths_D[documents_D] - 1
    if average == "token":
        mean = nats_D.sum() / targets_D.sum()
    else:
        first = np.arange(0, len(documents_D), _NOTES_PER_BATCH)
        targets_B = np.add.reduceat(targets_D, first)
        means_B = np.add.reduceat(nats_D, first)[targets_B > 0] / targets_B[targets_B > 0]
        mean = means_B.mean()
    bits = nats_D.sum() / math.log(2)
    text_bytes = int(store.text_bytes_D[documents_D].sum())
    return Perplexity(math.exp(mean), float(bits / text_bytes), int(targets_D.sum()))


def document_losses(
    model: Stack, store: TokenStore, documents_D: Int64Array, tokens_per_row: int
) -> npt.NDArray[np.float64]:
    """`(D,)` negative log-likelihood of each document in nats, summed over its target tokens.

    Without dropout; the row budget does not change it beyond rounding.
    """

    def forward(batch: PackedBatch) -> Tensor:
        losses = model.token_losses(batch)
        of_document = batch.document_T[batch.context_T]
        return losses.new_zeros(len(batch.lengths_D)).index_add(0, of_document, losses)

    return outputs_per_note(model, forward, store, documents_D, tokens_per_row).astype(np.float64)


@torch.inference_mode()
def perplexity_behind(
    model: Stack, opener_id: int | None, documents: Sequence[Int64Array]
) -> float:
    """Perplexity of documents behind an opener or nothing, over the same tokens in either case.

    Documents have at least two tokens each. The first of them is never scored.
    """
    front = np.array([] if opener_id is None else [opener_id], np.int64)
    losses = []
    for document in documents:
        batch = packed_batch([np.concatenate([front, document])], [0], model.backbone.device)
        losses.append(model.token_losses(batch)[len(front) :].double().cpu().numpy())
    return math.exp(np.concatenate(losses).mean())


@torch.inference_mode()
def outputs_per_note(
    model: Stack,
    forward: Callable[[PackedBatch], Tensor],
    store: TokenStore,
    documents_N: Int64Array,
    tokens_per_row: int,
    max_pieces: int = 1,
) -> npt.NDArray[np.float32]:
    """`(N, ...)` float32: what `forward` gives for each note, in the order asked for.

    From a packed row `forward` makes one output per note, with the dropout of its model off.
    `documents_N` are the first documents of notes, which may come again; `tokens_per_row` does not
    change the result beyond rounding.
    """
    model.eval_mode()
    outputs, numbers = [], []
    room = tokens_per_row, model.reserved_per_document
    once_N = documents_N[np.sort(np.unique(documents_N, return_index=True)[1])]
    for batch in rows_in_order(store, once_N, *room, model.backbone.device, max_pieces):
        outputs.append(forward(batch).float().cpu().numpy())
        numbers.append(batch.first_documents_N)
    done = np.concatenate(numbers)
    place_N = np.argsort(done)[np.searchsorted(np.sort(done), documents_N)]
    return np.concatenate(outputs)[place_N]
