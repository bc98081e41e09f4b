"""What a recipe would do, how long and in how much memory, without writing a run folder."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from notetune import runs
from notetune.model.adapters.specs import reserved_per_document
from notetune.model.backbone import load_backbone
from notetune.model.batch import PackedBatch
from notetune.model.heads import Head
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.tokens.packing import Int64Array, pack_documents
from notetune.train.batches import read_row
from notetune.workflows import downstream, pretrain
from notetune.workflows.prepare import Prepared, inputs, open_prepared, prepare
from notetune.workflows.recipe import VARIANTS, Recipe
from notetune.workflows.training import peak_memory_mib, restart_peak_memory

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
    if runs.is_finished(recipe.folder.prepared, inputs(recipe)):
        return _plan(recipe, open_prepared(recipe.folder.prepared))
    with tempfile.TemporaryDirectory() as folder:
        return _plan(recipe, prepare(recipe.model_copy(update={"runs": Path(folder)})))


def _plan(recipe: Recipe, prepared: Prepared) -> Plan:
    documents = pretrain.training_documents(recipe, prepared)
    backbone = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
    row = _one_row(recipe, prepared, documents)
    forward = _seconds_per_token(stack(backbone), row, trains=False)
    model = stack(backbone, [Layer(DOMAIN, recipe.pretrain.adapter, is_trained=True)])
    domain_size = model.trainable_count
    # Without the network that some methods learn through in step 1.
    saved_size = sum(tensor.numel() for tensor in model.tensors(DOMAIN).values())
    backward = _seconds_per_token(model, row, trains=True)
    other = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
    layers = [Layer(TASK, recipe.downstream.adapter, is_trained=True)]
    task_size = stack(other, layers).trainable_count

    steps = pretrain.step_count(recipe, prepared)
    seconds_per_epoch = backward * prepared.store.lengths_D[documents].sum()
    stages = [
        _stage(
            "pretrain",
            prepared.store.lengths_D[documents],
            (recipe.pretrain.tokens_per_row, model.reserved_per_document),
            (steps, domain_size, recipe.pretrain.epochs * seconds_per_epoch),
        )
    ]
    for cell in downstream.cells(recipe, prepared):
        task, parts = prepared.tasks[cell.task], VARIANTS[cell.variant]
        notes = prepared.store.first_documents(task.note_ids_N[task.rows("train")].tolist())
        lengths = prepared.store.lengths_D[notes]
        trained = saved_size * parts.trains_domain + task_size * parts.has_task
        head = Head(backbone.hidden_size, np.zeros(len(task.task.classes), np.float32))
        trained += sum(parameter.numel() for parameter in head.parameters())
        epochs = recipe.downstream.epochs
        seconds = forward if parts.trains_head_alone else backward * epochs
        figures = (
            downstream.step_count(recipe, task, cell.variant),
            trained,
            seconds * float(lengths.sum()),
        )
        reserved = model.reserved_per_document * parts.has_domain
        reserved += reserved_per_document(recipe.downstream.adapter) * parts.has_task
        room = (recipe.downstream.tokens_per_row, reserved)
        stages.append(_stage(cell.label, lengths, room, figures))
    return Plan(tuple(stages), peak_memory_mib())


def _stage(
    name: str, lengths: Int64Array, room: tuple[int, int], figures: tuple[int, int, float]
) -> PlannedStage:
    tokens_per_row, reserved = room
    rows = pack_documents(lengths + reserved, tokens_per_row).row_count
    return PlannedStage(name, len(lengths), int(lengths.sum()), rows, *figures)


def _one_row(recipe: Recipe, prepared: Prepared, documents: Int64Array) -> PackedBatch:
    reserved = reserved_per_document(recipe.pretrain.adapter)
    lengths = prepared.store.lengths_D[documents] + reserved
    packed = pack_documents(lengths, recipe.pretrain.tokens_per_row)
    return read_row(prepared.store, documents[packed.row(0)], recipe.torch_device)


def _seconds_per_token(model: Stack, row: PackedBatch, *, trains: bool) -> float:
    parameters = list(model.parameters_by_name().values())
    restart_peak_memory()
    durations = []
    for _ in range(_TIMED_PASSES + 1):
        started = time.perf_counter()
        with torch.set_grad_enabled(trains):
            loss = model.summed_token_loss(row)
        if trains:
            torch.autograd.grad(loss, parameters)
        loss.item()
        durations.append(time.perf_counter() - started)
    return float(np.median(durations[1:])) / len(row.ids_T)
