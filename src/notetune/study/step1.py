"""Step 1: train a domain adapter on packed notes."""

import shutil
from dataclasses import replace

from notetune import runs, storage
from notetune.audit import CORPUS
from notetune.errors import BundleError
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.batch import PackedBatch
from notetune.model.compiled import compile_layers
from notetune.model.device import torch_device
from notetune.model.recompute import recompute_layers
from notetune.model.stack import DOMAIN, Layer, Stack, probe, stack
from notetune.prepare.checks import stop_at_leaks
from notetune.prepare.patient_hashes import write_brought, write_provenance
from notetune.prepare.prepared import Prepared
from notetune.progress import Track, silent
from notetune.recipe.recipe import Recipe
from notetune.study.counts import recomputes
from notetune.study.jobs import TRAINING, Job
from notetune.study.specs import DomainSpec, Notes
from notetune.study.wanted import weights_of
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import pretraining_steps, read_row
from notetune.train.checkpoints import STEPS
from notetune.train.optim import adamw
from notetune.train.processes import refuse_alone, spread, stage_folders
from notetune.train.training import Training, TrainingRecord, fit

_CHECKED_DOCUMENTS = 4


def refuse(job: Job, corpus: Prepared) -> None:
    """Refuse a training that could not begin, before anything is loaded.

    Raises:
        DataError: If there is no note to train on, or it would read notes of the tasks' tests.
        ConfigError: If it is sharded and this process is alone.
    """
    spec = job.spec_as(DomainSpec)
    if not spec.is_taken:
        spec.documents_of(corpus.store)
        if not job.place.allow_leaks:  # notes that were prepared for heads alone stopped at none
            stop_at_leaks(finding for finding in corpus.findings if finding.split_b == CORPUS)
    if spec.sharded:
        refuse_alone()


def train_domain(job: Job, notes: Notes, track: Track = silent) -> None:
    """Train the domain adapter of one run.

    Raises:
        DataError, ConfigError: As `refuse`.
        TrainingError: If the loss is not finite.
    """
    spec, place, store = job.spec_as(DomainSpec), job.place, notes.corpus.store
    if spec.is_taken:
        _take(job)
        return
    with stage_folders(job.folder, job.inputs) as (work, temporary):
        backbone = load_backbone(place.backbone, spec.weights.dtype, torch_device(place.device))
        if spec.compiled:
            compile_layers(backbone)
        if is_recomputed := recomputes(job, store.max_tokens):
            recompute_layers(backbone)
        start = read_adapter(place.brought) if spec.start and place.brought else spec.adapter
        model = stack(backbone, [Layer(DOMAIN, start, is_trained=True)], spec.seed)
        if spec.sharded:
            spread(backbone)
        model.train_mode()
        documents_D = spec.documents_of(store)
        training = _training(job, model, store, documents_D)
        record = fit(training, work, place.checkpoint_minutes, track)
        record = replace(record, recomputed=is_recomputed)
        model.check(read_row(store, documents_D[:_CHECKED_DOCUMENTS], backbone.device))
        save_adapter(temporary, model.adapters[DOMAIN], backbone)
        brought = place.brought if spec.start else None
        write_provenance(temporary, notes.corpus, spec.sources, brought)
        storage.write_json(temporary / TRAINING, record)
        shutil.copyfile(work / STEPS, temporary / STEPS)


def _take(job: Job) -> None:
    """Keep an adapter that was brought as that of a run; it says then what every one says."""
    place, dtype = job.place, job.spec_as(DomainSpec).weights.dtype
    assert place.brought
    with runs.new_folder(job.folder, job.inputs) as temporary:
        backbone = load_backbone(place.backbone, dtype, torch_device(place.device))
        layer = Layer(DOMAIN, read_adapter(place.brought), is_trained=False)
        model = stack(backbone, [layer])
        model.check(probe(backbone))
        save_adapter(temporary, model.adapters[DOMAIN], backbone)
        write_brought(temporary, place.brought)
        record = TrainingRecord(0, 0, model.total_count, 0.0, 0, 0.0, ())
        storage.write_json(temporary / TRAINING, record)


def refuse_misfit(recipe: Recipe) -> None:
    """Refuse an adapter that is brought to another backbone, before any work on notes.

    Raises:
        BundleError: If it was trained on another one, or does not fit by names and shapes.
    """
    folder = recipe.pretrain.from_
    if folder is None:
        return
    saved, trained_on = read_adapter(folder), weights_of(recipe.backbone, recipe.dtype).fingerprint
    if saved.backbone not in (None, trained_on):
        raise BundleError(
            f"pretrain.from: {folder} was trained on the backbone {saved.backbone}, not on "
            f"{recipe.backbone} ({trained_on}); name its own backbone."
        )
    try:
        outline = outline_backbone(recipe.backbone, recipe.dtype)
        stack(outline, [Layer(DOMAIN, replace(saved, backbone=None), is_trained=False)])
    except BundleError as error:
        raise BundleError(f"pretrain.from: {folder}: {error}") from None


def _training(
    job: Job, model: Stack, store: TokenStore, documents_D: Int64Array
) -> Training[PackedBatch]:
    spec, parameters = job.spec_as(DomainSpec), model.parameters_by_name()
    return Training(
        label=job.label,
        inputs=job.inputs,
        store=store,
        parameters=parameters,
        optimizer=adamw(spec.optim, (parameters.values(), spec.optim.peak_lr)),
        optim=spec.optim,
        rows=lambda first_step: pretraining_steps(
            store,
            documents_D,
            tokens_per_row=spec.tokens_per_row,
            targets_per_step=spec.optim.targets_per_step,
            seed=spec.seed,
            reserved_per_document=model.reserved_per_document,
            first_step=first_step,
            device=model.backbone.device,
        ),
        summed_loss=model.summed_token_loss,
        step_count=spec.step_count(store.lengths_D[documents_D]),
        seed=spec.seed,
        unit="tokens",
        tokens_per_target=1,
        total_parameters=model.total_count,
        is_sharded=spec.sharded,
    )
