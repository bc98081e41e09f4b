"""Step 2 keeps the best state on the validation notes, stopped on the way or not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from one_job import model_job, run
from sklearn.metrics import log_loss, roc_auc_score
from small_study import sigterm_after, small_study

from notetune import config
from notetune.errors import Stopped
from notetune.metrics.scores import read_scores
from notetune.progress import silent
from notetune.study import step2
from notetune.study.recipe import Recipe
from notetune.study.run import prepare_notes
from notetune.train.batches import LabelledBatch
from notetune.train.early_stopping import Choice
from notetune.train.loop import train
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig, ValidationConfig
from notetune.train.training import Training, Watch, fit

AUROCS = {2: 0.6, 4: 0.9, 6: 0.7, 8: 0.89, 10: 0.95}
OPTIM = OptimConfig(peak_lr=0.1)


def small_training():
    """Twelve steps; validation is best after four, and after eight patience is at its end."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3))
    inputs = torch.randn(12, 3)
    taken = []

    def rows(first_step):
        for number in range(first_step, 12):
            taken.append(number)
            yield [LabelledBatch(inputs[number : number + 1], torch.ones(1, 1), np.array([number]))]

    choice = Choice(
        ValidationConfig(evaluations_per_epoch=1, patience=2),
        {"w": weight},
        lambda: (1.0, AUROCS[taken[-1] + 1] if taken else 0.5),
        steps_per_epoch=2,
        step_count=12,
    )
    optimizer = adamw(OPTIM, ([weight], OPTIM.peak_lr))
    training = Training(
        "small", "inputs", None, {"w": weight}, optimizer, OPTIM, rows,
        lambda row: ((row.inputs @ weight - 1) ** 2).sum(), 12, 0, "notes", 1, choice,
    )  # fmt: skip
    return training, weight, taken


@pytest.fixture(scope="module")
def after_four():
    """The weights after four steps of the loop, without any choice."""
    training, weight, _ = small_training()
    steps = train(
        training.rows(0), training.summed_loss, training.optimizer,
        lambda number: OPTIM.schedule(number, 12), step_count=12, max_grad_norm=1.0, seed=0,
    )  # fmt: skip
    for _ in range(4):
        next(steps)
    return weight.detach().clone()


def test_a_training_stops_early_and_ends_in_its_best_state(tmp_path, after_four):
    training, weight, taken = small_training()
    fit(training, tmp_path, 10, Watch(3, 3), silent)
    assert taken == list(range(8))
    assert torch.equal(weight, after_four)
    assert training.choice.best_steps == 4


@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_stopped_after_any_step_it_ends_in_the_same_state(tmp_path, after_four, steps_at_once):
    stops = 0
    while True:
        training, weight, _ = small_training()
        watch = Watch(3, 3)
        try:
            fit(training, tmp_path, 0, watch, sigterm_after(steps_at_once))
            break
        except Stopped:
            stops += 1
    assert stops == 8 // steps_at_once
    assert torch.equal(weight, after_four)
    assert [one.auroc for one in training.choice.evaluations] == [0.5, 0.6, 0.9, 0.7, 0.89]
    assert watch.record().steps == 8


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
