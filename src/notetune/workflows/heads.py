"""Heads on features that no training changes: solved, and scored on notes they did not see."""

import time

from notetune.metrics.scores import ScoreTable
from notetune.tokens.packing import Int64Array
from notetune.train.logistic import HeadProblem, LabelledNotes, Solution, out_of_fold
from notetune.workflows import task_models
from notetune.workflows.cell import Cell, TrainedCell, score_table
from notetune.workflows.features import FixedFeatures
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.progress import Track, silent
from notetune.workflows.recipe import Recipe
from notetune.workflows.training import (
    HeadRecord,
    TrainingRecord,
    peak_memory_mib,
    read_record,
    restart_peak_memory,
)


def solved_cell(
    recipe: Recipe, prepared: Prepared, cell: Cell, track: Track = silent
) -> tuple[TrainedCell, Solution, TrainingRecord]:
    """Solve the head of a cell: that is all of it, or what its adapters start from.

    Raises:
        BundleError: If an adapter of the stack does not act.
        DataError: If a feature is not a number.
    """
    plan, task = task_models.task_model(recipe, prepared, cell.variant), prepared.tasks[cell.task]
    documents_N = plan.store.first_documents(task.note_ids_N.tolist())
    features = FixedFeatures(recipe, prepared, plan.as_it_starts, cell.seed, track)
    restart_peak_memory()
    started = time.perf_counter()
    train, validation = (
        _notes(task, split, features, documents_N) for split in ("train", "validation")
    )
    problem = HeadProblem(train, task.task.kind, balanced=_is_balanced(recipe))
    found = problem.along_path(validation)
    seconds = time.perf_counter() - started
    size = found.weight_KH.numel() + found.bias_K.numel()
    record = TrainingRecord(
        steps=0,
        trainable_parameters=size,
        total_parameters=features.about.parameters + size,
        seconds=0.0,
        tokens=0,
        peak_memory_mib=peak_memory_mib(),
        curve=(),
        head=HeadRecord(found.penalty, found.why, found.path, found.constant, seconds),
    )
    head = found.head().to(recipe.torch_device)
    return TrainedCell(cell, plan, task, documents_N, features, head), found, record


def out_of_fold_scores(recipe: Recipe, prepared: Prepared, cell: Cell) -> ScoreTable:
    """Scores of the training notes of a finished cell, each by a head that saw none of its patient.

    Features must be the same for every fold, so nothing but the head may train in the cell.

    Raises:
        RunError: If the cell is not finished.
        DataError: If all training notes are of one patient.
    """
    record = read_record(recipe.folder.cell(cell.task, cell.variant, cell.seed) / TRAINING)
    plan, task = task_models.task_model(recipe, prepared, cell.variant), prepared.tasks[cell.task]
    assert plan.parts.trains_head_alone
    assert record.head is not None
    documents_N = plan.store.first_documents(task.note_ids_N.tolist())
    features = FixedFeatures(recipe, prepared, plan, cell.seed)
    scores_NK = out_of_fold(
        _notes(task, "train", features, documents_N),
        task.patient_ids_N[task.rows("train")],
        task.task.kind,
        record.head.penalty,
        balanced=_is_balanced(recipe),
    )
    return score_table(task, cell, "train", scores_NK)


def _notes(
    task: TaskTable, split: str, features: FixedFeatures, documents_N: Int64Array
) -> LabelledNotes:
    rows = task.rows(split)
    return LabelledNotes(features.of_notes(documents_N[rows]), task.targets_NK[rows])


def _is_balanced(recipe: Recipe) -> bool:
    return recipe.downstream.class_weights == "balanced"
