"""A small BERT that learns notes by masked language modelling, from nothing."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging as transformers_logging

from notetune.config import Config
from notetune.model.attention import PACKED_ATTENTION
from notetune.model.backbone import Backbone
from notetune.model.batch import PackedBatch
from notetune.model.losses import next_token_loss

_MASK = "[MASK]"
_MASKED_SHARE, _RANDOM_SHARE = 0.8, 0.1


class EncoderShape(Config):
    """Sizes of a BERT; its feed-forward layers are four times as wide as its hidden states."""

    hidden: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4


@dataclass(frozen=True)
class MaskedBatch:
    """A packed row with hidden tokens.

    Attributes:
        inputs: The row as the encoder sees it.
        ids_T: `(T,)` the tokens as they were.
        is_target_T: `(T,)` which of them are to be predicted.
    """

    inputs: PackedBatch
    ids_T: Tensor
    is_target_T: npt.NDArray[np.bool_]

    @property
    def target_count(self) -> int:
        """Tokens to predict."""
        return int(self.is_target_T.sum())

    @property
    def documents_D(self) -> npt.NDArray[np.int64]:
        """`(D,)` where each document stands in its store."""
        return self.inputs.documents_D

    def halves(self) -> "tuple[MaskedBatch, ...]":
        """Its first and its second documents apart; itself if it has one document."""
        start, parts = 0, []
        for inputs in self.inputs.halves():
            tokens = slice(start, start := start + len(inputs.ids_T))
            parts.append(MaskedBatch(inputs, self.ids_T[tokens], self.is_target_T[tokens]))
        return tuple(parts)


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden, and how.

    Attributes:
        share: Of the tokens that are predicted.
        mask_id: What stands for a hidden token.
        special_ids: Never predicted.
        vocabulary_size: Random tokens are below it.

    Source:
        Devlin et al. 2019 (arXiv 1810.04805): of the tokens to predict, 80 % are hidden, 10 % are
        replaced by a random token and 10 % stay.
    """

    share: float
    mask_id: int
    special_ids: tuple[int, ...]
    vocabulary_size: int

    def steps(
        self, rows_of_steps: Iterable[Sequence[PackedBatch]], seed: int, first_step: int = 0
    ) -> Iterator[list[MaskedBatch]]:
        """Hide tokens of every row; which ones is decided by the seed and the step's number."""
        for number, rows in enumerate(rows_of_steps, first_step):
            rng = np.random.default_rng((seed, number, 2))
            yield [self.apply(row, rng) for row in rows]

    def apply(self, row: PackedBatch, rng: np.random.Generator) -> MaskedBatch:
        """Hide tokens of a row: at least one."""
        ids_T = row.ids_T.cpu().numpy()
        candidates = np.flatnonzero(~np.isin(ids_T, self.special_ids))
        is_target_T = np.zeros(len(ids_T), np.bool_)
        is_target_T[candidates] = rng.random(len(candidates)) < self.share
        is_target_T[rng.choice(candidates)] = True
        fate_T = rng.random(len(ids_T))
        random_T = rng.integers(0, self.vocabulary_size, len(ids_T))
        is_random_T = is_target_T & (fate_T >= 1 - _RANDOM_SHARE)
        hidden_T = np.where(is_target_T & (fate_T < _MASKED_SHARE), self.mask_id, ids_T)
        seen_T = torch.from_numpy(np.where(is_random_T, random_T, hidden_T))
        inputs = replace(row, ids_T=seen_T.to(row.ids_T.device))
        return MaskedBatch(inputs, row.ids_T, is_target_T)


@dataclass(frozen=True)
class MaskedEncoder:
    """An encoder with the head that predicts its hidden tokens; all of it trains.

    Attributes:
        backbone: The encoder.
        model: Encoder and head together.
        tokenizer: That of the notes, with a mask token.
        masking: How it learns.
    """

    backbone: Backbone
    model: nn.Module
    tokenizer: Tokenizer
    masking: Masking

    def summed_loss(self, batch: MaskedBatch) -> Tensor:
        """Negative log-likelihood in nats, summed over the tokens to predict."""
        targets = torch.from_numpy(np.flatnonzero(batch.is_target_T)).to(batch.ids_T.device)
        hidden_TH = self.backbone.hidden_states(batch.inputs)
        head: Any = self.model.cls
        return next_token_loss(head, hidden_TH[targets], batch.ids_T[targets])

    def save(self, folder: Path) -> None:
        """Write an encoder folder in Hugging Face format."""
        transformers_logging.disable_progress_bar()
        model: Any = self.model
        model.save_pretrained(folder)
        # Notes keep what stands round them in the tokens they were encoded with.
        spec = {**json.loads(self.tokenizer.to_str()), "post_processor": None}
        (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")


def new_masked_encoder(
    shape: EncoderShape,
    tokenizer: Tokenizer,
    special_ids: tuple[int | None, int],
    vocabulary_size: int,
    *,
    max_tokens: int,
    share: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> MaskedEncoder:
    """A BERT with random weights.

    Args:
        shape: Its sizes.
        tokenizer: Of the notes; it gets a mask token if it has none.
        special_ids: What begins, if anything does, and what ends a note.
        vocabulary_size: Ids of the notes are below it.
        max_tokens: Longest document.
        share: Share of the tokens to predict.
        seed: Decides the weights.
        device: Where to put it.
    """
    tokenizer.add_special_tokens([_MASK])
    mask_id = int(tokenizer.token_to_id(_MASK) or 0)
    config = BertConfig(
        vocab_size=max(vocabulary_size, mask_id + 1),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=max_tokens,
        type_vocab_size=1,
        attention_probs_dropout_prob=0.0,  # with it a CPU has no fast attention
        pad_token_id=None,
        bos_token_id=special_ids[0],
        eos_token_id=special_ids[1],
        attn_implementation=PACKED_ATTENTION,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(config).to(device)
    backbone = Backbone(
        model=model.bert, name="new", fingerprint="new", max_positions=max_tokens, is_encoder=True
    )
    special = tuple(number for number in special_ids if number is not None)
    masking = Masking(share, mask_id, special, vocabulary_size)
    return MaskedEncoder(backbone, model, tokenizer, masking)
