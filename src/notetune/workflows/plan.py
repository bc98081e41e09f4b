"""What a recipe would do, how long and in how much memory, without writing a run folder."""

import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from notetune.model.adapters.files import SavedAdapter
from notetune.model.adapters.specs import reserved_per_document
from notetune.model.backbone import load_backbone, outline_backbone
from notetune.model.batch import PackedBatch
from notetune.model.layers import chosen_layers
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.tokens.packing import Int64Array, pack_documents
from notetune.tokens.store import TokenStore, open_store
from notetune.train.batches import read_row
from notetune.workflows import downstream, encoders, perplexity, pretrain
from notetune.workflows.cell import Cell
from notetune.workflows.features import labelled_documents
from notetune.workflows.intake import without_scoring
from notetune.workflows.prepare import (
    Prepared,
    are_finished,
    open_corpus,
    open_prepared,
    prepare,
    prepare_corpus,
)
from notetune.workflows.recipe import Recipe
from notetune.workflows.task_models import TaskModel, task_model
from notetune.workflows.training import peak_memory_mib, restart_peak_memory
from notetune.workflows.variants import variant_of

_TIMED_PASSES = 3


@dataclass(frozen=True)
class PlannedStage:
    """One training of the study.

    Attributes:
        name: Stage or cell.
        documents: Documents per epoch.
        tokens: Tokens per epoch.
        rows: Rows per epoch, packed all at once.
        steps: Optimizer updates.
        trainable_parameters: Parameters that train.
        seconds: Estimated from passes over one real row on this machine.
    """

    name: str
    documents: int
    tokens: int
    rows: int
    steps: int
    trainable_parameters: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All trainings of a recipe, and the memory measured on its longest row."""

    stages: tuple[PlannedStage, ...]
    peak_memory_mib: float

    @property
    def seconds(self) -> float:
        """Estimated time of all trainings."""
        return sum(stage.seconds for stage in self.stages)


def plan(recipe: Recipe) -> Plan:
    """Read the notes, count, and time one row; nothing is kept.

    Raises:
        NotetuneError: As `prepare`, so a dry run finds faulty input too.
    """
    stages, memory_mib = [], []
    for name, one in recipe.studies.items():
        with notes_of(one) as (prepared, corpus):
            planned = _plan(one, prepared, corpus)
        lead = f"{name} · " if name else ""
        stages += [replace(stage, name=lead + stage.name) for stage in planned.stages]
        memory_mib.append(planned.peak_memory_mib)
    return Plan(tuple(stages), max(memory_mib))


@contextmanager
def notes_of(recipe: Recipe) -> Iterator[tuple[Prepared, Prepared]]:
    """The notes of the tasks and of step 1; what is not prepared goes into a passing folder."""
    if are_finished(recipe):
        prepared = open_prepared(recipe.folder.prepared)
        yield prepared, open_corpus(recipe, prepared)
        return
    with tempfile.TemporaryDirectory() as folder:
        aside = without_scoring(recipe)
        aside = aside.model_copy(update={"runs": Path(folder), "prepared": None})
        prepared = prepare(aside)
        yield prepared, prepare_corpus(aside, prepared)


@dataclass(frozen=True)
class _Measured:
    """What was counted and timed with the backbone.

    Attributes:
        hidden_size: Width of its features.
        reserved: Places that the domain adapter takes beside a document.
        domain_size: Parameters of the domain adapter that step 2 can train.
        task_size: Parameters of the task adapter.
        forward: Seconds per token of a pass.
        backward: Seconds per token of a pass with the gradient of the domain adapter.
    """

    hidden_size: int
    reserved: int
    domain_size: int
    task_size: int
    forward: float
    backward: float


def _plan(recipe: Recipe, prepared: Prepared, corpus: Prepared) -> Plan:
    restart_peak_memory()
    stage, measured = _step_1(recipe, corpus, "pretrain")
    stages = [replace(stage, name=f"pretrain · seed {seed}") for seed in range(recipe.seeds)]
    for name, one in recipe.compared.items():
        stages.append(_step_1(one, corpus, f"pretrain · {name}")[0])
    documents = labelled_documents(prepared, prepared.store)
    tokens = prepared.store.reading(documents, prepared.max_pieces(recipe)).tokens_N.sum()
    features = measured.forward * float(tokens)
    stages += [
        _cell_stage(recipe, prepared, cell, measured, features)
        for cell in downstream.cells(recipe, prepared)
        if cell.variant in recipe.downstream.variants
    ]
    for name in recipe.encoders.models:
        stages += _encoder_stages(recipe, prepared, name)
    return Plan(tuple(stages), peak_memory_mib())


def _step_1(recipe: Recipe, corpus: Prepared, name: str) -> tuple[PlannedStage, _Measured]:
    """One method of step 1, and what was measured with it."""
    documents = pretrain.training_documents(recipe, corpus)
    backbone = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
    virtual = reserved_per_document(recipe.pretrain.adapter)
    room = (perplexity.tokens_per_row(recipe, corpus.store), virtual)
    row = _one_row(corpus.store, documents, room, backbone.device)
    forward = _seconds_per_token(stack(backbone).summed_token_loss, (), row)
    model = stack(backbone, [Layer(DOMAIN, recipe.pretrain.adapter, is_trained=True)])
    saved = SavedAdapter(recipe.pretrain.adapter, model.tensors(DOMAIN), backbone=None)
    adapters = model.parameters_by_name().values()
    layers = chosen_layers(recipe.downstream.features.layers, backbone.shape.layers)
    measured = _Measured(
        backbone.hidden_size * len(layers),
        model.reserved_per_document,
        _size_in_step_2(recipe, Layer(DOMAIN, saved, is_trained=True)),
        _size_in_step_2(recipe, Layer(TASK, recipe.downstream.adapter, is_trained=True)),
        forward,
        _seconds_per_token(model.summed_token_loss, adapters, row),
    )
    lengths = corpus.store.lengths_D[documents]
    seconds = recipe.pretrain.epochs * measured.backward * float(lengths.sum())
    figures = (pretrain.step_count(recipe, corpus), model.trainable_count, seconds)
    return _stage(name, lengths, room, figures), measured


def _cell_stage(
    recipe: Recipe, prepared: Prepared, cell: Cell, measured: _Measured, features: float
) -> PlannedStage:
    """A cell of the backbone; `features` is the time for those of all notes, which cells share."""
    config = recipe.downstream
    task, parts = prepared.tasks[cell.task], variant_of(cell.variant)
    notes = prepared.store.first_documents(task.note_ids_N[task.rows("train")].tolist())
    planned = task_model(recipe, prepared, cell.variant)
    lengths = prepared.store.reading(notes, planned.max_pieces).tokens_N
    trained = (measured.hidden_size + 1) * len(task.task.classes)
    trained += measured.domain_size * parts.trains_domain + measured.task_size * parts.has_task
    seconds = measured.backward * config.epochs * float(lengths.sum())
    if parts.trains_head_alone:
        seconds = features / len(prepared.tasks)
    steps = 0 if parts.trains_head_alone else planned.step_count(task)
    reserved = measured.reserved * parts.has_domain
    reserved += reserved_per_document(config.adapter) * parts.has_task
    room = (planned.tokens_per_row, reserved)
    return _stage(cell.label, lengths, room, (steps, trained, seconds))


def _size_in_step_2(recipe: Recipe, layer: Layer) -> int:
    outline = outline_backbone(recipe.backbone, recipe.dtype)
    return stack(outline, [layer], predicts_tokens=False).trainable_count


def _encoder_stages(recipe: Recipe, prepared: Prepared, name: str) -> list[PlannedStage]:
    """The trainings of one encoder; its tokens go into a folder that does not stay."""
    with tempfile.TemporaryDirectory() as folder:
        encoders.write_tokens(recipe, prepared, name, Path(folder))
        return _encoder_cells(recipe, prepared, name, open_store(Path(folder)))


def _encoder_cells(
    recipe: Recipe, prepared: Prepared, name: str, store: TokenStore
) -> list[PlannedStage]:
    stages = []
    for variant in recipe.encoders.variants:
        planned = task_model(recipe, prepared, f"{name}+{variant}", store)
        layers = [Layer(TASK, planned.adapter, is_trained=True)] if planned.parts.has_task else []
        model = stack(encoders.untrained(recipe, name), layers)
        seconds = _seconds_per_token_of(model, planned)
        for cell in downstream.cells(recipe, prepared):
            if cell.variant != f"{name}+{variant}":
                continue
            task = prepared.tasks[cell.task]
            notes = store.first_documents(task.note_ids_N[task.rows("train")].tolist())
            lengths = store.reading(notes, planned.max_pieces).tokens_N
            figures = (
                planned.step_count(task),
                model.trainable_count + (model.backbone.hidden_size + 1) * len(task.task.classes),
                seconds * planned.epochs * float(lengths.sum()),
            )
            stages.append(_stage(cell.label, lengths, (planned.tokens_per_row, 0), figures))
    return stages


def _seconds_per_token_of(model: Stack, planned: TaskModel) -> float:
    everything = np.arange(len(planned.store.lengths_D))
    room = (planned.tokens_per_row, 0)
    return _seconds_per_token(
        lambda row: model.features(row, planned.pooling).sum(),
        model.parameters_by_name().values(),
        _one_row(planned.store, everything, room, model.backbone.device),
    )


def _stage(
    name: str, lengths: Int64Array, room: tuple[int, int], figures: tuple[int, int, float]
) -> PlannedStage:
    tokens_per_row, reserved = room
    rows = pack_documents(lengths + reserved, tokens_per_row).row_count
    return PlannedStage(name, len(lengths), int(lengths.sum()), rows, *figures)


def _one_row(
    store: TokenStore, documents: Int64Array, room: tuple[int, int], device: torch.device
) -> PackedBatch:
    tokens_per_row, reserved = room
    packed = pack_documents(store.lengths_D[documents] + reserved, tokens_per_row)
    return read_row(store, documents[packed.row(0)], device)


def _seconds_per_token(
    loss_of: Callable[[PackedBatch], Tensor], trained: Collection[nn.Parameter], row: PackedBatch
) -> float:
    """Median time of a pass over a row, with the gradient of what is trained."""
    parameters = list(trained)
    durations = []
    for _ in range(_TIMED_PASSES + 1):
        started = time.perf_counter()
        with torch.set_grad_enabled(bool(parameters)):
            loss = loss_of(row)
        if parameters:
            torch.autograd.grad(loss, parameters)
        loss.item()
        durations.append(time.perf_counter() - started)
    return float(np.median(durations[1:])) / len(row.ids_T)
