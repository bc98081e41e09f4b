"""Models without a language model: prevalence, words, and columns beside the text."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from notetune import runs
from notetune.metrics.scores import read_scores, write_scores
from notetune.model.bundle import save_card
from notetune.plain.bundles import ColumnsBundle, WordsBundle
from notetune.plain.linear import FloatArray
from notetune.workflows import task_models
from notetune.workflows.cell import SCORED_SPLITS, Cell, score_table
from notetune.workflows.plain_models import ColumnsOfTask, WordsOfTask
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import BaselineName

_PENALTY = "penalty.json"


def inputs(recipe: Recipe, prepared: Prepared, task: str, name: BaselineName) -> dict[str, Any]:
    """What a baseline depends on."""
    depends_on: dict[str, Any] = {
        "stage": "baseline",
        "cell": (task, name),
        "prepared": task_models.upstream(prepared.folder)[0],
    }
    if name != "prevalence":
        depends_on["min_patients"] = recipe.evaluate.tfidf_min_patients
    if name == "tf-idf-cut":
        depends_on["max_pieces"] = prepared.max_pieces(recipe)
    return depends_on


def is_made(recipe: Recipe, prepared: Prepared, task: str, name: BaselineName) -> bool:
    """Whether a baseline was made as the recipe says now."""
    folder = recipe.folder.cell(task, name, 0)
    return runs.was_made_from(folder, inputs(recipe, prepared, task, name))


def score_baseline(recipe: Recipe, prepared: Prepared, task: str, name: BaselineName) -> None:
    """Fit a baseline and write its validation and test scores, unless that was done.

    Raises:
        DataError: If no word is shared by enough patients, or a cell of a column is faulty.
    """
    folder = recipe.folder.cell(task, name, 0)
    depends_on, table = inputs(recipe, prepared, task, name), prepared.tasks[task]
    if runs.is_finished(folder, depends_on):
        return
    with runs.new_folder(folder, depends_on) as temporary:
        if name == "prevalence":
            prior_K = table.targets_NK[table.rows("train")].mean(0, dtype=np.float64)
            scores: Sequence[FloatArray] = [
                np.tile(prior_K, (len(table.rows(split)), 1)) for split in SCORED_SPLITS
            ]
        else:
            scores = _fit(recipe, prepared, table, name, temporary)
        for split, scores_NK in zip(SCORED_SPLITS, scores, strict=True):
            if len(scores_NK):
                found = score_table(table, Cell(task, name, 0), split, scores_NK)
                write_scores(found, temporary / f"{split}.parquet")


def out_of_fold_scores(
    recipe: Recipe, prepared: Prepared, task: str, name: BaselineName
) -> FloatArray:
    """`(N, K)` scores of the training notes at a finished baseline's penalty, kept for all runs.

    Features and weights come from other patients than a note's each.
    """
    part, table = recipe.folder.cell(task, name, 0), prepared.tasks[task]
    folder = part.with_name("out-of-fold")
    path, depends_on = folder / "train.parquet", {"part": task_models.upstream(part)}
    if not runs.is_finished(folder, depends_on):
        penalty = float(runs.read_json(part / _PENALTY)["value"])
        of_task = _of_task(recipe, prepared, table, name)
        scores = score_table(table, Cell(task, name, 0), "train", of_task.out_of_fold(penalty))
        with runs.new_folder(folder, depends_on) as temporary:
            write_scores(scores, temporary / path.name)
    train = table.note_ids_N[table.rows("train")]
    return read_scores(path).in_note_order(train).scores_NK


def _fit(
    recipe: Recipe, prepared: Prepared, table: TaskTable, name: BaselineName, folder: Path
) -> Sequence[FloatArray]:
    """Write a bundle of words or columns into a folder; its scores on the scored splits."""
    bundle: ColumnsBundle | WordsBundle
    of_task = _of_task(recipe, prepared, table, name)
    if isinstance(of_task, ColumnsOfTask):
        bundle, penalty = of_task.fit()
        scores = [of_task.scores(bundle, split) for split in SCORED_SPLITS]
    else:
        bundle, penalty = of_task.fit()
        scores = [of_task.scores(bundle, split) for split in SCORED_SPLITS]
    save_card(folder, bundle.card)
    bundle.save(folder)
    runs.write_json(folder / _PENALTY, asdict(penalty))
    return scores


def _of_task(
    recipe: Recipe, prepared: Prepared, table: TaskTable, name: BaselineName
) -> ColumnsOfTask | WordsOfTask:
    if name == "columns":
        return ColumnsOfTask(recipe, prepared, table)
    assert name in ("tf-idf", "tf-idf-cut")
    return WordsOfTask(recipe, prepared, table, name)
