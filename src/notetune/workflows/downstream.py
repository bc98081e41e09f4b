"""Step 2: one cell is one variant trained in one run on one task."""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notetune import runs
from notetune.metrics.ranking import auroc_scores
from notetune.model.losses import balanced_weights, outcome_loss, probabilities
from notetune.model.stack import DOMAIN
from notetune.train.batches import LabelledBatch, shuffled_steps
from notetune.train.checkpoints import STEPS
from notetune.train.choice import Choice
from notetune.train.logistic import Solution
from notetune.train.optim import adamw
from notetune.workflows import task_models
from notetune.workflows.cell import SCORED_SPLITS, Cell, TrainedCell
from notetune.workflows.features import StackFeatures
from notetune.workflows.heads import solved_cell
from notetune.workflows.prepare import Prepared, labels_digest
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.progress import Track, silent
from notetune.workflows.provenance import stop_at_known_patients
from notetune.workflows.recipe import Recipe
from notetune.workflows.training import (
    Kept,
    Training,
    TrainingRecord,
    Watch,
    fit,
    write_record,
)
from notetune.workflows.variants import variant_of


def cells(recipe: Recipe, prepared: Prepared) -> list[Cell]:
    """All cells of a recipe, task by task."""
    return [
        Cell(task, name, seed)
        for task in prepared.tasks
        for name in task_models.names(recipe)
        for seed in task_models.seeds(recipe, name)
    ]


def inputs(recipe: Recipe, prepared: Prepared, cell: Cell) -> dict[str, Any]:
    """What a cell depends on."""
    of_model = task_models.inputs(recipe, prepared, cell.variant, cell.seed)
    labels = labels_digest(prepared, cell.task)
    return {**of_model, "cell": (cell.task, cell.variant, cell.seed), "labels": labels}


def trained_cells(recipe: Recipe, prepared: Prepared) -> tuple[Cell, ...]:
    """The cells that were trained as the recipe says now, on what stands in the run folder."""
    of_recipe = cells(recipe, prepared)
    ready = {
        of_model
        for of_model in {(cell.variant, cell.seed) for cell in of_recipe}
        if task_models.is_ready(recipe, prepared, *of_model)
    }
    return tuple(
        cell
        for cell in of_recipe
        if (cell.variant, cell.seed) in ready
        and runs.was_made_from(
            recipe.folder.cell(cell.task, cell.variant, cell.seed), inputs(recipe, prepared, cell)
        )
    )


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
    if variant_of(cell.variant).has_domain:
        stop_at_known_patients(recipe, prepared, recipe.folder.domain(cell.seed))
    with (
        runs.work_folder(folder, depends_on) as work,
        runs.new_folder(folder, depends_on) as temporary,
    ):
        trained, solution, record = solved_cell(recipe, prepared, cell, track)
        if not trained.plan.parts.trains_head_alone:
            training = _CellTraining(recipe, prepared, trained, solution)
            record = replace(training.fit(work, track), head=record.head)
            shutil.copyfile(work / STEPS, temporary / STEPS)
            if record.kept_steps:  # else nothing was better than the head that it started from
                trained = training.trained
        trained.save(temporary)
        write_record(temporary / TRAINING, record)
        for split in SCORED_SPLITS:
            trained.write_scores(split, temporary)


class _CellTraining:
    """Adapters and head of one cell while they train, from the solved head on."""

    def __init__(
        self, recipe: Recipe, prepared: Prepared, start: TrainedCell, solution: Solution
    ) -> None:
        self._recipe, self._prepared, self._start = recipe, prepared, start
        self._cell, self._plan, self._task = start.cell, start.plan, start.task
        self._documents_N = start.documents_N
        self._features = StackFeatures(recipe, self._plan, start.cell.seed)
        self._head = solution.head(standardises=True).to(recipe.torch_device)
        self._weights_2K = self._class_weights()

    @property
    def trained(self) -> TrainedCell:
        """The cell as it is now, its head a plain linear layer."""
        return replace(self._start, features=self._features, head=self._head.folded())

    def _class_weights(self) -> Tensor | None:
        if self._recipe.downstream.class_weights == "none":
            return None
        targets_NK = self._task.targets_NK[self._task.rows("train")]
        weights_2K = balanced_weights(self._task.task.kind, targets_NK)
        return torch.from_numpy(weights_2K).to(self._recipe.torch_device)

    def fit(self, work: Path, track: Track) -> TrainingRecord:
        """Train head and adapters on the training notes, then check the stack."""
        notes = self._documents_N[self._task.rows("train")]
        self._features.check(notes, only_frozen=True)
        self._features.train_mode()
        adapters = self._features.parameters_by_name()
        head = dict(self._head.named_parameters(prefix="head"))
        parameters = {**adapters, **head}
        choice, why = self._choice(parameters)
        training = self._training(adapters, head, choice)
        watch = Watch(_size(parameters), self._features.about.parameters + _size(head))
        fit(training, work, self._recipe.checkpoint_minutes, watch, track)
        steps = choice.best_steps if choice else training.step_count
        if steps:  # else the adapters are as they started
            self._features.check(notes)
        return replace(watch.record(), kept=Kept(steps, why, choice.evaluations if choice else ()))

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
        return Training(
            label=cell.label,
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
            tokens_per_target=plan.store.reading(notes, plan.max_pieces).tokens_N.mean(),
            choice=choice,
        )

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
        logits_NK = self.trained.logits(rows)
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
        logits = self._head(self._features.of(batch.inputs))
        return self._loss(logits, batch.targets_NK)

    def _loss(self, logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        kind, device = self._task.task.kind, logits_NK.device
        return outcome_loss(kind, logits_NK, targets_NK.to(device), self._weights_2K)


def _size(parameters: Mapping[str, nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters.values())
