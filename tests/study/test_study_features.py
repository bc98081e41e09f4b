"""Features that no training changes are computed once for all tasks and seeds of a model."""

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from builders import random_llama
from one_job import domain_job, model_job, run, train
from small_study import small_study
from transformers import AutoModelForCausalLM

from notetune import config
from notetune.errors import BundleError, ConfigError, Stopped
from notetune.model.adapters.files import read_adapter, save_adapter
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.prepare.build import prepare
from notetune.recipe.recipe import Recipe
from notetune.recipe.sections import DecoderFeatures
from notetune.study import features, step2
from notetune.study.features import FixedFeatures
from notetune.study.specs import Notes

ASK = """
import hashlib, sys, time
from notetune.config import load
from notetune.study import features
from notetune.study.listing import jobs, notes_here
from notetune.recipe.recipe import Recipe
from pathlib import Path

loads, load_backbone = [], features.load_backbone

def counted(*given):
    loads.append(given)
    time.sleep(3)  # long enough for the other to ask too
    return load_backbone(*given)

features.load_backbone = counted
recipe = load(Recipe, Path(sys.argv[1]))
prepared = notes_here(recipe).prepared
documents = prepared.store.first_documents(prepared.tasks["died"].note_ids_N.tolist())
(job,) = (job for job in jobs(recipe) if job.label == "died · head-only · seed 0")
found = features.FixedFeatures(job, prepared)
print(len(loads), hashlib.sha256(found.of_notes(documents).numpy().tobytes()).hexdigest())
"""
ADAPTER_FILES = {"adapter.json", "adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = small_study(tmp_path_factory.mktemp("features"))
    variants = "[head-only, task-lora, domain-frozen, domain-frozen+task-lora]"
    recipe = config.load(Recipe, folder / "recipe.yaml", [f"downstream.variants={variants}"])
    run(recipe, domain_job(recipe))
    return recipe, prepare(recipe.preparation)


@pytest.fixture
def loads(monkeypatch):
    """The models that were loaded to make features."""
    loaded = []
    load = features.load_backbone

    def counted(name, *others):
        loaded.append(name)
        time.sleep(0.2)  # long enough for another to ask for the same features
        return load(name, *others)

    monkeypatch.setattr(features, "load_backbone", counted)
    return loaded


def elsewhere(prepared, tmp_path, **changes):
    """The same recipe with changes to step 2, and without features."""
    recipe, opened = prepared
    (tmp_path / "small/domain").mkdir(parents=True)
    (tmp_path / "small/domain/seed-0").symlink_to(recipe.folder.domain(0))
    step_2 = recipe.downstream.model_copy(update=changes)
    place = {"runs": tmp_path, "prepared": opened.folder}
    return recipe.model_copy(update={**place, "downstream": step_2}), opened


def fixed_features(recipe, opened, variant):
    return FixedFeatures(model_job(recipe, "died", variant), opened)


@pytest.mark.parametrize("layers", ["last", (0, 1, 2)])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("variant", ["head-only", "domain-frozen"])
def test_features_are_those_of_plain_peft_on_one_note(prepared, tmp_path, variant, pooling, layers):
    wanted = DecoderFeatures(pooling=pooling, layers=layers)
    recipe, opened = elsewhere(prepared, tmp_path, features=wanted)
    documents = opened.store.first_documents(opened.tasks["died"].note_ids_N.tolist())[::-1]
    found = fixed_features(recipe, opened, variant).of_notes(documents)
    plain = AutoModelForCausalLM.from_pretrained(recipe.backbone).eval()
    if variant == "domain-frozen":
        plain = peft.PeftModel.from_pretrained(plain, recipe.folder.domain(0)).base_model.model
    choose = {"last": lambda h: h[-1], "mean": lambda h: h.mean(0)}
    numbers = (2,) if layers == "last" else layers
    with torch.inference_mode():
        states = [
            plain.model(torch.from_numpy(opened.store.document(d))[None], output_hidden_states=True)
            for d in documents
        ]
    expected = [
        torch.cat([choose[pooling](one.hidden_states[n][0]) for n in numbers]) for one in states
    ]
    assert {len(one.hidden_states) for one in states} == {3}
    assert found.shape == (90, 32 * len(numbers))
    assert (found - torch.stack(expected)).abs().max() < 1e-5


def test_tasks_share_the_features_of_a_model(prepared, tmp_path, loads):
    recipe, _ = elsewhere(prepared, tmp_path)
    for variant in ("head-only", "domain-frozen"):
        for task in ("died", "stay", "codes"):
            train(recipe, task, variant)
    assert len(loads) == 2
    assert len(list(recipe.folder.features.glob("[!.]*"))) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"features": DecoderFeatures(pooling="last")},
        {"features": DecoderFeatures(layers=(0,))},
        {"dtype": "bfloat16"},
        {"tokens_per_row": 300},
    ],
)
def test_other_features_are_computed_anew(prepared, tmp_path, loads, change):
    recipe, opened = elsewhere(prepared, tmp_path)
    before = fixed_features(recipe, opened, "head-only")
    step_2 = {name: value for name, value in change.items() if name != "dtype"}
    changed = recipe.model_copy(
        update={
            "dtype": change.get("dtype", recipe.dtype),
            "downstream": recipe.downstream.model_copy(update=step_2),
        }
    )
    after = fixed_features(changed, opened, "head-only")
    assert len(loads) == 2
    documents = np.sort(opened.store.first_documents(opened.tasks["died"].note_ids_N.tolist()))
    difference = (before.of_notes(documents) - after.of_notes(documents)).abs().max()
    assert difference < 1e-5 if "tokens_per_row" in change else difference > 1e-3


def test_two_that_ask_at_once_compute_once(prepared, tmp_path, loads):
    recipe, opened = elsewhere(prepared, tmp_path)
    documents = opened.store.first_documents(opened.tasks["stay"].note_ids_N.tolist())
    job, found = model_job(recipe, "died", "head-only"), []

    def ask():
        found.append(FixedFeatures(job, opened).of_notes(documents))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(found) == 3
    assert all(torch.equal(one, found[0]) for one in found)


def test_two_processes_that_ask_at_once_compute_once(prepared, tmp_path):
    recipe, _ = elsewhere(prepared, tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.as_json()))
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path / "recipe.json")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    loads, values = zip(*(one.communicate()[0].split() for one in asked), strict=True)
    assert sorted(loads) == ["0", "1"]
    assert values[0] == values[1]


@pytest.mark.parametrize("variant", ["domain-frozen", "domain-frozen+task-lora"])
def test_a_domain_adapter_that_does_nothing_stops_a_cell_before_it_trains(
    prepared, tmp_path, variant
):
    recipe, opened = elsewhere(prepared, tmp_path)
    idle = recipe.folder.domain(0)
    idle.unlink()
    shutil.copytree(prepared[0].folder.domain(0), idle)
    backbone = load_backbone(recipe.backbone)
    model = stack(backbone, [Layer(DOMAIN, read_adapter(idle), is_trained=False)])
    for name, tensor in model.tensors(DOMAIN).items():
        tensor.mul_("lora_A" in name)
    save_adapter(idle, model.adapters[DOMAIN], backbone)
    with pytest.raises(BundleError, match="adapter domain does not change the output"):
        step2.train_model(model_job(recipe, "died", variant), Notes(opened, opened))
    assert not list(recipe.folder.root.rglob("steps.jsonl"))[1:]  # but that of step 1


def test_a_task_adapter_that_did_not_learn_leaves_no_cell(prepared, tmp_path):
    still = prepared[0].downstream.optim.model_copy(update={"peak_lr": 1e-30})
    recipe, opened = elsewhere(prepared, tmp_path, optim=still)
    task = opened.tasks["died"]  # without validation notes, which would keep the head alone
    split_N = np.where(task.split_N == "validation", "train", task.split_N)
    opened = replace(opened, tasks={"died": replace(task, split_N=split_N)})
    job = model_job(recipe, "died", "task-lora")
    with pytest.raises(BundleError, match="adapter task does not change the output"):
        step2.train_model(job, Notes(opened, opened))
    assert not job.folder.exists()


def test_a_domain_adapter_that_did_not_learn_is_not_kept(prepared, tmp_path):
    recipe, opened = prepared
    still = recipe.pretrain.optim.model_copy(update={"peak_lr": 1e-30})
    step_1 = recipe.pretrain.model_copy(update={"optim": still})
    place = {"runs": tmp_path, "prepared": opened.folder}
    idle = recipe.model_copy(update={**place, "pretrain": step_1})
    with pytest.raises(BundleError, match="adapter domain does not change the output"):
        run(idle, domain_job(idle))
    assert not idle.folder.domain(0).exists()


def test_a_failure_leaves_no_features_and_holds_up_nobody(prepared, tmp_path, monkeypatch):
    recipe, opened = elsewhere(prepared, tmp_path)

    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(features.infer, "outputs_per_note", fail)
        with pytest.raises(MemoryError):
            fixed_features(recipe, opened, "head-only")
    assert [path.name for path in recipe.folder.features.glob("[!.]*")] == []
    assert fixed_features(recipe, opened, "head-only").about.hidden_size == 32


def test_a_bundle_on_fixed_features_holds_the_domain_adapter_and_nothing_beside_it(
    prepared, tmp_path
):
    recipe, _ = elsewhere(prepared, tmp_path)
    bundled = train(recipe, "died", "domain-frozen") / "domain"
    assert {path.name for path in bundled.iterdir()} == ADAPTER_FILES
    for name in ADAPTER_FILES:
        assert (bundled / name).read_bytes() == (recipe.folder.domain(0) / name).read_bytes()


def test_cells_and_features_depend_on_the_weights_of_the_backbone(prepared, tmp_path):
    recipe, opened = prepared
    random_llama(tmp_path / "other", seed=3)
    other = recipe.model_copy(update={"backbone": str(tmp_path / "other"), "runs": tmp_path})
    reopened = prepare(other.preparation)
    mine, others = (model_job(one, "died", "head-only") for one in (recipe, other))
    assert mine.inputs != others.inputs
    both = [
        fixed_features(recipe, opened, "head-only"),
        fixed_features(other, reopened, "head-only"),
    ]
    documents = opened.store.first_documents(opened.tasks["died"].note_ids_N.tolist())
    mine, others = (one.of_notes(documents) for one in both)
    assert (mine - others).abs().max() > 1e-3


@pytest.mark.parametrize("layers", [(0, 1), (7,)])
def test_layers_that_cannot_be_read_are_refused_by_number(prepared, tmp_path, layers):
    recipe, _ = elsewhere(prepared, tmp_path, features=DecoderFeatures(layers=layers))
    expected = "the last layer, 2, must be among 0, 1" if layers == (0, 1) else "7 is no layer"
    with pytest.raises(ConfigError, match=expected):
        train(recipe, "died", "task-lora")


def test_a_computation_that_is_killed_goes_on_where_it_was(prepared, tmp_path, monkeypatch):
    recipe, opened = elsewhere(prepared, tmp_path)
    monkeypatch.setattr(features, "_NOTES_PER_PART", 20)
    compute, done = features.StackFeatures.of_notes, []

    def killed_at_the_third(made, documents_N):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(documents_N))
        return compute(made, documents_N)

    with monkeypatch.context() as patch:
        patch.setattr(features.StackFeatures, "of_notes", killed_at_the_third)
        with pytest.raises(Stopped):
            fixed_features(recipe, opened, "head-only")
    monkeypatch.setattr(
        features.StackFeatures,
        "of_notes",
        lambda made, documents_N: done.append(len(documents_N)) or compute(made, documents_N),
    )
    found = fixed_features(recipe, opened, "head-only")
    assert done == [18] * 5
    (tmp_path / "again").mkdir()
    whole = fixed_features(*elsewhere(prepared, tmp_path / "again"), "head-only")
    documents = np.sort(opened.store.first_documents(opened.tasks["died"].note_ids_N.tolist()))
    assert torch.equal(found.of_notes(documents), whole.of_notes(documents))
    assert not list(recipe.folder.features.glob(".*.work"))
