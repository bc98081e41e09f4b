"""Step 2 keeps the best state on the validation notes, stopped on the way or not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from one_job import model_job, run
from sklearn.metrics import log_loss, roc_auc_score
from small_study import small_study

from notetune import config
from notetune.metrics.scores import read_scores
from notetune.study import step2
from notetune.study.recipe import Recipe
from notetune.study.run import prepare_notes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = small_study(tmp_path_factory.mktemp("choice"))
    settings = [
        "downstream.evaluations_per_epoch=1",
        "downstream.epochs=4",
        "downstream.head_lr=1",
        "downstream.optim.peak_lr=0.1",
    ]
    recipe = config.load(Recipe, folder / "recipe.yaml", settings)
    return recipe, prepare_notes(recipe).prepared


def record_of(job):
    return json.loads((job.folder / "training.json").read_text())


@pytest.mark.parametrize("choose", ["auroc", "loss"])
@pytest.mark.parametrize("variant", ["task-lora", "domain-trainable+task-lora"])
def test_the_scores_are_those_of_the_state_that_was_kept(prepared, variant, choose):
    recipe, _ = prepared
    changes = {"choose": choose, "patience": None}
    recipe = recipe.model_copy(update={"downstream": recipe.downstream.model_copy(update=changes)})
    job = model_job(recipe, "died", variant)
    run(recipe, job)
    record = record_of(job)
    kept = record["kept"]
    evaluations = kept["evaluations"]
    if choose == "auroc":
        best = max(evaluations, key=lambda one: (one["auroc"], -one["loss"]))
    else:
        best = min(evaluations, key=lambda one: one["loss"])
    assert kept["steps"] == best["steps"] <= record["steps"]
    assert evaluations[-1]["steps"] == record["steps"]
    table = read_scores(job.folder / "validation.parquet")
    assert roc_auc_score(table.targets_NK, table.scores_NK) == pytest.approx(best["auroc"])
    loss = log_loss(table.targets_NK[:, 0], table.scores_NK[:, 0])
    assert loss == pytest.approx(best["loss"], abs=1e-6)  # scores are rounded near 0 and 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda task, is_validation: ("test", None), "the task has no validation notes"),
        (lambda task, is_validation: (None, 0), "no label has both values"),
    ],
)
def test_without_a_choice_the_last_state_is_kept_and_it_says_so(prepared, change, why):
    recipe, opened = prepared
    task = opened.tasks["died"]
    is_validation = task.split_N == "validation"
    split, target = change(task, is_validation)
    split_N = np.where(is_validation, split or "validation", task.split_N)
    targets_NK = np.where(is_validation[:, None] & (target == 0), 0, task.targets_NK)
    changed = replace(task, split_N=split_N, targets_NK=targets_NK.astype(np.int8))
    job = model_job(recipe, "died", "task-lora")
    step2.train_model(job, replace(opened, tasks={"died": changed}))
    record = record_of(job)
    assert record["kept"]["why"].startswith(f"last: {why}")
    assert record["kept"]["steps"] == record["steps"] > 0
    assert record["kept"]["evaluations"] == []
