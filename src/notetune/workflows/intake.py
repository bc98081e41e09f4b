"""How a backbone takes notes in: what opens a document, and how much of a note is read."""

import functools
import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from notetune import infer
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.stack import stack
from notetune.tokens.edges import Declared, Edges, read_declared
from notetune.tokens.encode import Encoder
from notetune.tokens.store import WHOLE_SHARE, TokenStore
from notetune.workflows.prepare_shards import Encoding, Shard, encode_shards, texts_of
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import LEAST_TOKENS, Auto, TokensPerRow, row_of

_SCORED_NOTES, _SCORED_TOKENS = 30, 256
_COUNTED_NOTES = 2000
_ROUNDED_TO = 64
_ENDLESS = 1 << 30
_AS_THE_RECIPE_SAYS = "the recipe says so"
_AS_THE_TASKS = "as the notes of the tasks"


@dataclass(frozen=True)
class Intake:
    """How notes become documents, and why so.

    Attributes:
        edges: What opens a document and what ends a note.
        max_tokens: Longest document.
        opener_why: Why that opens it.
        max_tokens_why: Why it is that long.
        perplexities: Of the openers that were tried, by the name of the opener.
        whole_pieces: Pieces a note with which 95 % of the labelled training notes are read whole.
    """

    edges: Edges
    max_tokens: int
    opener_why: str = _AS_THE_RECIPE_SAYS
    max_tokens_why: str = _AS_THE_RECIPE_SAYS
    perplexities: dict[str, float] = field(default_factory=dict)
    whole_pieces: int = 1


def take_in(
    recipe: Recipe,
    shards: list[Shard],
    workers: int,
    like: TokenStore | None,
    notes: pl.DataFrame,
    labelled: pl.Series,
) -> Intake:
    """Encode shards: like other documents, or as is best for the notes of training patients.

    Args:
        recipe: What to do.
        shards: All notes.
        workers: Processes that encode.
        like: The documents to be like.
        notes: All notes with their `note_id` and `split`.
        labelled: Boolean, which of them have a label.
    """
    is_training = notes["split"].eq_missing("train")
    sample = functools.partial(_sampled_texts, shards, notes)
    if like is not None:
        intake = Intake(like.edges, like.max_tokens, _AS_THE_TASKS, _AS_THE_TASKS)
    else:
        is_counted = is_training & labelled if labelled.any() else is_training
        of_training, counted = (functools.partial(sample, w) for w in (is_training, is_counted))
        intake = choose(recipe, of_training, counted)
    made = (intake.edges, intake.max_tokens, recipe.prepare.long_notes)
    encode_shards(shards, Encoding(resolve_backbone(recipe.backbone), *made), workers)
    return intake


def choose(
    recipe: Recipe,
    training_texts: Callable[[int], list[str]],
    labelled_texts: Callable[[int], list[str]],
) -> Intake:
    """What the recipe says, and the best for the notes where it leaves that to us.

    Args:
        recipe: What to do.
        training_texts: The texts of at most so many training notes, the same at every call.
        labelled_texts: The same for those with a label.
    """
    declared = read_declared(resolve_backbone(recipe.backbone))
    edges, opener_why, perplexities = _opener(recipe, declared, training_texts)
    given = recipe.prepare.max_tokens
    if given != "auto":
        return Intake(edges, given, opener_why, perplexities=perplexities)
    encoder = Encoder(declared.tokenizer, edges, declared.vocabulary_size)
    positions = outline_backbone(recipe.backbone).max_positions - recipe.positions_taken
    texts = labelled_texts(_COUNTED_NOTES)
    longest, why = longest_document(encoder, texts, positions, recipe.most_tokens)
    return Intake(edges, longest, opener_why, why, perplexities)


def _opener(
    recipe: Recipe, declared: Declared, training_texts: Callable[[int], list[str]]
) -> tuple[Edges, str, dict[str, float]]:
    """The opener, why it is that one, and the perplexities behind each that was tried."""
    given = recipe.prepare.opener
    if given != "auto":
        return declared.edges(given), _AS_THE_RECIPE_SAYS, {}
    if declared.own_edges is not None:
        return declared.own_edges, "the tokenizer puts it in front of every text", {}
    dtype = "bfloat16" if recipe.dtype == "float8" else recipe.dtype
    backbone = load_backbone(recipe.backbone, dtype, recipe.torch_device)
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

    Args:
        encoder: How they are encoded.
        texts: The notes.
        positions: What the model was built for.
        most: What a row has room for.
    """
    if not texts:
        return max(LEAST_TOKENS, min(positions, most)), "there is no training note to go by"
    lengths_N = encoder.documents(texts, _ENDLESS).table_D["length"]
    wanted = int(np.quantile(lengths_N, WHOLE_SHARE, method="inverted_cdf"))
    why = f"{WHOLE_SHARE:.0%} of {len(texts):,} training notes have at most {wanted:,} tokens"
    wanted = max(LEAST_TOKENS, -(-wanted // _ROUNDED_TO) * _ROUNDED_TO)
    if wanted <= min(positions, most):
        return wanted, why
    if positions < most:
        return positions, f"{why}, but the model has no more positions"
    return most, f"{why}, but a row has no more room"


def read_pieces(
    given: int | Auto, wanted: int, row: TokensPerRow, max_tokens: int, virtual: int = 0
) -> int:
    """Pieces of a note that are read: those that the recipe says, or those wanted that fit a row.

    Args:
        given: By the recipe.
        wanted: To read 95 % of the training notes whole.
        row: Tokens of a row, by the recipe.
        max_tokens: Longest document.
        virtual: Virtual tokens in front of each.
    """
    if given != "auto":
        return given
    return max(1, min(wanted, row_of(row) // (max_tokens + virtual)))


def resolved(recipe: Recipe, intake: Intake, max_pieces: int) -> Recipe:
    """The recipe with what was chosen for its backbone in place of `auto`."""
    longest = intake.max_tokens
    prepare, config = recipe.prepare, recipe.downstream
    declared = read_declared(resolve_backbone(recipe.backbone))
    opener = declared.name_of(intake.edges) or prepare.opener
    return recipe.model_copy(
        update={
            "prepare": prepare.model_copy(update={"opener": opener, "max_tokens": longest}),
            "downstream": config.model_copy(update={"max_pieces": max_pieces}),
        }
    )


def assumed_longest(recipe: Recipe) -> int:
    """Longest document where no notes are here to tell: as long as there can be."""
    given = recipe.prepare.max_tokens
    if given != "auto":
        return given
    positions = outline_backbone(recipe.backbone).max_positions - recipe.positions_taken
    return max(LEAST_TOKENS, min(positions, recipe.most_tokens))


def without_scoring(recipe: Recipe) -> Recipe:
    """The recipe for a dry run: an opener that weights would choose is left out.

    That is at most one token a document less.
    """
    given = recipe.prepare.opener
    if given != "auto" or read_declared(resolve_backbone(recipe.backbone)).own_edges is not None:
        return recipe
    prepare = recipe.prepare.model_copy(update={"opener": "none"})
    return recipe.model_copy(update={"prepare": prepare})


def _sampled_texts(
    shards: Sequence[Shard], notes: pl.DataFrame, wanted: pl.Series, most: int
) -> list[str]:
    """The texts of at most so many of the wanted notes: which ones, their ids decide."""
    ids = notes["note_id"].filter(wanted)
    chosen = sampled(ids, most)
    return list(texts_of(shards, notes["note_id"].is_in(chosen)))


def sampled(note_ids: Iterable[str], most: int = _COUNTED_NOTES) -> list[str]:
    """At most so many notes; which ones, their ids decide."""
    return heapq.nsmallest(most, note_ids, key=_keyed)


def _keyed(note_id: str) -> bytes:
    return hashlib.blake2b(f"intake\0{note_id}".encode(), digest_size=16).digest()
