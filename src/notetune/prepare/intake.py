"""How a backbone takes notes in: what opens a document, and how much of a note is read."""

import dataclasses
import functools
import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl

from notetune import infer
from notetune.errors import ConfigError
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.device import torch_device
from notetune.model.stack import stack
from notetune.prepare.prepared import AS_THE_RECIPE_SAYS, Intake
from notetune.prepare.settings import LEAST_TOKENS, Preparation
from notetune.prepare.shards import Encoding, Shard, encode_shards, texts_of
from notetune.tokens.edges import Declared, Edges, read_declared
from notetune.tokens.encode import Encoder
from notetune.tokens.store import WHOLE_SHARE, TokenStore

_SCORED_NOTES, _SCORED_TOKENS = 30, 256
_COUNTED_NOTES = 2000
_ROUNDED_TO = 64
_ENDLESS = 1 << 30
_AS_THE_TASKS = "as the notes of the tasks"


def take_in(
    spec: Preparation,
    shards: list[Shard],
    workers: int,
    like: TokenStore | None,
    notes: pl.DataFrame,
    labelled: pl.Series,
) -> Intake:
    """Encode shards: like other documents, or as is best for the notes of training patients.

    `notes` are all that are in the shards, with `split`, and `labelled` is Boolean over them.
    """
    if like is not None:
        intake = Intake(like.edges, like.max_tokens, _AS_THE_TASKS, _AS_THE_TASKS)
    else:
        intake = _chosen(spec, shards, notes, labelled)
    made = (intake.edges, intake.max_tokens, spec.config.long_notes)
    encode_shards(shards, Encoding(resolve_backbone(spec.backbone), *made), workers)
    return intake


def _chosen(
    spec: Preparation, shards: list[Shard], notes: pl.DataFrame, labelled: pl.Series
) -> Intake:
    """What the recipe says, and the best for the notes where it leaves that to us."""

    def texts(is_wanted: pl.Series, most: int) -> list[str]:
        chosen = sampled(notes["note_id"].filter(is_wanted), most)
        return list(texts_of(shards, notes["note_id"].is_in(chosen)))

    is_training = notes["split"].eq_missing("train")
    declared = read_declared(resolve_backbone(spec.backbone))
    edges, opener_why, perplexities = _opener(spec, declared, functools.partial(texts, is_training))
    edges = dataclasses.replace(edges, join=spec.config.join)
    given = spec.config.max_tokens
    if given != "auto":
        return Intake(edges, given, opener_why, perplexities=perplexities)
    encoder = Encoder(declared.tokenizer, edges, declared.vocabulary_size)
    positions = outline_backbone(spec.backbone).max_positions - spec.positions_taken
    counted = texts(is_training & labelled if labelled.any() else is_training, _COUNTED_NOTES)
    longest, why = longest_document(encoder, counted, positions, spec.room)
    return Intake(edges, longest, opener_why, why, perplexities)


def _opener(
    spec: Preparation, declared: Declared, training_texts: Callable[[int], list[str]]
) -> tuple[Edges, str, dict[str, float]]:
    """The opener, why it is that one, and the perplexities behind each that was tried."""
    given = spec.config.opener
    if given != "auto":
        return declared.edges(given), AS_THE_RECIPE_SAYS, {}
    if declared.own_edges is not None:
        return declared.own_edges, "the tokenizer puts it in front of every text", {}
    backbone = load_backbone(spec.backbone, spec.dtype, torch_device(spec.device))
    most = min(_SCORED_TOKENS, backbone.max_positions - 1)
    texts = training_texts(_SCORED_NOTES)
    tokens = (declared.tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
    bodies = [np.array(ids[:most], np.int64) for ids in tokens if len(ids) > 1]
    candidates = declared.candidates
    if not bodies:
        return candidates[-1], "no training note has two tokens to choose by", {}
    model = stack(backbone)
    found = [infer.perplexity_behind(model, edges.opener_id, bodies) for edges in candidates]
    best = candidates[int(np.argmin(found))]
    names = [edges.opener for edges in candidates]
    why = f"lowest perplexity of {len(bodies)} training notes of at most {most} tokens"
    return best, why, dict(zip(names, found, strict=True))


def longest_document(
    encoder: Encoder, texts: Sequence[str], positions: int, most: int
) -> tuple[int, str]:
    """Tokens that hold 95 % of some notes whole, or as many as there can be; and why so many.

    The model was built for so many `positions`, and a row has room for `most` tokens.

    Raises:
        ConfigError: If there are too few positions for any document.
    """
    if positions < LEAST_TOKENS:
        raise ConfigError(
            f"virtual tokens leave {max(0, positions)} positions of the backbone to a document, "
            f"which has {LEAST_TOKENS} or more; lower virtual_tokens of the adapters."
        )
    if not texts:
        return min(positions, most), "there is no training note to go by"
    lengths_N = encoder.documents(texts, _ENDLESS).table_D["length"]
    wanted = int(np.quantile(lengths_N, WHOLE_SHARE, method="inverted_cdf"))
    why = f"{WHOLE_SHARE:.0%} of {len(texts):,} training notes have at most {wanted:,} tokens"
    wanted = max(LEAST_TOKENS, -(-wanted // _ROUNDED_TO) * _ROUNDED_TO)
    if wanted <= min(positions, most):
        return wanted, why
    if positions < most:
        return positions, f"{why}, but the model has no more positions"
    return most, f"{why}, but a row has no more room"


def sampled(note_ids: Iterable[str], most: int = _COUNTED_NOTES) -> list[str]:
    """At most so many notes; which ones, their ids decide."""

    def key(note_id: str) -> bytes:
        return hashlib.blake2b(f"intake\0{note_id}".encode(), digest_size=16).digest()

    return heapq.nsmallest(most, note_ids, key=key)
