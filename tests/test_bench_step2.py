"""The benchmark of step 2 compares equal models, and asks of a GPU no more than step 1 does."""

import csv
import subprocess
import sys

import pytest
from test_bench_step1 import ROOT, WITHOUT_THEM

WITH_ALL = f"""
import runpy, sys

sys.path.insert(0, {str(ROOT / "bench")!r})
runpy.run_path({str(ROOT / "bench" / "step2.py")!r}, run_name="__main__")
"""
SEARCHED = {"a cold run", "a run on kept features", "20 cold runs / 20 on kept features"}


def rows_of(code, output, *options):
    command = [sys.executable, "-c", code, "--quick", *options, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    with output.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_of(WITH_ALL, tmp_path_factory.mktemp("bench") / "step2.csv")


def test_both_ways_are_timed_in_training_and_prediction(rows):
    by_question = {}
    for row in rows:
        by_question.setdefault(row["question"].split(", ")[1], {})[row["variant"]] = row
    assert list(by_question) == ["training", "prediction", "a head alone"]
    for work in ("training", "prediction"):
        assert set(by_question[work]) == {"B2", "ours", "ours / B2"}
        ours, stock, ratio = (
            float(by_question[work][v]["p50"]) for v in ("ours", "B2", "ours / B2")
        )
        assert ratio == pytest.approx(ours / stock, rel=0.01)
    assert set(by_question["a head alone"]) == SEARCHED
    assert by_question["a head alone"]["a run on kept features"]["repeats"] == "20"


def test_without_the_search_it_needs_nothing_that_a_gpu_machine_lacks(tmp_path):
    code = WITHOUT_THEM.replace("step1.py", "step2.py")
    rows = rows_of(code, tmp_path / "step2.csv", "--no-search")
    assert [row["variant"] for row in rows] == ["B2", "ours", "ours / B2"] * 2
