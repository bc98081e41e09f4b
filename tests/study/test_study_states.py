"""Where only the topmost layers train, those below are computed once for tasks, runs and trials."""

from dataclasses import replace

import numpy as np
import pytest
from builders import random_encoder
from one_job import model_job, run, train
from small_study import small_study

from notetune import config
from notetune.errors import RunWarning, Stopped
from notetune.metrics.scores import read_scores
from notetune.model.entering import EnteringStates
from notetune.recipe.recipe import Recipe
from notetune.serve.predictor import load_predictor
from notetune.study import features, states, step2
from notetune.study.costs import costs
from notetune.study.evaluate import evaluate
from notetune.study.run import prepare_notes, run_study

UPPER = [
    "downstream.adapter={kind: lora, rank: 2, alpha: 4, layers: top half}",
    "downstream.features.layers=[0, 1, 2]",
    "downstream.variants=[head-only, task-lora, domain-frozen, domain-frozen+task-lora]",
    "downstream.max_pieces=2",
    "prepare.max_tokens=24",
    "downstream.optim.peak_lr=1e-2",
]

LAST = "prepare.split.validation=0"  # so that the last state is kept, and no head before it
PLAIN = ("domain-frozen+head-only", "domain-frozen")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("states"))


def load(place, folder, *keys):
    return config.load(Recipe, place / "recipe.yaml", [f"runs={folder}", *UPPER, *keys])


def kept_in(recipe):
    return sorted(recipe.folder.features.glob("states-*"))


def scores(recipe, task, variant, split="test"):
    folder = train(recipe, task, variant)
    return read_scores(folder / f"{split}.parquet").scores_NK


@pytest.mark.parametrize("variant", ["task-lora", "domain-frozen+task-lora"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_model_on_kept_states_is_the_model_on_all_layers(place, tmp_path, variant, pooling):
    keys = LAST, f"downstream.features.pooling={pooling}"
    kept = load(place, tmp_path / "kept", *keys)
    whole = load(place, tmp_path / "whole", *keys, "keep_hidden_states=false")
    for task in ("died", "codes"):
        ours, theirs = (scores(recipe, task, variant) for recipe in (kept, whole))
        assert np.abs(ours - theirs).max() < 1e-5
        head_alone = scores(kept, task, variant.replace("task-lora", "head-only").replace(*PLAIN))
        assert np.abs(ours - head_alone).max() > 1e-3
    assert [len(kept_in(recipe)) for recipe in (kept, whole)] == [1, 0]
    folder = kept.folder.cell("died", variant, 0)
    table = read_scores(folder / "test.parquet")
    predicted = load_predictor(folder, kept.backbone).predict(
        prepare_notes(kept).prepared.texts(table.note_ids_N.tolist())
    )
    assert np.abs(predicted.scores_NK - table.scores_NK).max() < 1e-5


def test_an_encoder_trains_on_kept_states_too(place, tmp_path):
    encoder = random_encoder(tmp_path / "bert")
    keys = (
        LAST,
        f"encoders.models={{bert: {encoder}}}",
        "encoders.variants=[lora, head-only]",
        "encoders.adapter={rank: 2, alpha: 4, targets: [query, value], layers: 1}",
        "encoders.lora_optim.peak_lr=1e-2",
    )
    kept = load(place, tmp_path / "kept", *keys)
    whole = load(place, tmp_path / "whole", *keys, "keep_hidden_states=false")
    ours, theirs = (scores(recipe, "died", "bert+lora") for recipe in (kept, whole))
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(ours - scores(kept, "died", "bert+head-only")).max() > 1e-3
    assert [len(kept_in(recipe)) for recipe in (kept, whole)] == [1, 0]


def test_no_step_computes_what_is_kept(place, tmp_path, monkeypatch):
    computed = []
    of = features.StackFeatures.of

    def counted(self, inputs):
        layer = self.stack.backbone.blocks[0].mlp
        below = layer.register_forward_hook(lambda *_: computed.append(inputs))
        found = of(self, inputs)
        below.remove()
        return found

    monkeypatch.setattr(features.StackFeatures, "of", counted)
    train(load(place, tmp_path), "died", "head-only")
    assert computed
    computed.clear()
    train(load(place, tmp_path), "died", "task-lora")
    assert not computed


def test_tasks_and_runs_and_trials_share_them_but_not_domain_adapters(place, tmp_path):
    tune = "tune={trials: 2, starts: 2, downstream: {optim.peak_lr: [1e-3, 1e-2]}}"
    recipe = load(place, tmp_path, "seeds=2", "downstream.tasks=[died, codes]", tune)
    run_study(recipe)
    assert len(kept_in(recipe)) == 3  # of the backbone alone, and of the adapter of each run
    (before,) = (folder.stat().st_mtime_ns for folder in kept_in(recipe)[:1])
    run_study(load(place, tmp_path, "seeds=2", "downstream.adapter.rank=3"))
    assert len(kept_in(recipe)) == 3
    assert kept_in(recipe)[0].stat().st_mtime_ns == before


def interrupted(label, steps, _total, _describe, _done=0):
    for count, step in enumerate(steps, start=1):
        if count == 3 and "states" in label:
            raise KeyboardInterrupt
        yield step


def test_a_killed_computation_goes_on_where_it_stopped(place, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_NOTES_PER_PART", 20)
    recipe = load(place, tmp_path / "killed")
    job = model_job(recipe, "died", "task-lora")
    with pytest.raises(Stopped):
        run(recipe, job, track=interrupted)
    (half,) = recipe.folder.features.glob(".states-*/states.bin")
    with half.open("ab") as file:
        file.write(b"half a part")
    shown = []

    def noted(label, steps, total, _describe, done=0):
        shown.append((label.partition(" ")[0], total, done))
        yield from steps

    run(recipe, job, track=noted)
    assert ("states", 5, 3) in shown
    at_once = load(place, tmp_path / "once")
    monkeypatch.setattr(features, "_NOTES_PER_PART", 1000)
    train(at_once, "died", "task-lora")
    ours, theirs = (
        np.fromfile(kept_in(one)[0] / "states.bin", np.float32) for one in (recipe, at_once)
    )
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.parametrize(
    "key",
    [
        "keep_hidden_states=false",
        "downstream.adapter.layers=null",
        "downstream.adapter.layers=2",
        "pretrain.adapter={kind: prompt, virtual_tokens: 2}",
    ],
)
def test_nothing_is_kept_where_all_layers_are_computed(place, tmp_path, key):
    recipe = load(place, tmp_path, "downstream.variants=[domain-frozen+task-lora]", key)
    train(recipe, "died", "domain-frozen+task-lora")
    assert not kept_in(recipe)
    assert not any("hidden states" in notice for notice in costs(recipe).notices)


def test_a_domain_adapter_that_acts_below_alone_is_no_idle_one(place, tmp_path):
    below = "pretrain.adapter.targets=[model.layers.0.self_attn.q_proj]"
    kept = load(place, tmp_path / "kept", LAST, below)
    whole = load(place, tmp_path / "whole", LAST, below, "keep_hidden_states=false")
    ours, theirs = (scores(recipe, "died", "domain-frozen+task-lora") for recipe in (kept, whole))
    assert np.abs(ours - theirs).max() < 1e-5
    assert kept_in(kept)


def test_a_report_says_what_they_cost(place, tmp_path):
    recipe = load(place, tmp_path, "downstream.tasks=[died]", "seeds=1", "tune={}")
    run_study(recipe)
    states = [cost for cost in evaluate(recipe).costs if cost.stage == "states"]
    assert [cost.model for cost in states] == ["task-lora", "domain-frozen+task-lora"]
    assert all(cost.seconds > 0 and cost.tokens_per_second > 0 for cost in states)


def test_a_backbone_whose_layers_pass_on_more_computes_all_of_them(place, tmp_path, monkeypatch):
    whole = load(place, tmp_path / "whole", "keep_hidden_states=false")
    expected = scores(whole, "died", "task-lora")

    def lacking(*_):
        raise KeyError("what a layer below would have left")

    monkeypatch.setattr(EnteringStates, "in_place_of", lacking)
    recipe = load(place, tmp_path / "other")
    with pytest.warns(RunWarning, match="does not compute its upper layers alone"):
        found = scores(recipe, "died", "task-lora")
    assert np.array_equal(found, expected)
    assert not kept_in(recipe)  # found out before all notes were computed


def test_a_backbone_that_does_not_go_on_from_them_computes_all_layers(place, tmp_path, monkeypatch):
    expected = scores(
        load(place, tmp_path / "whole", "keep_hidden_states=false"), "died", "task-lora"
    )
    real = states.saved_states

    def other(*given):
        kept = real(*given)
        return replace(kept, of=lambda batch: kept.of(batch) + 1)

    monkeypatch.setattr(step2, "saved_states", other)
    recipe = load(place, tmp_path / "other")
    with pytest.warns(
        RunWarning, match="backbone backbone does not compute its upper layers alone"
    ):
        found = scores(recipe, "died", "task-lora")
    assert np.array_equal(found, expected)


def test_a_dry_run_says_how_much_is_kept_and_counts_fewer_operations(place, tmp_path):
    keys = "seeds=2", "prepare.max_tokens=128", "downstream.max_pieces=1"
    kept = costs(load(place, tmp_path, *keys))
    whole = costs(load(place, tmp_path, *keys, "keep_hidden_states=false"))
    tokens = prepare_notes(load(place, tmp_path, *keys)).prepared.store.lengths_D.sum()
    size = f"{3 * tokens * 32 * 4 / 2**20:,.1f} MiB of hidden states are kept on the disk"
    assert sum(size in notice for notice in kept.notices) == 1
    assert not any("hidden states" in notice for notice in whole.notices)
    of = {(job.model, job.task): job.flops for job in kept.trainings}
    for job in whole.trainings:
        if job.model.endswith("task-lora"):
            assert 0.4 < of[job.model, job.task] / job.flops < 0.9
        else:
            assert of[job.model, job.task] == job.flops
