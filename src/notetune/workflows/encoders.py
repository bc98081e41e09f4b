"""Encoders beside the backbone, and their tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune import runs
from notetune.errors import ConfigError
from notetune.model.backbone import Backbone, load_backbone, outline_backbone
from notetune.model.backbone_folder import Dtype, backbone_fingerprint, resolve_backbone
from notetune.tokens.encode import Documents, Encoder, LongNotes, load_encoder
from notetune.tokens.store import FORMAT, TokenStore, join_documents, open_store, whole_pieces
from notetune.workflows.assemble import TEXTS
from notetune.workflows.intake import longest_document, read_pieces, sampled
from notetune.workflows.prepare import Prepared
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import row_of


def make_ready(recipe: Recipe, prepared: Prepared, name: str) -> None:
    """Encode the notes for an encoder, unless that was done; they stay with the prepared notes.

    Raises:
        ConfigError: If its folder is that of a decoder.
    """
    folder, depends_on = recipe.folder.encoder_tokens(name), inputs(recipe, prepared, name)
    if runs.is_finished(folder, depends_on):
        return
    with runs.new_folder(folder, depends_on) as temporary:
        write_tokens(recipe, prepared, name, temporary)


def inputs(recipe: Recipe, prepared: Prepared, name: str) -> dict[str, Any]:
    """What the tokens of an encoder depend on."""
    return {
        "stage": f"encoder {name}",
        "prepared": runs.read_json(prepared.folder / runs.MANIFEST)["inputs"],
        "encoder": backbone_fingerprint(resolve_backbone(recipe.encoders.models[name])),
        "max_tokens": (recipe.prepare.max_tokens, most_tokens(recipe, name)),
        "long_notes": _long_notes(recipe),
        "store": FORMAT,
    }


def most_tokens(recipe: Recipe, name: str) -> int:
    """Longest document that an encoder of a folder can read: its own limit, or the recipe's."""
    limit = outline_backbone(recipe.encoders.models[name]).max_positions
    most, pieces = recipe.prepare.max_tokens, recipe.downstream.max_pieces
    if most == "auto":
        most = row_of(recipe.encoders.tokens_per_row) // (1 if pieces == "auto" else pieces)
    return min(most, limit)


def max_pieces(recipe: Recipe, store: TokenStore) -> int:
    """Pieces of a note that an encoder reads; `store` holds its documents."""
    wanted = whole_pieces(store, store.split_N == "train")
    row = recipe.encoders.tokens_per_row
    return read_pieces(recipe.downstream.max_pieces, wanted, row, store.max_tokens)


def notices(recipe: Recipe) -> list[str]:
    """What readers of the scores must know of the encoders' tokens."""
    said = []
    for name in recipe.encoders.models:
        folder = recipe.folder.encoder_tokens(name)
        if not folder.is_dir():
            continue
        store = open_store(folder)
        most = max_pieces(recipe, store)
        first_documents = np.flatnonzero(store.piece_D == 0)
        share = float(store.reading(first_documents, most).truncated_N.mean())
        if share:
            pieces = f"{most} pieces of " if most > 1 else ""
            said.append(
                f"{name}: {share:.0%} of the labelled notes are longer than {pieces}"
                f"{store.max_tokens} of its tokens; it reads their beginning."
            )
    return said


def write_tokens(recipe: Recipe, prepared: Prepared, name: str, folder: Path) -> None:
    """Encode the notes with a label, with the encoder's own tokenizer, into an existing folder.

    Raises:
        ConfigError: If the folder is that of a decoder.
    """
    encoder = outline_backbone(recipe.encoders.models[name])
    if not encoder.is_encoder:
        raise ConfigError(
            f"encoders.models.{name}: {encoder.name} is a decoder; give it as the backbone."
        )
    store = prepared.store
    labelled = np.unique(np.concatenate([task.note_ids_N for task in prepared.tasks.values()]))
    is_labelled_N = np.isin(store.note_ids, labelled)
    columns = {
        "note_ids": store.note_ids[is_labelled_N],
        "patient_ids": store.patient_ids[is_labelled_N],
        "source_N": store.source_N[is_labelled_N],
        "split_N": store.split_N[is_labelled_N],
        "in_corpus_N": store.in_corpus_N[is_labelled_N],
    }
    tokens = load_encoder(resolve_backbone(recipe.encoders.models[name]), frames_pieces=True)
    longest = _longest(recipe, prepared, name, tokens)
    parts = _documents(recipe, prepared, (tokens, longest), is_labelled_N)
    join_documents(folder, parts, columns, tokens.edges, longest)


def _longest(recipe: Recipe, prepared: Prepared, name: str, encoder: Encoder) -> int:
    """Longest document of an encoder of a folder, in its own tokens."""
    most = most_tokens(recipe, name)
    if recipe.prepare.max_tokens != "auto":
        return most
    trained = [task.note_ids_N[task.rows("train")] for task in prepared.tasks.values()]
    sample = sampled(np.unique(np.concatenate(trained)).tolist())
    return longest_document(encoder, prepared.texts(sample), most, most)[0]


def _documents(
    recipe: Recipe,
    prepared: Prepared,
    encoding: tuple[Encoder, int],
    is_wanted_N: npt.NDArray[np.bool_],
) -> Iterator[Documents]:
    """The documents of each wanted note that are read, one file of texts in memory at a time."""
    (encoder, longest), first = encoding, 0
    for path in sorted((prepared.folder / TEXTS).iterdir()):
        texts = pl.read_parquet(path, columns=["text"])["text"]
        wanted = texts.filter(pl.Series(is_wanted_N[first : first + len(texts)]))
        first += len(texts)
        if len(wanted):
            yield encoder.documents(wanted.to_list(), longest, _long_notes(recipe))


def _long_notes(recipe: Recipe) -> LongNotes:
    return "first" if recipe.downstream.max_pieces == 1 else recipe.prepare.long_notes


def untrained(recipe: Recipe, name: str) -> Backbone:
    """An encoder before anything of the recipe trains it."""
    return load_backbone(recipe.encoders.models[name], weights_dtype(recipe), recipe.torch_device)


def outline(recipe: Recipe, name: str) -> Backbone:
    """An encoder without weights."""
    return outline_backbone(recipe.encoders.models[name], weights_dtype(recipe))


def weights_dtype(recipe: Recipe) -> Dtype:
    """Type of the encoders' weights; float8 is for decoders."""
    return "bfloat16" if recipe.dtype == "float8" else recipe.dtype
