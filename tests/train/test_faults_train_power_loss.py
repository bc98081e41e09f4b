"""Whatever a power loss leaves of a training's folder, no save that was acknowledged is lost."""

import contextlib
import itertools
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from power_loss import CONTENTS, NAMES, Disk, build, recorded
from small_training import SmallTraining, after, as_json

from notetune import claims, manifest, runs
from notetune.errors import RunError, RunWarning, Stopped

SAVES, RESTART_AFTER = 10, 5
FINISHED = SAVES + 1
"""Stands for the stage, which comes after the last save."""


@dataclass(frozen=True)
class Record:
    """What a training did in its run folder.

    Attributes:
        operations: In order.
        acknowledged: How many operations had been done when each save returned, by its step.
        outcomes: What the training was at each step.
    """

    operations: tuple
    acknowledged: dict[int, int]
    outcomes: dict[int, str]

    def promised(self, done: int) -> int:
        """The newest step that must not be lost after that many operations."""
        return max((step for step, count in self.acknowledged.items() if count <= done), default=0)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Ten saves with a restart in between, the finished stage, and the end of its work folder."""
    place = tmp_path_factory.mktemp("recorded").resolve()
    acknowledged, outcomes = {}, {}
    with recorded(place) as operations:
        for last in (RESTART_AFTER, SAVES):
            with contextlib.suppress(Stopped), training_in(place / "run") as training:
                for step in training.run_from(training.checkpoints.restore()):
                    number = step.number + 1
                    training.checkpoints.save(after(step))
                    acknowledged[number] = len(operations)
                    outcomes[number] = as_json(training.outcome())
                    if number == last:
                        break
                if last < SAVES:
                    raise Stopped
                with runs.new_folder(place / "run/stage", "inputs") as stage:
                    (stage / "outcome.json").write_text(outcomes[SAVES])
                acknowledged[FINISHED] = len(operations)
                outcomes[FINISHED] = outcomes[SAVES]
    return Record(tuple(operations), acknowledged, outcomes)


@contextlib.contextmanager
def training_in(run):
    with claims.claimed(run / "stage"), runs.work_folder(run / "stage", "inputs") as work:
        yield SmallTraining(work)


def found_in(run):
    """The step at which a run goes on after a power loss, and what the training is there."""
    with claims.claimed(run / "stage"):
        if manifest.is_finished(run / "stage", "inputs"):
            return FINISHED, (run / "stage/outcome.json").read_text()
    with (
        warnings.catch_warnings(action="ignore", category=RunWarning),
        training_in(run) as training,
    ):
        step = training.checkpoints.restore().next_step
        return step, as_json(training.outcome())


def states(record, is_synced):
    """Each different state that a power loss can leave, with the operations before it."""
    disk, seen = Disk(), set()
    for done in range(len(record.operations) + 1):
        if done and (is_synced or record.operations[done - 1].kind != "fsync"):
            disk.do(record.operations[done - 1])
        for names, contents in itertools.product(NAMES, CONTENTS):
            state = disk.after(names, contents)
            key = hash((record.promised(done), tuple(sorted(state.items()))))
            if key not in seen:
                seen.add(key)
                yield done, f"names {names}, contents {contents}", state


def fault(record, done, state, place):
    """What is wrong with a state, or None."""
    shutil.rmtree(place, ignore_errors=True)
    build(place, state)
    promised = record.promised(done)
    try:
        step, outcome = found_in(place / "run")
    except (RunError, OSError, ValueError, KeyError) as error:
        return f"stopped with {type(error).__name__}"
    if step < promised:
        return f"lost step {promised}, found {step}"
    if step and outcome != record.outcomes[step]:
        return f"accepted a step {step} that never was"
    return None


@pytest.fixture
def place(monkeypatch):
    """Where states are built, in memory if possible: checking one need not wait for the disk."""
    monkeypatch.setattr(runs.os, "fsync", lambda handle: None)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "place"


def test_the_record_is_that_of_ten_saves_and_a_stage(record):
    kinds = [operation.kind for operation in record.operations]
    assert sorted(record.acknowledged) == list(range(1, FINISHED + 1))
    assert kinds.count("fsync") > 6 * SAVES
    assert kinds.count("rename") >= 2 * SAVES
    disk = Disk()
    for operation in record.operations:
        disk.do(operation)
    left = disk.after("lost", "dropped")
    assert {path for path in left if not path.startswith("run/.")} == {
        "run",
        "run/stage",
        "run/stage/outcome.json",
        "run/stage/manifest.json",
    }


def test_no_power_loss_takes_an_acknowledged_save_or_makes_a_bad_one(record, place):
    found, count = [], 0
    for done, kind, state in states(record, is_synced=True):
        count += 1
        if wrong := fault(record, done, state, place):
            found.append(f"after {done}, {kind}: {wrong}")
    assert found == []
    assert count > 1000


def test_without_fsync_the_same_power_losses_do_harm(record, place):
    every = itertools.islice(states(record, is_synced=False), 0, None, 10)
    found = [fault(record, done, state, place) for done, _, state in every]
    assert len(found) > 50
    assert sum(wrong is not None for wrong in found) > len(found) / 4
