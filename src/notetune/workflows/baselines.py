"""Models beside the trained ones: prevalence, words, columns, and the hybrid of several."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from notetune import runs
from notetune.errors import RunError
from notetune.metrics.scores import ScoreTable, read_scores, write_scores
from notetune.model.bundle import save_card
from notetune.plain.bundles import PARTS, ColumnsBundle, HybridCard, WordsBundle, save_stacked
from notetune.plain.linear import FloatArray
from notetune.plain.stacked import fit_stacked
from notetune.workflows import task_models
from notetune.workflows.downstream import Cell, cells
from notetune.workflows.plain_models import ColumnsOfTask, WordsOfTask
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import BaselineName

HYBRID = "hybrid"
PENALTY = "penalty.json"
_SCORED_SPLITS = ("validation", "test")

OutOfFold = Callable[[Recipe, Prepared, Cell], ScoreTable]
"""Scores of the training notes by a cell's model, fitted without their patients each."""


def cells_of(recipe: Recipe, prepared: Prepared, task: str) -> Iterator[Cell]:
    """The baselines of a task; there is a hybrid for each run of its model."""
    for name in recipe.baselines:
        if name != HYBRID:
            yield Cell(task, name, 0)
            continue
        for cell in cells(recipe, prepared):
            if (cell.task, cell.variant) == (task, recipe.hybrid):
                yield Cell(task, HYBRID, cell.seed)


def made_folders(recipe: Recipe, prepared: Prepared, task: str) -> Iterator[Path]:
    """Folders of the baselines of a task that were made as the recipe says now."""
    for cell in cells_of(recipe, prepared, task):
        folder = recipe.folder.cell(task, cell.variant, cell.seed)
        try:
            depends_on = inputs(recipe, prepared, cell)
        except RunError:  # a part of the hybrid is not there
            continue
        if runs.was_made_from(folder, depends_on):
            yield folder


def inputs(recipe: Recipe, prepared: Prepared, cell: Cell) -> dict[str, Any]:
    """What a baseline depends on.

    Raises:
        RunError: If a part of the hybrid is not finished.
    """
    of_cell: dict[str, Any] = {"stage": "baseline", "cell": (cell.task, cell.variant, cell.seed)}
    if cell.variant == HYBRID:
        parts = _parts(recipe, cell).items()
        return {**of_cell, "parts": {name: task_models.upstream(part) for name, part in parts}}
    depends_on = {**of_cell, "prepared": task_models.upstream(prepared.folder)[0]}
    if cell.variant != "prevalence":
        depends_on["min_patients"] = recipe.evaluate.tfidf_min_patients
    if cell.variant == "tf-idf-cut":
        depends_on["max_pieces"] = recipe.downstream.max_pieces
    return depends_on


def score_baselines(recipe: Recipe, prepared: Prepared, task: str) -> None:
    """Fit what no trained model is needed for, and write validation and test scores.

    Raises:
        DataError: If no word is shared by enough patients, or a cell of a column is faulty.
    """
    wanted = dict.fromkeys(recipe.baselines)
    if HYBRID in wanted:
        wanted |= dict.fromkeys(_plain_parts(recipe))
    for name in wanted:
        if name != HYBRID:
            _score_baseline(recipe, prepared, Cell(task, name, 0), name)


def score_hybrid(recipe: Recipe, prepared: Prepared, cell: Cell, out_of_fold: OutOfFold) -> None:
    """Join the finished parts of a hybrid into a bundle with scores, unless that was done.

    Args:
        recipe: The recipe.
        prepared: Its notes.
        cell: The hybrid of a run.
        out_of_fold: Asked for the model of the hybrid.

    Raises:
        RunError: If a part is not finished.
        DataError: If all training notes are of one patient.
    """
    folder = recipe.folder.cell(cell.task, HYBRID, cell.seed)
    depends_on = inputs(recipe, prepared, cell)
    if runs.is_finished(folder, depends_on):
        return
    table, parts = prepared.tasks[cell.task], _parts(recipe, cell)
    learned = [
        _of_training_notes(recipe, prepared, table, name, part)
        for name, part in parts.items()
        if name in _plain_parts(recipe)
    ]
    of_model = out_of_fold(recipe, prepared, _model_of(recipe, cell))
    train = table.rows("train")
    learned.append(of_model.in_note_order(table.note_ids_N[train]).scores_NK)
    stacked = fit_stacked(table.task.kind, learned, table.targets_NK[train])
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
        for name, part in parts.items():
            left_out = shutil.ignore_patterns("*.parquet")  # scores name patients
            shutil.copytree(part, temporary / PARTS / name, ignore=left_out)
        for split in _SCORED_SPLITS:
            if len(rows := table.rows(split)):
                found = [read_scores(part / f"{split}.parquet") for part in parts.values()]
                order = table.note_ids_N[rows]
                scores_NK = stacked.scores([one.in_note_order(order).scores_NK for one in found])
                _write(temporary, table, cell, split, scores_NK)


def _score_baseline(recipe: Recipe, prepared: Prepared, cell: Cell, name: BaselineName) -> None:
    folder = recipe.folder.cell(cell.task, name, 0)
    depends_on, table = inputs(recipe, prepared, cell), prepared.tasks[cell.task]
    if runs.is_finished(folder, depends_on):
        return
    with runs.new_folder(folder, depends_on) as temporary:
        if name == "prevalence":
            prior_K = table.targets_NK[table.rows("train")].mean(0, dtype=np.float64)
            scores: Sequence[FloatArray] = [
                np.tile(prior_K, (len(table.rows(split)), 1)) for split in _SCORED_SPLITS
            ]
        else:
            scores = _fit(recipe, prepared, table, name, temporary)
        for split, scores_NK in zip(_SCORED_SPLITS, scores, strict=True):
            if len(scores_NK):
                _write(temporary, table, cell, split, scores_NK)


def _fit(
    recipe: Recipe, prepared: Prepared, table: TaskTable, name: BaselineName, folder: Path
) -> Sequence[FloatArray]:
    """Write a bundle of words or columns into a folder; its scores on the scored splits."""
    bundle: ColumnsBundle | WordsBundle
    if name == "columns":
        columns = ColumnsOfTask(recipe, prepared, table)
        bundle, penalty = columns.fit()
        scores = [columns.scores(bundle, split) for split in _SCORED_SPLITS]
    else:
        assert name in ("tf-idf", "tf-idf-cut")
        words = WordsOfTask(recipe, prepared, table, name)
        bundle, penalty = words.fit()
        scores = [words.scores(bundle, split) for split in _SCORED_SPLITS]
    save_card(folder, bundle.card)
    bundle.save(folder)
    runs.write_json(folder / PENALTY, asdict(penalty))
    return scores


def _of_training_notes(
    recipe: Recipe, prepared: Prepared, table: TaskTable, name: str, part: Path
) -> FloatArray:
    """`(N, K)` out-of-fold scores of a plain part at its penalty, kept for all runs."""
    folder = part.with_name("out-of-fold")
    path, depends_on = folder / "train.parquet", {"part": task_models.upstream(part)}
    if not runs.is_finished(folder, depends_on):
        penalty = float(runs.read_json(part / PENALTY)["value"])
        if name == "columns":
            scores_NK = ColumnsOfTask(recipe, prepared, table).out_of_fold(penalty)
        else:
            scores_NK = WordsOfTask(recipe, prepared, table, "tf-idf").out_of_fold(penalty)
        with runs.new_folder(folder, depends_on) as temporary:
            _write(temporary, table, Cell(table.task.name, name, 0), "train", scores_NK)
    train = table.note_ids_N[table.rows("train")]
    return read_scores(path).in_note_order(train).scores_NK


def _parts(recipe: Recipe, cell: Cell) -> dict[str, Path]:
    """The finished cells that a hybrid joins, by the names they have in its bundle."""
    model = _model_of(recipe, cell)
    parts = {str(name): recipe.folder.cell(cell.task, name, 0) for name in _plain_parts(recipe)}
    return {**parts, model.variant: recipe.folder.cell(cell.task, model.variant, model.seed)}


def _plain_parts(recipe: Recipe) -> tuple[BaselineName, ...]:
    return ("tf-idf", "columns") if recipe.features else ("tf-idf",)


def _model_of(recipe: Recipe, cell: Cell) -> Cell:
    assert recipe.hybrid is not None
    return Cell(cell.task, recipe.hybrid, cell.seed)


def _write(folder: Path, table: TaskTable, cell: Cell, split: str, scores_NK: FloatArray) -> None:
    rows = table.rows(split)
    scores = ScoreTable(
        table.task.name,
        table.task.kind,
        cell.variant,
        cell.seed,
        split,
        table.task.classes,
        table.note_ids_N[rows],
        table.patient_ids_N[rows],
        table.targets_NK[rows],
        scores_NK,
    )
    write_scores(scores, folder / f"{split}.parquet")
