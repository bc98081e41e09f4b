"""Processes that are asked to stop, in training and in the evaluation after it, lose nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_study import notetune, small_study

from notetune import config, storage
from notetune.cli import terminal
from notetune.recipe.recipe import Recipe

SETTINGS = [
    "seeds=1",
    "downstream.variants=[task-lora]",
    "downstream.tasks=[stay]",
    "evaluate.baselines=[]",
    "evaluate.hybrid=null",
    "downstream.epochs=2",
    "downstream.head_lr=1e-3",  # at which a later state is better than the head alone
]
COMMAND = """
import sys, time
from notetune.cli import main, terminal
from notetune.study import step2

phase, seconds = sys.argv.pop(1), float(sys.argv.pop(1))

def wait():
    print("now", flush=True)
    time.sleep(seconds)

def track(label, steps, total, describe, done=0):
    for number, step in enumerate(steps, start=done + 1):
        if number == 3 and phase == "training":
            wait()
        yield step

def write_scores(*arguments):
    wait()

terminal.track = track
if phase == "evaluation":
    step2.write_scores = write_scores
main()
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small study with step 1 done in `runs/base`, and all of it in `runs/undisturbed`."""
    place = small_study(tmp_path_factory.mktemp("stops"))
    assert notetune("pretrain", place / "recipe.yaml", "name=base", *SETTINGS).returncode == 0
    shutil.copytree(place / "runs/base", place / "runs/undisturbed")
    done = notetune("downstream", place / "recipe.yaml", "name=undisturbed", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return place


def started(place, name, phase, seconds):
    """A process that trains the cell, once it says that it is in that phase."""
    shutil.copytree(place / "runs/base", place / "runs" / name)
    command = ["downstream", str(place / "recipe.yaml"), f"name={name}", *SETTINGS]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, phase, str(seconds), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "now\n", process.communicate()
    return process


def cell(place, name):
    recipe = config.load(Recipe, place / "recipe.yaml", [*SETTINGS, f"name={name}"])
    return recipe.folder.cell("stay", "task-lora", 0)


def outcome(folder):
    """Checksums of what was trained and of its scores, and the steps without their time."""
    names = ("head.safetensors", "task/adapter_model.safetensors")
    scores = ("validation.parquet", "test.parquet")
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    sums = {name: storage.sha256_of_file(folder / name) for name in (*names, *scores)}
    return sums, [{**line, "seconds": 0} for line in lines]


@pytest.mark.parametrize(
    ("phase", "number"),
    [("training", signal.SIGINT), ("evaluation", signal.SIGINT), ("evaluation", signal.SIGTERM)],
)
def test_a_signal_saves_the_last_step_and_the_same_command_goes_on(
    phase, number, place, monkeypatch
):
    name = f"{phase}-{number}"
    process = started(place, name, phase, 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == CODES[number], err
    last = len(outcome(cell(place, "undisturbed"))[1])
    assert last > 3
    if phase == "training":
        assert "stopped after step 2, which is saved. The same command goes on from there." in err
    else:
        assert f"its work up to step-{last:08} is saved. The same command goes on from th" in err
    assert ("Ctrl-C again" in err) == ((phase, number) == ("training", signal.SIGINT))
    folder = cell(place, name)
    assert not folder.exists()
    assert not list(folder.parent.rglob(".*.part"))
    taken = []

    def track(label, steps, _total, _describe, _done=0):
        for step in steps:
            taken.append(step.number)
            yield step

    monkeypatch.setattr(terminal, "track", track)
    done = notetune("downstream", place / "recipe.yaml", f"name={name}", *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert taken == (list(range(3, last)) if phase == "training" else [])
    assert outcome(folder) == outcome(cell(place, "undisturbed"))


def test_a_second_ctrl_c_stops_at_once(place):
    process = started(place, "twice", "training", 60)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again stops at once" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)
    assert time.monotonic() - begun < 30
    assert process.returncode == 130
    assert "stopped; what was finished before it is saved" in err
    assert "after step" not in err
