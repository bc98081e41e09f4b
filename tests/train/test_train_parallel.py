"""Two processes train what one trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from notetune.train.parallel import World

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What the training alone says, and each of two processes."""
    folder = tmp_path_factory.mktemp("parallel")
    done = subprocess.run(
        [sys.executable, TESTS / "train" / "parallel_runs.py", folder],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = ("alone", "rank-0", "rank-1")
    reports = [json.loads((folder / f"{name}.json").read_text()) for name in names]
    reports[0]["all weights"] = json.loads((folder / "alone-full.json").read_text())
    return reports


@pytest.mark.parametrize("way", ["data parallel", "out of memory", "sharded"])
def test_two_processes_end_where_one_does(reports, way):
    alone, *ranks = reports
    assert len(alone["losses"]) == 4
    assert len(alone["tensors"]) == 8
    for report in (rank[way] for rank in ranks):
        assert report["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        assert report["norms"] == pytest.approx(alone["norms"], abs=1e-5)
        assert report["targets"] == alone["targets"]
        assert report["order"] == alone["order"]
        for name, values in alone["tensors"].items():
            assert report["tensors"][name] == pytest.approx(values, abs=1e-5)
    assert ranks[0][way]["tensors"] == ranks[1][way]["tensors"]


def test_all_weights_train_in_parts_as_they_do_whole(reports):
    alone, *ranks = reports
    expected = alone["all weights"]
    assert len(expected["saved"]) > 20
    for report in (rank["sharded, all weights"] for rank in ranks):
        assert report["losses"] == pytest.approx(expected["losses"], abs=1e-5)
        assert report["norms"] == pytest.approx(expected["norms"], rel=1e-5)
        assert report["changed"] == pytest.approx(expected["changed"], rel=1e-3)
        for name, values in expected["saved"].items():
            assert report["saved"][name] == pytest.approx(values, abs=1e-5)


def test_a_sharded_training_goes_on_from_its_checkpoint_and_saves_whole_tensors(reports):
    alone, *ranks = reports
    for rank in ranks:
        begun, resumed = rank["sharded, begun"], rank["sharded, resumed"]
        assert (len(begun["losses"]), len(resumed["losses"])) == (2, 2)
        losses = begun["losses"] + resumed["losses"]
        assert losses == pytest.approx(alone["losses"], abs=1e-5)
        assert losses == pytest.approx(rank["sharded"]["losses"], abs=1e-7)
        assert len(alone["saved"]) == 8
        for name, values in alone["saved"].items():
            assert resumed["saved"][name] == pytest.approx(values, abs=1e-5)


def test_each_process_computes_its_share(reports):
    alone, *ranks = reports
    assert alone["parts"] == 3 + 1 + 1 + 5
    # two of three rows, half of one row, the one document, three of five rows
    assert [rank["data parallel"]["parts"] for rank in ranks] == [7, 7]


def test_a_sharded_model_is_held_in_parts(reports):
    _, *ranks = reports
    assert [rank["data parallel"]["whole"] for rank in ranks] == [1, 1]
    held = [rank["sharded"]["whole"] for rank in ranks]
    assert max(held) < 0.8
    assert sum(held) > 1  # embeddings and head are in both


def test_memory_that_ends_in_one_process_halves_the_rows_of_both(reports):
    _, *ranks = reports
    assert [rank["out of memory"]["halvings"] for rank in ranks] == [[0, 1, 1, 1]] * 2


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_that_one_names_the_notes(reports):
    _, *ranks = reports
    (said, none), (said_too, documents) = (rank["not finite"] for rank in ranks)
    assert "step 1: loss sum nan" in said
    assert said_too == said
    assert none == []
    assert documents


class Row:
    def __init__(self, *documents):
        self.documents = documents

    def halves(self):
        middle = len(self.documents) // 2
        halves = Row(*self.documents[:middle]), Row(*self.documents[middle:])
        return halves if middle else (self,)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[1], [4], [1, 1], [2, 3], [1, 1, 1, 1, 1, 1, 1]])
def test_every_document_is_computed_by_one_process_and_all_compute_equally_often(size, sizes):
    numbers = iter(range(sum(sizes)))
    rows = [Row(*(next(numbers) for _ in range(count))) for count in sizes]
    shares = [World(rank, size).share(rows) for rank in range(size)]
    counted = [d for share in shares for row, weight in share if weight for d in row.documents]
    assert sorted(counted) == list(range(sum(sizes)))
    assert len({len(share) for share in shares}) == 1
    assert {weight for share in shares for _, weight in share} <= {0.0, 1.0}
