"""The benchmark of step 1 runs on what a GPU machine has, pydantic brought along."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABSENT = ("polars", "optuna", "sentencepiece", "datasketch", "datasets", "sklearn", "matplotlib")
WITHOUT_THEM = f"""
import runpy, sys

sys.modules.update(dict.fromkeys({ABSENT!r}))
sys.path.insert(0, {str(ROOT / "bench")!r})
sys.argv = ["step1.py", *sys.argv[1:]]
runpy.run_path({str(ROOT / "bench" / "step1.py")!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "step1.csv"
    command = [sys.executable, "-c", WITHOUT_THEM, "--quick", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    with output.open() as file:
        return list(csv.DictReader(file))


def test_every_row_says_what_was_measured_where_and_with_what(rows):
    assert len(rows) == 6 * 9
    expected = ["question", "variant", "x", "p20", "p50", "p80", "unit", "repeats"]
    assert list(rows[0]) == [*expected, "device", "versions", "git revision", "date"]
    assert all(row["device"] and "torch" in row["versions"] and row["date"] for row in rows)
    assert all(float(row["p20"]) <= float(row["p50"]) <= float(row["p80"]) for row in rows)


def test_each_method_is_compared_with_both_baselines(rows):
    by_question = {}
    for row in rows:
        if row["unit"] == "times as fast":
            by_question.setdefault(row["question"], set()).add(row["variant"])
    assert len(by_question) == 6
    ours = {"ours / B1", "ours / B2"}
    assert all(found == ours for found in by_question.values())
