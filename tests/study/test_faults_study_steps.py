"""Both steps of a small study, stopped and damaged on the way, end as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from one_job import domain_job, model_job, run, train
from safetensors.torch import load_file
from small_study import CANARY, notetune, sigterm_after, small_study

from notetune import config, storage
from notetune.cli import terminal
from notetune.errors import ConfigError, Stopped, TrainingError
from notetune.model.stack import Stack
from notetune.recipe.recipe import Recipe
from notetune.study.run import prepare_notes

CELL = ("stay", "domain-trainable+task-lora")
SETTINGS = [
    "checkpoint_minutes=0",
    "pretrain.epochs=2",
    "downstream.epochs=3",
    "pretrain.adapter.dropout=0.1",
    "downstream.adapter.dropout=0.1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("training"))


def load(place, name):
    return config.load(Recipe, place / "recipe.yaml", [*SETTINGS, f"name={name}"])


@pytest.fixture(scope="module")
def undisturbed(place):
    recipe = load(place, "undisturbed")
    train(recipe, *CELL)
    return recipe


def trained(folder):
    """Checksums of all adapters and heads below a folder, and its steps without their time."""
    sums = {
        path.relative_to(folder).as_posix(): storage.sha256_of_file(path)
        for path in folder.rglob("*.safetensors")
    }
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return sums, [{**line, "seconds": 0} for line in lines]


def works_in(folder):
    return [path.name for path in folder.glob(".*.work/step-*")]


def test_both_steps_stopped_by_sigterm_go_on_and_end_in_the_same_bits(place, undisturbed):
    recipe = load(place, "stopped")
    for job, expected in (
        (domain_job(recipe), undisturbed.folder.domain(0)),
        (model_job(recipe, *CELL), undisturbed.folder.cell(*CELL, 0)),
    ):
        folder = job.folder
        for saved in (["step-00000002"], ["step-00000003", "step-00000004"]):
            with pytest.raises(Stopped, match="which is saved"):
                run(recipe, job, track=sigterm_after(2))
            assert sorted(works_in(folder.parent))[-len(saved) :] == saved
            assert not folder.exists()
        run(recipe, job)
        assert works_in(folder.parent) == []
        sums, steps = trained(folder)
        assert (sums, steps) == trained(expected)
        assert len(sums) >= 1
        assert len(steps) > 4
        assert [step["number"] for step in steps] == list(range(len(steps)))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        record, alone = (json.loads((p / "training.json").read_text()) for p in (folder, expected))
        assert record["steps"] == len(steps)
        assert record["kept"] == alone["kept"]


def test_the_command_line_stops_with_143_and_tells_of_a_damaged_checkpoint(
    place, undisturbed, monkeypatch
):
    command = ("pretrain", place / "recipe.yaml", "name=told", *SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(terminal, "track", sigterm_after(3, of="pretrain"))
        stopped = notetune(*command)
    assert stopped.returncode == 143
    (line,) = stopped.stderr.strip().splitlines()
    assert "stopped after step 2, which is saved. The same command goes on from there." in line
    folder = load(place, "told").folder
    (newest,) = folder.domain(0).parent.glob(".seed-0.*.work/step-00000003")
    (newest / "weights.safetensors").write_bytes(b"")
    done = notetune(*command)
    assert done.returncode == 0, done.stderr
    told = "step-00000003: weights.safetensors is missing or damaged; going on from step 2"
    assert f"warning: {told}" in done.stderr
    assert trained(folder.domain(0)) == trained(undisturbed.folder.domain(0))
    assert CANARY not in stopped.stderr + done.stderr


def test_a_loss_that_is_not_finite_names_the_notes_and_keeps_what_was_saved(
    place, undisturbed, monkeypatch
):
    recipe = load(place, "broken")
    calls, loss = [], Stack.summed_token_loss

    def broken(model, batch):
        if torch.is_grad_enabled():
            calls.append(batch.documents_D)
        return loss(model, batch) * (float("nan") if len(calls) == 5 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "summed_token_loss", broken)
        with pytest.raises(TrainingError, match=r"is not finite.* Notes: n\d\d\d") as stopped:
            run(recipe, domain_job(recipe))
    store = prepare_notes(recipe).corpus.store
    expected = list(dict.fromkeys(store.note_ids[store.note_number_D[calls[4]]].tolist()))
    assert str(stopped.value).split("Notes: ")[1] == f"{', '.join(expected)}."
    assert works_in(recipe.folder.domain(0).parent)
    run(recipe, domain_job(recipe))
    assert trained(recipe.folder.domain(0)) == trained(undisturbed.folder.domain(0))


def test_another_recipe_does_not_use_the_checkpoints_of_this_one(place):
    recipe = load(place, "changed")
    with pytest.raises(Stopped):
        run(recipe, domain_job(recipe), track=sigterm_after(2))
    (before,) = recipe.folder.domain(0).parent.glob(".seed-0.*.work")
    other = config.load(
        Recipe, place / "recipe.yaml", [*SETTINGS, "name=changed", "pretrain.optim.peak_lr=1e-3"]
    )
    with pytest.raises(Stopped):
        run(other, domain_job(other), track=sigterm_after(1))
    assert works_in(recipe.folder.domain(0).parent) == ["step-00000001"]
    assert not before.exists()


@pytest.mark.slow
@pytest.mark.parametrize("is_sharded", [False, True])
def test_two_processes_under_torchrun_end_where_one_does(place, undisturbed, is_sharded):
    name = f"two-{is_sharded}".lower()
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "notetune", "pretrain", str(place / "recipe.yaml"), *SETTINGS]
    command += [f"name={name}", f"pretrain.sharded={str(is_sharded).lower()}"]
    done = subprocess.run(
        [sys.executable, *command, "pretrain.adapter.dropout=0"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone = config.load(
        Recipe, place / "recipe.yaml", [*SETTINGS, "name=one", "pretrain.adapter.dropout=0"]
    )
    run(alone, domain_job(alone))
    folders = alone.folder.domain(0), load(place, name).folder.domain(0)
    expected, got = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert expected.keys() == got.keys()
    assert len(expected) == 8
    assert max(float((expected[key] - got[key]).abs().max()) for key in expected) < 1e-5
    one, two = (trained(folder)[1] for folder in folders)
    assert [step["loss"] for step in two] == pytest.approx([step["loss"] for step in one], abs=1e-5)
    # Adam forgives gradients that are all too small; their norm tells.
    norms = [step["grad_norm"] for step in one]
    assert [step["grad_norm"] for step in two] == pytest.approx(norms, rel=1e-4)
    assert [step["order"] for step in two] == [step["order"] for step in one]


def test_sharded_layers_need_several_processes_and_plain_ones(place):
    recipe = config.load(
        Recipe, place / "recipe.yaml", [*SETTINGS, "name=sharded", "pretrain.sharded=true"]
    )
    with pytest.raises(ConfigError, match=r"pretrain\.sharded needs several processes; run `torch"):
        run(recipe, domain_job(recipe))
    for other in ("dtype=nf4", "pretrain.compiled=true"):
        with pytest.raises(ConfigError, match="sharded"):
            config.load(Recipe, place / "recipe.yaml", ["name=no", "pretrain.sharded=true", other])
