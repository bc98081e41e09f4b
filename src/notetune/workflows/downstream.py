"""Step 2: one cell is one variant trained with one seed on one task."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from notetune import infer, runs
from notetune.metrics.scores import ScoreTable, write_scores
from notetune.model.adapters import read_adapter
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.batch import PackedBatch
from notetune.model.bundle import Bundle, BundleCard, save_bundle
from notetune.model.heads import Head, log_prior
from notetune.model.losses import outcome_loss, probabilities
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.tokens.packing import Int64Array
from notetune.train.batches import LabelledBatch, labelled_rows, read_row, shuffled_steps
from notetune.train.loop import Step, train
from notetune.train.optim import OptimConfig, adamw
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.progress import Track, silent
from notetune.workflows.provenance import stop_at_known_patients
from notetune.workflows.recipe import VARIANTS, Recipe, VariantName
from notetune.workflows.training import TrainingRecord, Watch, write_record

_SCORED_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Cell:
    """What is trained: a variant, on a task, with a seed."""

    task: str
    variant: VariantName
    seed: int

    @property
    def label(self) -> str:
        """How progress and errors name it."""
        return f"{self.task} · {self.variant} · seed {self.seed}"


def cells(recipe: Recipe, prepared: Prepared) -> list[Cell]:
    """All cells of a recipe, task by task."""
    config = recipe.downstream
    return [
        Cell(task, variant, seed)
        for task in prepared.tasks
        for variant in config.variants
        for seed in config.seeds
    ]


def inputs(recipe: Recipe, prepared: Prepared, cell: Cell) -> dict[str, Any]:
    """What a cell depends on."""
    upstream = recipe.folder.domain if VARIANTS[cell.variant].has_domain else prepared.folder
    config = recipe.downstream.model_dump(mode="json", exclude={"variants", "seeds", "tasks"})
    return {
        "stage": "downstream",
        "upstream": runs.read_json(upstream / runs.MANIFEST)["files"],
        "dtype": recipe.dtype,
        "config": config,
        "cell": (cell.task, cell.variant, cell.seed),
    }


def downstream(recipe: Recipe, prepared: Prepared, cell: Cell, track: Track = silent) -> None:
    """Train a cell into its bundle with scores, unless it was trained from the same inputs.

    Raises:
        DataError: If the domain adapter has read notes of test patients.
        BundleError: If an adapter of the stack does not act, or a frozen one has changed.
        TrainingError: If the loss is not finite.
    """
    folder = recipe.folder.cell(cell.task, cell.variant, cell.seed)
    depends_on = inputs(recipe, prepared, cell)
    if runs.is_finished(folder, depends_on):
        return
    if VARIANTS[cell.variant].has_domain:
        stop_at_known_patients(recipe, prepared)
    with runs.new_folder(folder, depends_on) as temporary:
        trained = _Training(recipe, prepared, cell)
        record = trained.fit(track)
        bundle = trained.bundle()
        save_bundle(temporary, bundle)
        write_record(temporary / TRAINING, record)
        for split in _SCORED_SPLITS:
            table = trained.scores(split)
            if table is not None:
                write_scores(table, temporary / f"{split}.parquet")


def step_count(recipe: Recipe, task: TaskTable, variant: VariantName) -> int:
    """Steps of one cell."""
    optim, epochs = _schedule(recipe, variant)
    steps_per_epoch = math.ceil(len(task.rows("train")) / optim.targets_per_step)
    return max(1, round(epochs * steps_per_epoch))


def new_stack(recipe: Recipe, backbone: Backbone, variant: VariantName, seed: int) -> Stack:
    """The stack of a variant before its training; the domain adapter comes from the run folder."""
    parts = VARIANTS[variant]
    layers = []
    if parts.has_domain:
        saved = read_adapter(recipe.folder.domain)
        layers.append(Layer(DOMAIN, saved, is_trained=parts.trains_domain))
    if parts.has_task:
        layers.append(Layer(TASK, recipe.downstream.adapter, is_trained=True))
    return stack(backbone, layers, seed)


def _schedule(recipe: Recipe, variant: VariantName) -> tuple[OptimConfig, float]:
    config = recipe.downstream
    if VARIANTS[variant].trains_head_alone:
        return config.head_optim, config.head_epochs
    return config.optim, config.epochs


class _Training:
    """One cell while it is trained and scored."""

    def __init__(self, recipe: Recipe, prepared: Prepared, cell: Cell) -> None:
        self._recipe, self._prepared, self._cell = recipe, prepared, cell
        self._task = prepared.tasks[cell.task]
        self._documents_N = prepared.store.first_documents(self._task.note_ids_N.tolist())
        backbone = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
        self._model = new_stack(recipe, backbone, cell.variant, cell.seed)
        prior = log_prior(self._task.task.kind, self._task.targets_NK[self._task.rows("train")])
        self._head = Head(backbone.hidden_size, prior, cell.seed).to(backbone.device)

    def fit(self, track: Track) -> TrainingRecord:
        """Train head and adapters on the training notes, then check the stack."""
        optim, _ = _schedule(self._recipe, self._cell.variant)
        last_step = step_count(self._recipe, self._task, self._cell.variant)
        head_lr = self._recipe.downstream.head_optim.peak_lr
        self._model.train_mode()
        head = list(self._head.parameters())
        head_size = sum(parameter.numel() for parameter in head)
        model = self._model
        watch = Watch(model.trainable_count + head_size, model.total_count + head_size)
        steps = train(
            self._labelled_steps(optim.targets_per_step),
            self._summed_loss,
            adamw(optim, (model.parameters_by_name().values(), optim.peak_lr), (head, head_lr)),
            lambda number: optim.schedule(number, last_step),
            step_count=last_step,
            max_grad_norm=optim.max_grad_norm,
        )
        notes = self._documents_N[self._task.rows("train")]
        is_head_alone = VARIANTS[self._cell.variant].trains_head_alone
        tokens_per_note = 0 if is_head_alone else self._prepared.store.lengths_D[notes].mean()
        for step in track(self._cell.label, steps, last_step, _describe):
            watch.see(step, tokens=round(step.targets * tokens_per_note))
        self._model.check(read_row(self._prepared.store, notes[:4], self._model.backbone.device))
        return watch.record()

    def scores(self, split: str) -> ScoreTable | None:
        """Probabilities on one split; None if the task has no note there."""
        rows = self._task.rows(split)
        if not len(rows):
            return None
        logits = self._per_note(rows, self._logits)
        kind = self._task.task.kind
        return ScoreTable(
            self._task.task.name,
            kind,
            self._cell.variant,
            self._cell.seed,
            split,
            self._task.task.classes,
            self._task.note_ids_N[rows],
            self._task.patient_ids_N[rows],
            self._task.targets_NK[rows],
            probabilities(kind, torch.from_numpy(logits)).double().numpy(),
        )

    def bundle(self) -> Bundle:
        """The trained cell as it is saved."""
        task, backbone = self._task.task, self._model.backbone
        card = BundleCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            variant=self._cell.variant,
            seed=self._cell.seed,
            pooling=self._recipe.downstream.pooling,
            max_tokens=self._recipe.prepare.max_tokens,
            backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint,
            dtype=backbone.dtype,
            adapters=tuple(layer.name for layer in self._model.layers),
        )
        return Bundle(card, self._model, self._head)

    def _labelled_steps(self, notes_per_step: int) -> Iterator[list[LabelledBatch]]:
        rows = self._task.rows("train")
        targets_NK = self._task.targets_NK[rows]
        steps = shuffled_steps(len(rows), notes_per_step, self._cell.seed)
        device = self._model.backbone.device
        if VARIANTS[self._cell.variant].trains_head_alone:
            features = torch.from_numpy(self._per_note(rows, self._features)).to(device)
            targets = torch.from_numpy(targets_NK).to(device)
            return ([LabelledBatch(features[notes], targets[notes])] for notes in steps)
        return labelled_rows(
            self._prepared.store,
            self._documents_N[rows],
            targets_NK,
            steps,
            tokens_per_row=self._recipe.downstream.tokens_per_row,
            reserved_per_document=self._model.reserved_per_document,
            device=device,
        )

    def _summed_loss(self, batch: LabelledBatch) -> Tensor:
        inputs = batch.inputs
        logits = self._logits(inputs) if isinstance(inputs, PackedBatch) else self._head(inputs)
        return outcome_loss(self._task.task.kind, logits, batch.targets_NK)

    def _features(self, batch: PackedBatch) -> Tensor:
        return self._model.features(batch, self._recipe.downstream.pooling)

    def _logits(self, batch: PackedBatch) -> Tensor:
        return self._model.logits(self._head, batch, self._recipe.downstream.pooling)

    def _per_note(self, rows: Int64Array, forward: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        return infer.outputs_per_document(
            self._model,
            forward,
            self._prepared.store,
            self._documents_N[rows],
            self._recipe.downstream.tokens_per_row,
        )


def _describe(step: Step) -> str:
    return f"loss {step.loss:.3f} · {step.targets / step.seconds:,.0f} notes/s"
