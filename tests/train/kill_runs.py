"""Kill a training over and over until it is done, and compare with one that was left alone.

`python kill_runs.py FOLDER KILLS SEED` imports torch once, forks a process per run, kills it with
SIGKILL at a random instant or inside a save, and prints what it saw as JSON.
"""

import contextlib
import json
import mmap
import os
import random
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from small_training import SmallTraining, after

from notetune import claims, runs, storage

IDLE, SAVING, DONE = 0, 1, 2
_AIMED = 0.6  # share of the kills that wait for a save to begin


def train_to_the_end(folder: Path, state: mmap.mmap, saves: int) -> None:
    """One process of the training; it tells in `state` and through the pipe what it is doing."""
    with claims.claimed(folder / "stage"), runs.work_folder(folder / "stage", "inputs") as work:
        training = SmallTraining(work)
        for step in training.run_from(training.checkpoints.restore()):
            state[0] = SAVING
            os.write(saves, b"s")
            training.checkpoints.save(after(step))
            state[0] = IDLE
        state[0] = DONE
        with runs.new_folder(folder / "stage", "inputs") as stage:
            storage.write_json(stage / "outcome.json", training.outcome())


class Killer:
    """Starts runs and ends them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.state = mmap.mmap(-1, 1)
        self.kills = self.mid_save = 0
        self.run_seconds = self.save_seconds = 0.0

    def run(self, folder: Path, *, is_killed: bool) -> bool:
        """Start a process; whether it came to its end."""
        self.state[0] = IDLE
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                train_to_the_end(folder, self.state, writes)
                os._exit(0)
            os._exit(1)
        os.close(writes)
        if is_killed:
            self._wait(reads)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        end = os.waitpid(child, 0)[1]
        os.close(reads)
        if os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGKILL:
            self.kills += 1
            self.mid_save += self.state[0] == SAVING
            return False
        if os.waitstatus_to_exitcode(end) != 0:
            raise RuntimeError(f"the process that trains in {folder} failed")
        return True

    def _wait(self, reads: int) -> None:
        if self.random.random() > _AIMED:
            time.sleep(self.random.uniform(0, self.run_seconds))
            return
        for _ in range(self.random.randint(1, 4)):
            select.select([reads], [], [], 10)
            if not os.read(reads, 1):  # it came to its end
                return
        time.sleep(self.random.uniform(0, self.save_seconds))

    def measure(self, folder: Path) -> None:
        """How long a run and one of its saves take here."""
        begun = time.perf_counter()
        self.run(folder, is_killed=False)
        self.run_seconds = time.perf_counter() - begun
        self.save_seconds = self.run_seconds / 15


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    begun = time.perf_counter()
    killer = Killer(seed)
    killer.measure(folder / "alone")
    expected = (folder / "alone" / "stage" / "outcome.json").read_text()
    trainings = differing = 0
    while killer.kills < kills:
        work = folder / str(trainings)
        while not killer.run(work, is_killed=killer.kills < kills):
            continue
        trainings += 1
        differing += (work / "stage" / "outcome.json").read_text() != expected
        shutil.rmtree(work)
    report = {
        "kills": killer.kills,
        "mid_save": killer.mid_save,
        "trainings": trainings,
        "differing": differing,
        "steps": len(json.loads(expected)["steps"]),
        "seed": seed,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
