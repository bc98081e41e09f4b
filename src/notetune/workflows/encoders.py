"""Encoders beside the backbone: their tokens, and the one that is pretrained here."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune import runs
from notetune.errors import ConfigError
from notetune.model.backbone import Backbone, Dtype, load_backbone, outline_backbone
from notetune.model.backbone_folder import backbone_fingerprint, resolve_backbone
from notetune.model.masked import MaskedBatch, MaskedEncoder, new_masked_encoder
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Documents, Encoder, LongNotes, load_encoder
from notetune.tokens.store import FORMAT, TokenStore, join_documents, open_store, whole_pieces
from notetune.train.batches import pretraining_steps, pretraining_steps_per_epoch
from notetune.train.checkpoints import STEPS
from notetune.train.optim import adamw
from notetune.workflows.assemble import TEXTS
from notetune.workflows.intake import longest_document, read_pieces, sampled
from notetune.workflows.prepare import Prepared, open_corpus
from notetune.workflows.pretrain import TRAINING, training_documents
from notetune.workflows.progress import Track, silent
from notetune.workflows.provenance import write_provenance
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import MASKED, row_of
from notetune.workflows.training import (
    Training,
    TrainingRecord,
    Watch,
    fit,
    read_record,
    write_record,
)


def make_ready(recipe: Recipe, prepared: Prepared, name: str, track: Track = silent) -> None:
    """Pretrain an encoder, or encode the notes for one that is there, unless that was done.

    Raises:
        ConfigError: If its folder is that of a decoder.
        TrainingError: If the loss is not finite.
    """
    folder, depends_on = stage_folder(recipe, name), inputs(recipe, prepared, name)
    if runs.is_finished(folder, depends_on):
        return
    with runs.work_folder(folder, depends_on) as work, runs.new_folder(folder, depends_on) as new:
        if recipe.encoders.models[name] == MASKED:
            _pretrain(recipe, open_corpus(recipe, prepared), name, track, work, new)
        else:
            write_tokens(recipe, prepared, name, new)


def stage_folder(recipe: Recipe, name: str) -> Path:
    """What `make_ready` makes: an encoder, or tokens; these stay with the prepared notes."""
    is_made_here = recipe.encoders.models[name] == MASKED
    return recipe.folder.encoder(name) if is_made_here else recipe.folder.encoder_tokens(name)


def inputs(recipe: Recipe, prepared: Prepared, name: str) -> dict[str, Any]:
    """What an encoder, or its tokens, depend on."""
    given = recipe.encoders.models[name]
    notes = recipe.corpus.folder.prepared if given == MASKED else prepared.folder
    upstream = {
        "stage": f"encoder {name}",
        "prepared": runs.read_json(notes / runs.MANIFEST)["inputs"],
    }
    if given == MASKED:
        config = recipe.encoders.mlm.model_dump(mode="json")
        return {**upstream, "config": config, "sources": recipe.pretrain.sources}
    fingerprint = backbone_fingerprint(resolve_backbone(given))
    return {
        **upstream,
        "encoder": fingerprint,
        "max_tokens": (recipe.prepare.max_tokens, most_tokens(recipe, name)),
        "long_notes": _long_notes(recipe),
        "store": FORMAT,
    }


def backbone_folder(recipe: Recipe, name: str) -> str:
    """The encoder's folder."""
    given = recipe.encoders.models[name]
    return str(recipe.folder.encoder(name)) if given == MASKED else given


def open_tokens(recipe: Recipe, prepared: Prepared, name: str) -> TokenStore:
    """The documents of an encoder that is ready.

    One that was pretrained here has the tokenizer of the backbone, and so its documents.
    """
    if recipe.encoders.models[name] == MASKED:
        return prepared.store
    return open_store(recipe.folder.encoder_tokens(name))


def most_tokens(recipe: Recipe, name: str) -> int:
    """Longest document that an encoder of a folder can read: its own limit, or the recipe's."""
    limit = outline_backbone(recipe.encoders.models[name]).max_positions
    most, pieces = recipe.prepare.max_tokens, recipe.downstream.max_pieces
    if most == "auto":
        most = row_of(recipe.encoders.tokens_per_row) // (1 if pieces == "auto" else pieces)
    return min(most, limit)


def max_pieces(recipe: Recipe, prepared: Prepared, name: str, store: TokenStore) -> int:
    """Pieces of a note that an encoder reads; `store` holds its documents."""
    wanted = prepared.intake.whole_pieces
    if recipe.encoders.models[name] != MASKED:
        wanted = whole_pieces(store, store.split_N == "train")
    row = recipe.encoders.tokens_per_row
    return read_pieces(recipe.downstream.max_pieces, wanted, row, store.max_tokens)


def read_pretrained(recipe: Recipe) -> dict[str, TrainingRecord]:
    """How the encoders were pretrained that were pretrained here up to now, by name."""
    paths = {name: recipe.folder.encoder(name) / TRAINING for name in recipe.encoders.models}
    return {name: read_record(path) for name, path in paths.items() if path.is_file()}


def notices(recipe: Recipe, prepared: Prepared) -> list[str]:
    """What readers of the scores must know of the encoders' tokens."""
    said = []
    for name in recipe.encoders.models:
        folder = recipe.folder.encoder_tokens(name)
        if not folder.is_dir():
            continue
        store = open_store(folder)
        most = max_pieces(recipe, prepared, name, store)
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


def new_encoder(recipe: Recipe, longest: int, edges: Edges | None = None) -> MaskedEncoder:
    """The encoder that is pretrained here, before it is.

    Args:
        recipe: What to do.
        longest: Tokens of its longest document.
        edges: What stands round documents.
    """
    config = recipe.encoders.mlm
    encoder = load_encoder(resolve_backbone(recipe.backbone), edges)
    return new_masked_encoder(
        config.shape,
        encoder.tokenizer,
        (encoder.edges.opener_id, encoder.edges.end_id),
        encoder.vocabulary_size,
        max_tokens=longest,
        share=config.share,
        seed=config.seed,
        device=recipe.torch_device,
    )


def untrained(recipe: Recipe, name: str, longest: int) -> Backbone:
    """An encoder before anything of the recipe trains it."""
    given = recipe.encoders.models[name]
    if given == MASKED:
        return new_encoder(recipe, longest).backbone
    return load_backbone(given, weights_dtype(recipe), recipe.torch_device)


def outline(recipe: Recipe, name: str, longest: int) -> Backbone:
    """An encoder without weights."""
    given = recipe.encoders.models[name]
    if given != MASKED:
        return outline_backbone(given, weights_dtype(recipe))
    backbone = new_encoder(recipe, longest).backbone
    backbone.model.to("meta").requires_grad_(requires_grad=False)
    return backbone


def weights_dtype(recipe: Recipe) -> Dtype:
    """Type of the encoders' weights; float8 is for decoders."""
    return "bfloat16" if recipe.dtype == "float8" else recipe.dtype


def step_count(recipe: Recipe, prepared: Prepared) -> int:
    """Steps of pretraining an encoder."""
    config = recipe.encoders.mlm
    lengths = prepared.store.lengths_D[training_documents(recipe, prepared)]
    per_epoch = pretraining_steps_per_epoch(
        lengths, masked_row(recipe, prepared), config.optim.targets_per_step
    )
    return max(1, round(config.epochs * per_epoch))


def masked_row(recipe: Recipe, prepared: Prepared) -> int:
    """Tokens of a row of the encoder that is pretrained here."""
    return row_of(recipe.encoders.mlm.tokens_per_row, prepared.store.max_tokens)


def _pretrain(
    recipe: Recipe, prepared: Prepared, name: str, track: Track, work: Path, folder: Path
) -> None:
    encoder = new_encoder(recipe, prepared.store.max_tokens, prepared.store.edges)
    encoder.model.eval()  # no dropout: each note comes a few times only
    training = _training(recipe, prepared, name, encoder)
    size = sum(parameter.numel() for parameter in training.parameters.values())
    watch = Watch(size, size)
    fit(training, work, recipe.checkpoint_minutes, watch, track)
    encoder.save(folder)
    write_provenance(folder, recipe, prepared)
    write_record(folder / TRAINING, watch.record())
    shutil.copyfile(work / STEPS, folder / STEPS)


def _training(
    recipe: Recipe, prepared: Prepared, name: str, encoder: MaskedEncoder
) -> Training[MaskedBatch]:
    config, optim = recipe.encoders.mlm, recipe.encoders.mlm.optim
    parameters = dict(encoder.model.named_parameters())
    documents = training_documents(recipe, prepared)

    def rows(first_step: int) -> Iterator[list[MaskedBatch]]:
        steps = pretraining_steps(
            prepared.store,
            documents,
            tokens_per_row=masked_row(recipe, prepared),
            targets_per_step=optim.targets_per_step,
            seed=config.seed,
            first_step=first_step,
            device=recipe.torch_device,
        )
        return encoder.masking.steps(steps, config.seed, first_step)

    return Training(
        label=f"pretrain {name}",
        inputs=inputs(recipe, prepared, name),
        store=prepared.store,
        parameters=parameters,
        optimizer=adamw(optim, (parameters.values(), optim.peak_lr)),
        optim=optim,
        rows=rows,
        summed_loss=encoder.summed_loss,
        step_count=step_count(recipe, prepared),
        seed=config.seed,
        unit="tokens",
        tokens_per_target=1 / config.share,
    )
