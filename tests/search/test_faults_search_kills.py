"""A search killed at any instant, as often as you like, ends in the same trials and winner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_search import TRIALS

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "kills", [10, pytest.param(60, marks=pytest.mark.slow)], ids=["10 kills", "60 kills"]
)
def test_a_search_that_is_killed_ends_in_the_same_trials(kills, tmp_path, capsys):
    seed = int.from_bytes(os.urandom(2))
    done = subprocess.run(
        [sys.executable, HERE / "kill_searches.py", tmp_path, str(kills), str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout}")
    report = json.loads(done.stdout)
    assert report["kills"] >= kills
    assert report["searches"] >= 1
    assert report["differing"] == 0
    assert report["trials"] == TRIALS
