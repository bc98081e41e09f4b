"""Step 1: train a domain adapter on packed notes."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from notetune import infer, runs
from notetune.errors import DataError, RunError
from notetune.model.adapters.files import save_adapter
from notetune.model.adapters.specs import reserved_per_document
from notetune.model.backbone import load_backbone, resolve_backbone
from notetune.model.compiled import compile_layers
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.tokens.encode import load_encoder
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore, encode_notes
from notetune.train.batches import pretraining_steps, pretraining_steps_per_epoch, read_row
from notetune.train.checkpoints import STEPS
from notetune.train.optim import adamw
from notetune.workflows.prepare import Prepared
from notetune.workflows.progress import Track, silent
from notetune.workflows.provenance import write_provenance
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import row_of
from notetune.workflows.together import spread, stage_folders
from notetune.workflows.training import (
    Training,
    TrainingRecord,
    Watch,
    fit,
    read_record,
    write_record,
)

TRAINING = "training.json"
PERPLEXITY = "perplexity.json"
GENERAL, ALL_SOURCES = "general", "all"


@dataclass(frozen=True)
class PerplexityRow:
    """Perplexity of one model on the notes of one source in one split."""

    model: str
    split: str
    source: str
    perplexity: float
    bits_per_byte: float
    tokens: int


@dataclass(frozen=True)
class Pretrained:
    """What step 1 leaves behind."""

    record: TrainingRecord
    perplexity: tuple[PerplexityRow, ...]


def inputs(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    """What the domain adapter depends on."""
    return {
        "stage": "pretrain",
        "prepared": runs.read_json(prepared.folder / runs.MANIFEST)["inputs"],
        "intake": (asdict(prepared.store.edges), prepared.store.max_tokens),
        "dtype": recipe.dtype,
        "general": runs.sha256_of_file(_general_text(recipe)),
        "config": recipe.pretrain.model_dump(mode="json", exclude={"compare", "corpus"}),
    }


def pretrain(
    recipe: Recipe, prepared: Prepared, track: Track = silent, *, measures_before: bool = True
) -> Pretrained:
    """Train the domain adapter of a recipe, or read it if it was trained from the same inputs.

    Args:
        recipe: What to do.
        prepared: The notes.
        track: Shows progress.
        measures_before: Whether to measure perplexity without the adapter too.

    Raises:
        DataError: If there is no note to train on.
        TrainingError: If the loss is not finite.
        ConfigError: If it is sharded and this process is alone.
    """
    folder, depends_on = recipe.folder.domain, inputs(recipe, prepared)
    if not runs.is_finished(folder, depends_on):
        with stage_folders(folder, depends_on) as (work, temporary):
            backbone = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
            config, rows = recipe.pretrain, []
            if config.compiled:
                compile_layers(backbone)
            if measures_before:
                rows += _perplexities("before", stack(backbone), recipe, prepared)
            model = stack(backbone, [Layer(DOMAIN, config.adapter, is_trained=True)], config.seed)
            if config.sharded:
                spread(backbone)
            model.train_mode()
            record = _fit(model, recipe, prepared, work, track)
            sample = training_documents(recipe, prepared)[:4]
            model.check(read_row(prepared.store, sample, backbone.device))
            rows += _perplexities("after", model, recipe, prepared)
            save_adapter(temporary, model.adapters[DOMAIN], backbone)
            write_provenance(temporary, recipe, prepared)
            write_record(temporary / TRAINING, record)
            shutil.copyfile(work / STEPS, temporary / STEPS)
            runs.write_json(temporary / PERPLEXITY, [asdict(row) for row in rows])
    return read_pretrained(recipe, prepared)


def read_pretrained(recipe: Recipe, prepared: Prepared) -> Pretrained:
    """What a finished step 1 left in the run folder.

    Raises:
        RunError: If it is not finished, or was trained with other settings or on other notes.
    """
    folder = recipe.folder.domain
    if not runs.was_made_from(folder, inputs(recipe, prepared)):
        raise RunError(
            f"{folder} holds no adapter that was trained as the recipe says now; run `notetune "
            "pretrain` or `notetune study run` with this recipe, or take back what changed in it."
        )
    rows = [PerplexityRow(**values) for values in runs.read_json(folder / PERPLEXITY)]
    return Pretrained(read_record(folder / TRAINING), tuple(rows))


def training_documents(recipe: Recipe, prepared: Prepared) -> Int64Array:
    """Documents that step 1 trains on: those of training patients, of the recipe's sources.

    Raises:
        DataError: If there is none.
    """
    documents = prepared.store.corpus_documents(recipe.pretrain.sources)
    if not len(documents):
        known = ", ".join(sorted(set(prepared.store.source_N.tolist())))
        raise DataError(
            f"no training note of source {', '.join(recipe.pretrain.sources)}; the sources are "
            f"{known}. Mend pretrain.sources."
        )
    return documents


def tokens_per_row(recipe: Recipe, store: TokenStore) -> int:
    """Tokens of a row, with the virtual ones of its documents."""
    virtual = reserved_per_document(recipe.pretrain.adapter)
    return row_of(recipe.pretrain.tokens_per_row, store.max_tokens + virtual)


def step_count(recipe: Recipe, prepared: Prepared) -> int:
    """Steps of the whole training."""
    config = recipe.pretrain
    lengths = prepared.store.lengths_D[training_documents(recipe, prepared)]
    per_epoch = pretraining_steps_per_epoch(
        lengths,
        tokens_per_row(recipe, prepared.store),
        config.optim.targets_per_step,
        reserved_per_document(config.adapter),
    )
    return max(1, round(config.epochs * per_epoch))


def _fit(
    model: Stack, recipe: Recipe, prepared: Prepared, work: Path, track: Track
) -> TrainingRecord:
    config, optim = recipe.pretrain, recipe.pretrain.optim
    parameters = model.parameters_by_name()
    training = Training(
        label="pretrain",
        inputs=inputs(recipe, prepared),
        store=prepared.store,
        parameters=parameters,
        optimizer=adamw(optim, (parameters.values(), optim.peak_lr)),
        optim=optim,
        rows=lambda first_step: pretraining_steps(
            prepared.store,
            training_documents(recipe, prepared),
            tokens_per_row=tokens_per_row(recipe, prepared.store),
            targets_per_step=optim.targets_per_step,
            seed=config.seed,
            reserved_per_document=model.reserved_per_document,
            first_step=first_step,
            device=model.backbone.device,
        ),
        summed_loss=model.summed_token_loss,
        step_count=step_count(recipe, prepared),
        seed=config.seed,
        unit="tokens",
        tokens_per_target=1,
        is_sharded=config.sharded,
    )
    watch = Watch(model.trainable_count, model.total_count)
    fit(training, work, recipe.checkpoint_minutes, watch, track)
    return watch.record()


def _perplexities(
    when: str, model: Stack, recipe: Recipe, prepared: Prepared
) -> list[PerplexityRow]:
    """Perplexity on a sample of each split and source, and on general text."""
    size, rows = tokens_per_row(recipe, prepared.store), []
    samples = (*_samples(recipe, prepared), _general(recipe, prepared.store))
    for split, source, store, documents in samples:
        got = infer.perplexity(model, store, documents, size, recipe.pretrain.perplexity)
        figures = (got.perplexity, got.bits_per_byte, got.targets)
        rows.append(PerplexityRow(when, split, source, *figures))
    return rows


_Sample = tuple[str, str, TokenStore, Int64Array]


def _samples(recipe: Recipe, prepared: Prepared) -> Iterator[_Sample]:
    """Documents by split and source, the same before and after the training, none empty."""
    store = prepared.store
    sources = recipe.pretrain.sources or sorted(set(store.source_N.tolist()))
    for split in ("train", "validation", "test"):
        parts = {source: _sample(recipe, store, split, source) for source in sources}
        if len(sources) > 1:
            parts[ALL_SOURCES] = np.concatenate(list(parts.values()))
        for source, documents in parts.items():
            if len(documents):
                yield split, source, store, documents


def _sample(recipe: Recipe, store: TokenStore, split: str, source: str) -> Int64Array:
    is_train = split == "train"
    documents = (
        store.corpus_documents([source]) if is_train else store.documents_of(split, [source])
    )
    most = recipe.pretrain.perplexity_documents
    if len(documents) <= most:
        return documents
    rng = np.random.default_rng((recipe.pretrain.seed, len(documents)))
    return np.sort(rng.choice(documents, most, replace=False))


def _general(recipe: Recipe, like: TokenStore) -> _Sample:
    """The passages of a general text, read as notes are: what the backbone should still know."""
    path = _general_text(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"pretrain.general_text: {path} is not UTF-8 text.") from None
    passages = [part.strip() for part in text.split("\n\n\n") if part.strip()]
    if not passages:
        raise DataError(f"pretrain.general_text: {path} is empty.")
    names = [str(number) for number in range(len(passages))]
    columns = dict.fromkeys(("note_ids", "patient_ids", "source_N", "split_N"), names)
    encoder = load_encoder(resolve_backbone(recipe.backbone), like.edges)
    store = encode_notes(encoder, like.max_tokens, passages, columns)
    documents = np.arange(len(store.lengths_D))[: recipe.pretrain.perplexity_documents]
    return GENERAL, path.stem, store, documents


def _general_text(recipe: Recipe) -> Path:
    given = recipe.pretrain.general_text
    if given and not given.is_file():
        raise DataError(f"pretrain.general_text: {given} is not a file.")
    return given or Path(str(files("notetune") / "general/shakespeare.txt"))
