"""Step 1: train a domain adapter on packed notes."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from notetune import runs
from notetune.errors import DataError, RunError
from notetune.metrics.results import PerplexityRow
from notetune.model.adapters.files import save_adapter
from notetune.model.adapters.specs import reserved_per_document
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import backbone_fingerprint, resolve_backbone
from notetune.model.compiled import compile_layers
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.tokens.packing import Int64Array
from notetune.train.batches import pretraining_steps, pretraining_steps_per_epoch, read_row
from notetune.train.checkpoints import STEPS
from notetune.train.optim import adamw
from notetune.workflows import perplexity
from notetune.workflows.perplexity import tokens_per_row
from notetune.workflows.prepare import Prepared, documents_digest
from notetune.workflows.progress import Track, silent
from notetune.workflows.provenance import write_provenance
from notetune.workflows.recipe import Recipe
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
FIRST_RUN = 0


@dataclass(frozen=True)
class Pretrained:
    """What step 1 leaves behind."""

    record: TrainingRecord
    perplexity: tuple[PerplexityRow, ...]


def inputs(recipe: Recipe, prepared: Prepared, seed: int) -> dict[str, Any]:
    """What the domain adapter of a run depends on."""
    return {
        "stage": "pretrain",
        "backbone": backbone_fingerprint(resolve_backbone(recipe.backbone)),
        "documents": documents_digest(prepared, of_step_1=True),
        "dtype": recipe.dtype,
        "config": recipe.pretrain.training,
        "seed": seed,
    }


def pretrain(
    recipe: Recipe, prepared: Prepared, track: Track = silent, *, measures_before: bool = True
) -> Pretrained:
    """Train the domain adapter of the first run and measure perplexity, each unless it is done.

    They are stages of their own: to measure something else, nothing is trained again.

    Args:
        recipe: What to do.
        prepared: The notes.
        track: Shows progress.
        measures_before: Whether to measure perplexity without the adapter too.

    Raises:
        DataError: If there is no note to train on, or the general text is faulty.
        TrainingError: If the loss is not finite.
        ConfigError: If it is sharded and this process is alone.
    """
    perplexity.general(
        recipe, prepared.store
    )  # a fault of this text shows before the training, not after it
    train_run(recipe, prepared, FIRST_RUN, track)
    perplexity.measure(recipe, prepared, measures_before=measures_before)
    return read_pretrained(recipe, prepared, measures_before=measures_before)


def train_run(recipe: Recipe, prepared: Prepared, seed: int, track: Track = silent) -> None:
    """Train the domain adapter of one run, unless it is there.

    Raises:
        DataError: If there is no note to train on.
        TrainingError: If the loss is not finite.
        ConfigError: If it is sharded and this process is alone.
    """
    folder, depends_on = recipe.folder.domain(seed), inputs(recipe, prepared, seed)
    if not runs.is_finished(folder, depends_on):
        with stage_folders(folder, depends_on) as (work, temporary):
            _train(recipe, prepared, seed, track, work, temporary)


def read_pretrained(
    recipe: Recipe, prepared: Prepared, *, measures_before: bool = True
) -> Pretrained:
    """What a finished step 1 left in the run folder.

    Raises:
        RunError: If it is not finished, or was trained or measured with other settings or on other
            notes.
    """
    folder = recipe.folder.domain(FIRST_RUN)
    if not runs.was_made_from(folder, inputs(recipe, prepared, FIRST_RUN)):
        raise RunError(
            f"{folder} holds no adapter that was trained as the recipe says now; run `notetune "
            "pretrain` or `notetune study run` with this recipe, or take back what changed in it."
        )
    rows = perplexity.read(recipe, prepared, measures_before=measures_before)
    return Pretrained(read_record(folder / TRAINING), rows)


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


def _train(
    recipe: Recipe, prepared: Prepared, seed: int, track: Track, work: Path, temporary: Path
) -> None:
    config = recipe.pretrain
    backbone = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
    if config.compiled:
        compile_layers(backbone)
    model = stack(backbone, [Layer(DOMAIN, config.adapter, is_trained=True)], seed)
    if config.sharded:
        spread(backbone)
    model.train_mode()
    record = _fit(model, recipe, prepared, seed, work, track)
    sample = training_documents(recipe, prepared)[:4]
    model.check(read_row(prepared.store, sample, backbone.device))
    save_adapter(temporary, model.adapters[DOMAIN], backbone)
    write_provenance(temporary, recipe, prepared)
    write_record(temporary / TRAINING, record)
    shutil.copyfile(work / STEPS, temporary / STEPS)


def _fit(
    model: Stack, recipe: Recipe, prepared: Prepared, seed: int, work: Path, track: Track
) -> TrainingRecord:
    config, optim = recipe.pretrain, recipe.pretrain.optim
    parameters = model.parameters_by_name()
    training = Training(
        label=f"pretrain · seed {seed}",
        inputs=inputs(recipe, prepared, seed),
        store=prepared.store,
        parameters=parameters,
        optimizer=adamw(optim, (parameters.values(), optim.peak_lr)),
        optim=optim,
        rows=lambda first_step: pretraining_steps(
            prepared.store,
            training_documents(recipe, prepared),
            tokens_per_row=tokens_per_row(recipe, prepared.store),
            targets_per_step=optim.targets_per_step,
            seed=seed,
            reserved_per_document=model.reserved_per_document,
            first_step=first_step,
            device=model.backbone.device,
        ),
        summed_loss=model.summed_token_loss,
        step_count=step_count(recipe, prepared),
        seed=seed,
        unit="tokens",
        tokens_per_target=1,
        is_sharded=config.sharded,
    )
    watch = Watch(model.trainable_count, model.total_count)
    fit(training, work, recipe.checkpoint_minutes, watch, track)
    return watch.record()
