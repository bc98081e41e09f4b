"""Hybrids: words, columns and a model of step 2, joined by a stack of their scores."""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from notetune import runs
from notetune.metrics.scores import read_scores, write_scores
from notetune.model.bundle import save_card
from notetune.plain.bundles import PARTS, HybridCard, save_stacked
from notetune.plain.stacked import fit_stacked
from notetune.workflows import baselines, heads, task_models
from notetune.workflows.cell import SCORED_SPLITS, Cell, score_table
from notetune.workflows.prepare import Prepared
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import BaselineName


def cells(recipe: Recipe, prepared: Prepared) -> list[Cell]:
    """A hybrid for each task and each run of its model."""
    return [
        Cell(task, name, seed)
        for task in prepared.tasks
        for name, model in recipe.hybrids.items()
        for seed in task_models.seeds(recipe, model)
    ]


def made_cells(recipe: Recipe, prepared: Prepared, trained: Collection[Cell]) -> list[Cell]:
    """The hybrids that were made, of parts that were made, as the recipe says now.

    Args:
        recipe: The recipe.
        prepared: Its notes.
        trained: The cells of step 2 that were.
    """
    return [
        cell
        for cell in cells(recipe, prepared)
        if _model_of(recipe, cell) in trained
        and all(
            baselines.is_made(recipe, prepared, cell.task, name) for name in _plain_parts(recipe)
        )
        and runs.was_made_from(
            recipe.folder.cell(cell.task, cell.variant, cell.seed), _inputs(recipe, cell)
        )
    ]


def _inputs(recipe: Recipe, cell: Cell) -> dict[str, Any]:
    """What a hybrid of finished parts depends on."""
    parts = _parts(recipe, cell).items()
    return {
        "stage": "hybrid",
        "cell": (cell.task, cell.variant, cell.seed),
        "parts": {name: task_models.upstream(part) for name, part in parts},
    }


def join(recipe: Recipe, prepared: Prepared, cell: Cell) -> None:
    """Join the finished model of a hybrid, words and columns into a bundle, unless that was done.

    Raises:
        RunError: If the model is not finished.
        DataError: If all training notes are of one patient, or as of `baselines.score_baseline`.
    """
    for name in _plain_parts(recipe):
        baselines.score_baseline(recipe, prepared, cell.task, name)
    folder = recipe.folder.cell(cell.task, cell.variant, cell.seed)
    depends_on = _inputs(recipe, cell)
    if runs.is_finished(folder, depends_on):
        return
    table, parts = prepared.tasks[cell.task], _parts(recipe, cell)
    rows = table.rows("train")
    learned = [
        baselines.out_of_fold_scores(recipe, prepared, cell.task, name)
        for name in _plain_parts(recipe)
    ]
    of_model = heads.out_of_fold_scores(recipe, prepared, _model_of(recipe, cell))
    learned.append(of_model.in_note_order(table.note_ids_N[rows]).scores_NK)
    stacked = fit_stacked(table.task.kind, learned, table.targets_NK[rows])
    card = HybridCard(
        task=table.task.name,
        kind=table.task.kind,
        classes=table.task.classes,
        seed=cell.seed,
        parts=tuple(parts),
        columns=recipe.features if "columns" in parts else (),
    )
    with runs.new_folder(folder, depends_on) as temporary:
        save_card(temporary, card)
        save_stacked(temporary, stacked)
        for part_name, part in parts.items():
            left_out = shutil.ignore_patterns("*.parquet")  # scores name patients
            shutil.copytree(part, temporary / PARTS / part_name, ignore=left_out)
        for split in SCORED_SPLITS:
            if len(rows := table.rows(split)):
                found = [read_scores(part / f"{split}.parquet") for part in parts.values()]
                order = table.note_ids_N[rows]
                scores_NK = stacked.scores([one.in_note_order(order).scores_NK for one in found])
                joined = score_table(table, cell, split, scores_NK)
                write_scores(joined, temporary / f"{split}.parquet")


def _parts(recipe: Recipe, cell: Cell) -> dict[str, Path]:
    """The cells that a hybrid joins, by the names they have in its bundle."""
    model = _model_of(recipe, cell)
    parts = {str(name): recipe.folder.cell(cell.task, name, 0) for name in _plain_parts(recipe)}
    return {**parts, model.variant: recipe.folder.cell(cell.task, model.variant, model.seed)}


def _plain_parts(recipe: Recipe) -> tuple[BaselineName, ...]:
    return ("tf-idf", "columns") if recipe.features else ("tf-idf",)


def _model_of(recipe: Recipe, cell: Cell) -> Cell:
    return Cell(cell.task, recipe.hybrids[cell.variant], cell.seed)
