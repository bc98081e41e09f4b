"""Step 2: one cell is one variant trained with one seed on one task."""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notetune import runs
from notetune.metrics.ranking import auroc_scores
from notetune.metrics.scores import ScoreTable, write_scores
from notetune.model.bundle import BundleCard, save_card, save_head
from notetune.model.heads import Head, log_prior
from notetune.model.losses import balanced_weights, outcome_loss, probabilities
from notetune.model.stack import DOMAIN
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import Reading
from notetune.train.batches import LabelledBatch, shuffled_steps
from notetune.train.checkpoints import STEPS
from notetune.train.choice import Choice
from notetune.train.optim import adamw
from notetune.workflows import task_models
from notetune.workflows.features import note_features
from notetune.workflows.prepare import Prepared
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.progress import Track, silent
from notetune.workflows.provenance import stop_at_known_patients
from notetune.workflows.recipe import Recipe
from notetune.workflows.task_models import TaskModel
from notetune.workflows.training import (
    Kept,
    Training,
    TrainingRecord,
    Watch,
    fit,
    write_record,
)

_SCORED_SPLITS = ("validation", "test")
_HEAD_FIRST = "head-first"


@dataclass(frozen=True)
class Cell:
    """What is trained: a model of `task_models`, on a task, with a seed."""

    task: str
    variant: str
    seed: int

    @property
    def label(self) -> str:
        """How progress and errors name it."""
        return f"{self.task} · {self.variant} · seed {self.seed}"


def cells(recipe: Recipe, prepared: Prepared) -> list[Cell]:
    """All cells of a recipe, task by task."""
    return [
        Cell(task, name, seed)
        for task in prepared.tasks
        for name in task_models.names(recipe)
        for seed in recipe.downstream.seeds
    ]


def inputs(recipe: Recipe, prepared: Prepared, cell: Cell) -> dict[str, Any]:
    """What a cell depends on."""
    of_model = task_models.inputs(recipe, prepared, cell.variant)
    return {**of_model, "cell": (cell.task, cell.variant, cell.seed)}


def trained_cells(recipe: Recipe, prepared: Prepared) -> tuple[Cell, ...]:
    """The cells that were trained as the recipe says now, on what stands in the run folder."""
    ready = {n for n in task_models.names(recipe) if task_models.is_ready(recipe, prepared, n)}
    return tuple(
        cell
        for cell in cells(recipe, prepared)
        if cell.variant in ready
        and runs.was_made_from(
            recipe.folder.cell(cell.task, cell.variant, cell.seed), inputs(recipe, prepared, cell)
        )
    )


def downstream(recipe: Recipe, prepared: Prepared, cell: Cell, track: Track = silent) -> None:
    """Train a cell into its bundle with scores, unless it was trained from the same inputs.

    Raises:
        DataError: If the domain adapter or the encoder has read notes of test patients.
        BundleError: If an adapter of the stack does not act, or a frozen one has changed.
        TrainingError: If the loss is not finite.
    """
    folder = recipe.folder.cell(cell.task, cell.variant, cell.seed)
    depends_on = inputs(recipe, prepared, cell)
    if runs.is_finished(folder, depends_on):
        return
    if (pretrained := task_models.pretrained_folder(recipe, cell.variant)) is not None:
        stop_at_known_patients(recipe, prepared, pretrained)
    with (
        runs.work_folder(folder, depends_on) as work,
        runs.new_folder(folder, depends_on) as temporary,
    ):
        plan = task_models.task_model(recipe, prepared, cell.variant)
        head, head_seconds = _fit_head_first(
            recipe, prepared, cell, plan, work / _HEAD_FIRST, track
        )
        trained = _CellTraining(recipe, prepared, cell, plan, head)
        record = trained.fit(work, track)
        record = replace(record, head_first_seconds=head_seconds)
        trained.save(temporary)
        write_record(temporary / TRAINING, record)
        shutil.copyfile(work / STEPS, temporary / STEPS)
        for split in _SCORED_SPLITS:
            table = trained.scores(split)
            if table is not None:
                write_scores(table, temporary / f"{split}.parquet", trained.reading(split).columns)


def _fit_head_first(
    recipe: Recipe, prepared: Prepared, cell: Cell, plan: TaskModel, work: Path, track: Track
) -> tuple[Head | None, float]:
    """A head trained on the model as it starts, if it is to be, and the seconds that took.

    The model that trains with it comes into memory afterwards only.
    """
    if plan.as_it_starts is None or not recipe.downstream.head_first:
        return None, 0.0
    runs.make_folder(work)
    head_alone = _CellTraining(recipe, prepared, cell, plan.as_it_starts)
    return head_alone.head, head_alone.fit(work, track).seconds


class _CellTraining:
    """One cell while it is trained and scored.

    Attributes:
        head: What learns in every variant.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        cell: Cell,
        plan: TaskModel,
        head: Head | None = None,
    ) -> None:
        self._recipe, self._prepared, self._cell, self._plan = recipe, prepared, cell, plan
        self._task = prepared.tasks[cell.task]
        self._documents_N = plan.store.first_documents(self._task.note_ids_N.tolist())
        self._features = note_features(recipe, prepared, plan, cell.seed)
        self.head = head or self._new_head()
        self._weights_2K = self._class_weights()

    def _new_head(self) -> Head:
        prior = log_prior(self._task.task.kind, self._task.targets_NK[self._task.rows("train")])
        head = Head(self._features.about.hidden_size, prior, self._cell.seed)
        return head.to(self._recipe.torch_device)

    def _class_weights(self) -> Tensor | None:
        if self._recipe.downstream.class_weights == "none":
            return None
        targets_NK = self._task.targets_NK[self._task.rows("train")]
        weights_2K = balanced_weights(self._task.task.kind, targets_NK)
        return torch.from_numpy(weights_2K).to(self._recipe.torch_device)

    def fit(self, work: Path, track: Track) -> TrainingRecord:
        """Train head and adapters on the training notes, then check the stack."""
        recipe, features = self._recipe, self._features
        notes = self._documents_N[self._task.rows("train")]
        features.check(notes, only_frozen=True)
        features.train_mode()
        adapters = features.parameters_by_name()
        head = dict(self.head.named_parameters(prefix="head"))
        parameters = {**adapters, **head}
        choice, why = self._choice(parameters)
        training = self._training(adapters, head, choice)
        watch = Watch(_size(parameters), features.about.parameters + _size(head))
        fit(training, work, recipe.checkpoint_minutes, watch, track)
        features.check(notes)
        kept = Kept(choice.best_steps, why, choice.evaluations) if choice else None
        record = watch.record()
        return replace(record, kept=kept or Kept(training.step_count, why))

    def _training(
        self,
        adapters: Mapping[str, nn.Parameter],
        head: Mapping[str, nn.Parameter],
        choice: Choice | None,
    ) -> Training[LabelledBatch]:
        cell, plan = self._cell, self._plan
        notes = self._documents_N[self._task.rows("train")]
        domain = {n: p for n, p in adapters.items() if n.startswith(f"{DOMAIN}.")}
        task = {n: p for n, p in adapters.items() if n not in domain}
        tokens_N = plan.store.reading(notes, plan.max_pieces).tokens_N
        return Training(
            label=cell.label if adapters else f"{cell.label} · head",
            inputs=inputs(self._recipe, self._prepared, cell),
            store=plan.store,
            parameters={**adapters, **head},
            optimizer=adamw(
                plan.optim,
                (domain.values(), plan.domain_lr),
                (task.values(), plan.optim.peak_lr),
                (head.values(), plan.head_lr),
            ),
            optim=plan.optim,
            rows=lambda first_step: self._labelled_steps(plan.optim.targets_per_step, first_step),
            summed_loss=self._summed_loss,
            step_count=plan.step_count(self._task),
            seed=cell.seed,
            unit="notes",
            tokens_per_target=tokens_N.mean() if adapters else 0,
            choice=choice,
        )

    def scores(self, split: str) -> ScoreTable | None:
        """Probabilities on one split; None if the task has no note there."""
        rows = self._task.rows(split)
        if not len(rows):
            return None
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
            probabilities(kind, self._note_logits(rows)).double().numpy(),
        )

    def reading(self, split: str) -> Reading:
        """How much is read of the notes of one split."""
        documents_N = self._documents_N[self._task.rows(split)]
        return self._plan.store.reading(documents_N, self._plan.max_pieces)

    def save(self, folder: Path) -> None:
        """Write the trained cell as a bundle into an existing folder."""
        task, about = self._task.task, self._features.about
        card = BundleCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            variant=self._cell.variant,
            seed=self._cell.seed,
            pooling=self._plan.pooling,
            max_tokens=self._plan.max_tokens,
            max_pieces=self._plan.max_pieces,
            **asdict(self._plan.store.edges),
            backbone_name=about.backbone,
            backbone_fingerprint=about.fingerprint,
            dtype=about.dtype,
            adapters=about.adapters,
        )
        save_card(folder, card)
        self._features.save_adapters(folder)
        save_head(folder, self.head)

    def _choice(self, parameters: dict[str, nn.Parameter]) -> tuple[Choice | None, str]:
        """What keeps the best state, if the validation notes can tell; and why it is that one."""
        config, plan, task = self._recipe.downstream, self._plan, self._task
        targets_NK = task.targets_NK[task.rows("validation")]
        if not len(targets_NK):
            return None, "last: the task has no validation notes"
        if config.choose == "auroc" and not (targets_NK.any(0) & ~targets_NK.all(0)).any():
            return None, "last: no label has both values among the validation notes"
        choice = Choice(
            config, parameters, self._evaluate, plan.steps_per_epoch(task), plan.step_count(task)
        )
        why = {"auroc": "highest validation AUROC", "loss": "lowest validation loss"}
        return choice, why[config.choose]

    def _evaluate(self) -> tuple[float, float | None]:
        """Loss and macro AUROC on the validation notes."""
        kind, rows = self._task.task.kind, self._task.rows("validation")
        targets_NK = self._task.targets_NK[rows]
        logits_NK = self._note_logits(rows)
        self._features.train_mode()
        summed = self._loss(logits_NK.to(self._recipe.torch_device), torch.from_numpy(targets_NK))
        loss = summed.item() / len(rows)
        if not math.isfinite(loss):
            return loss, None
        aurocs_K = auroc_scores(targets_NK, probabilities(kind, logits_NK).double().numpy())
        is_defined_K = ~np.isnan(aurocs_K)
        return loss, float(aurocs_K[is_defined_K].mean()) if is_defined_K.any() else None

    def _labelled_steps(
        self, notes_per_step: int, first_step: int
    ) -> Iterator[list[LabelledBatch]]:
        rows = self._task.rows("train")
        steps = shuffled_steps(len(rows), notes_per_step, self._cell.seed, first_step)
        targets_NK = self._task.targets_NK[rows]
        return self._features.steps(self._documents_N[rows], targets_NK, steps)

    def _summed_loss(self, batch: LabelledBatch) -> Tensor:
        logits = self.head(self._features.of(batch.inputs))
        return self._loss(logits, batch.targets_NK)

    def _loss(self, logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        kind, device = self._task.task.kind, logits_NK.device
        return outcome_loss(kind, logits_NK, targets_NK.to(device), self._weights_2K)

    @torch.no_grad()
    def _note_logits(self, rows: Int64Array) -> Tensor:
        """`(N, K)` logits of notes, on the host."""
        logits: Tensor = self.head(self._features.of_notes(self._documents_N[rows]))
        return logits.cpu()


def _size(parameters: Mapping[str, nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters.values())
