"""Kill a search over and over until it is done, and compare with one that was left alone.

`python kill_searches.py FOLDER KILLS SEED` imports the libraries once, forks a process per life,
kills it with SIGKILL at a random instant or as it records an event, and prints what it saw as JSON.
"""

import contextlib
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import optuna
import optuna._gp.optim_mixed
import scipy.optimize
import scipy.stats
import torch
from small_search import STUDY, TRIALS, best, search

from notetune.search.ledger import Ledger

_AIMED = 0.5  # share of the kills that wait for a record to begin
_LIFE_SECONDS = 0.4  # of the others, at most


def live(ledger: Ledger, begins: int) -> None:
    def before() -> None:
        time.sleep(0.002)
        os.write(begins, b"r")

    search(ledger, before=before, starts=16)


def lives_to_the_end(ledger: Ledger, chance: random.Random | None) -> bool:
    """Fork a process that goes on with the search; whether nothing killed it."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            live(ledger, writes)
            os._exit(0)
        os._exit(1)
    os.close(writes)
    if chance and chance.random() < _AIMED:
        for _ in range(chance.randint(1, 3)):
            select.select([reads], [], [])
            os.read(reads, 1)
        time.sleep(chance.uniform(0, 0.003))
    elif chance:
        time.sleep(chance.uniform(0, _LIFE_SECONDS))
    if chance:
        os.kill(child, signal.SIGKILL)
    end = os.waitpid(child, 0)[1]
    os.close(reads)
    if os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(end) != 0:
        raise RuntimeError(f"the search of {ledger.path} failed")
    return True


def main(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    alone = Ledger(folder / "alone", STUDY)
    assert lives_to_the_end(alone, None)
    expected = alone.trials()
    killed, searches, differing = 0, 0, 0
    while killed < kills:
        searches += 1
        ledger = Ledger(folder / f"search-{searches}", STUDY)
        while not lives_to_the_end(ledger, chance if killed < kills else None):
            killed += 1
        trials = ledger.trials()
        differing += trials != expected or best(trials) != best(expected)
    report = {
        "kills": killed,
        "searches": searches,
        "differing": differing,
        "trials": len({json.dumps(trial.point) for trial in expected}),
        "seed": seed,
        "versions": [module.__version__ for module in (optuna, scipy, torch)],
    }
    sys.stdout.write(json.dumps(report) + "\n")
    assert len(expected) == TRIALS


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
