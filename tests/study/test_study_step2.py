"""Step 2: the head first, adapters that train on, weights of classes, and the best state kept."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from one_job import jobs_on, model_job, run, train
from safetensors.torch import load_file
from sklearn.metrics import log_loss, roc_auc_score
from small_study import sigterm_after, small_study

from notetune import config, storage
from notetune.errors import Stopped
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.prepare.build import prepare
from notetune.recipe.recipe import Recipe
from notetune.serve.predictor import load_predictor
from notetune.study import step2
from notetune.study.evaluate import evaluate
from notetune.study.run import prepare_notes
from notetune.study.specs import Notes
from notetune.train.optim import adamw
from notetune.train.training import read_record

PAIRS = {
    "task-lora": "head-only",
    "domain-frozen+task-lora": "domain-frozen",
    "domain-trainable": "domain-frozen",
}
ALMOST_STILL = [
    f"downstream.variants={[*PAIRS, 'head-only', 'domain-frozen', 'domain-trainable+task-lora']}",
    "downstream.evaluations_per_epoch=1",
    "downstream.epochs=1",
    "downstream.optim.peak_lr=1e-6",
    "downstream.head_lr=1e-6",
]
STOPPED = ["downstream.epochs=4", "checkpoint_minutes=0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("head-first"))


def scores(place, variant, *settings):
    """Test scores of a model of one task, and its training record."""
    recipe = config.load(Recipe, place / "recipe.yaml", [*ALMOST_STILL, *settings])
    folder = train(recipe, "died", variant)
    return read_scores(folder / "test.parquet").scores_NK, read_record(folder / "training.json")


def test_before_the_first_step_the_solved_head_is_evaluated_not_virtual_tokens(place):
    settings = ("downstream.adapter={kind: prompt, virtual_tokens: 4}",)
    _, alone = scores(place, "head-only", *settings)
    _, record = scores(place, "task-lora", *settings)
    lowest = min(point.loss for point in alone.head.path)
    assert record.kept.evaluations[0].loss == pytest.approx(lowest, abs=1e-5)
    assert abs(record.kept.evaluations[-1].loss - lowest) > 1e-3


@pytest.mark.parametrize("variant", PAIRS)
def test_adapters_start_from_the_head_that_was_solved_without_them(place, variant):
    head_alone, alone = scores(place, PAIRS[variant])
    started, record = scores(place, variant)
    assert np.abs(started - head_alone).max() < 1e-3
    assert np.ptp(head_alone) > 0.1
    assert record.head.path == alone.head.path
    first = record.kept.evaluations[0]
    assert [alone.steps, first.steps] == [0, 0]
    assert first.loss == pytest.approx(min(point.loss for point in alone.head.path), abs=1e-5)


def test_the_rate_of_the_head_falls_with_the_number_of_its_features(place, monkeypatch):
    rates = []

    def noted(optim, *groups):
        rates.append(groups[-1][1])
        return adamw(optim, *groups)

    monkeypatch.setattr(step2, "adamw", noted)
    for rate, layers in ((1e-6, [2]), ("auto", [2]), ("auto", [0, 1, 2])):
        keys = (f"downstream.head_lr={rate}", f"downstream.features.layers={layers}")
        scores(place, "task-lora", *keys)
    assert rates == [1e-6, 0.3 / 32, 0.3 / (3 * 32)]


@pytest.mark.parametrize("variant", ["task-lora", "domain-trainable"])
def test_what_validation_does_not_find_better_leaves_the_solved_head(place, variant):
    head_alone, _ = scores(place, PAIRS[variant])
    worse = ["downstream.optim.peak_lr=30", "downstream.head_lr=30", "downstream.choose=loss"]
    kept, record = scores(place, variant, *worse)
    assert record.kept.steps == 0 < record.steps
    assert np.array_equal(kept, head_alone)
    recipe = config.load(Recipe, place / "recipe.yaml", [])
    folder = recipe.folder.cell("died", variant, 0)
    has_domain = variant == "domain-trainable"
    assert read_card(folder).adapters == (("domain",) if has_domain else ())
    texts = prepare(recipe.preparation).texts(read_scores(folder / "test.parquet").note_ids_N)
    predicted = load_predictor(folder, recipe.backbone).predict(texts).scores_NK
    assert np.abs(predicted - kept).max() < 1e-6


def test_stopped_anywhere_it_ends_in_the_same_bits(place):
    recipe = config.load(Recipe, place / "recipe.yaml", [*ALMOST_STILL, *STOPPED])
    job = model_job(recipe, "died", "domain-trainable")
    run(recipe, job)
    undisturbed = storage.sha256_of_file(job.folder / "head.safetensors")
    shutil.rmtree(job.folder)
    stops, is_done = 0, False
    while not is_done:
        try:
            run(recipe, job, track=sigterm_after(2))
            is_done = True
        except Stopped:
            stops += 1
    assert stops > 1
    assert storage.sha256_of_file(job.folder / "head.safetensors") == undisturbed


def test_a_domain_adapter_trains_on_at_its_own_rate(place):
    variant = "domain-trainable+task-lora"

    # Without validation notes the last state is kept.
    alone = ["name=alone", "prepare.split.validation=0"]

    def adapters(*settings):
        scores(place, variant, "downstream.optim.peak_lr=1e-2", *alone, *settings)
        recipe = config.load(Recipe, place / "recipe.yaml", alone)
        folders = (
            recipe.folder.domain(0),
            *(recipe.folder.cell("died", variant, 0) / name for name in ("domain", "task")),
        )
        return [load_file(folder / "adapter_model.safetensors") for folder in folders]

    def moved(before, after):
        return max(float((before[name] - after[name]).abs().max()) for name in before)

    start, still, task = adapters("downstream.domain_lr=1e-9")
    assert moved(start, still) < 1e-6
    assert max(float(t.abs().max()) for n, t in task.items() if "lora_B" in n) > 1e-3
    start, domain, _ = adapters()
    assert moved(start, domain) > 1e-3


def test_balanced_classes_change_the_head_and_the_report_says_so(place):
    settings = [*ALMOST_STILL, "downstream.class_weights=balanced"]
    recipe = config.load(Recipe, place / "recipe.yaml", settings)
    plain, _ = scores(place, "head-only")
    balanced, _ = scores(place, "head-only", "downstream.class_weights=balanced")
    assert np.abs(balanced - plain).max() > 1e-6
    step_1 = [job for job in jobs_on(recipe) if job.stage in ("pretrain", "perplexity")]
    run(recipe, *(job for job in step_1 if job.seed == 0))
    switches = evaluate(recipe).compat_switches
    assert [switch.split(" (")[0] for switch in switches] == ["class_weights: balanced"]


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
    opened = replace(opened, tasks={"died": changed})
    step2.train_model(job, Notes(opened, opened))
    record = record_of(job)
    assert record["kept"]["why"].startswith(f"last: {why}")
    assert record["kept"]["steps"] == record["steps"] > 0
    assert record["kept"]["evaluations"] == []
