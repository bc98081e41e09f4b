"""A training killed at any instant, as often as you like, ends in the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_training import STEPS

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "kills", [20, pytest.param(200, marks=pytest.mark.slow)], ids=["20 kills", "200 kills"]
)
def test_a_training_that_is_killed_ends_in_the_same_bits(kills, tmp_path, capsys):
    seed = int.from_bytes(os.urandom(2))
    done = subprocess.run(
        [sys.executable, HERE / "kill_runs.py", tmp_path, str(kills), str(seed)],
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
    assert report["mid_save"] >= kills / 5
    assert report["differing"] == 0
    assert report["trainings"] >= 1
    assert report["steps"] == STEPS
