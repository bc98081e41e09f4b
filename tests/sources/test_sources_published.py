import hashlib
import os
from pathlib import Path

import polars as pl
import pytest
from mimic3_tables import small

from notetune.audit import FlowCount
from notetune.notes.outcomes import Task
from notetune.sources import read
from notetune.sources.mimic.published import (
    PUBLISHED,
    compare,
    flow_counts,
    label_hash,
    task_counts,
)

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))

SPLIT_FILES = {
    "train": "f9005aa01e028864f7875bd178f614a473385fee580b2e45e88a10f0e805ee6f",
    "validation": "bebe8258eecf3412f61fc5be27c06b049ae35c064e4691b527175d1d6d574dcd",
    "test": "bcec605a30ebae0c1903d9067ee196428ec378a3b3faa2df2f0d4f5bc0b2bc54",
}
"""sha256 of the published files of patient ids (mimic_train, mimic_val, mimic_test.csv).

Source: data specification, section 2.7.
"""


def test_every_published_figure_agrees_with_itself_and_with_nothing_else():
    for published in PUBLISHED:
        for value in published.values:
            (row,) = compare({published.what: value})
            assert (row.agrees, row.explanation, row.ours) == (True, "", value)
        wrong = 7 if isinstance(published.values[0], int) else "0" * 64
        (row,) = compare({published.what: wrong})
        assert (row.agrees, row.ours) == (False, wrong)
        assert row.explanation == published.explanation != ""
        assert published.source
    assert len(PUBLISHED) == len({published.what for published in PUBLISHED}) == 27


def test_the_published_figures_of_a_task_add_up():
    by_name = {published.what: published.values[0] for published in PUBLISHED}
    sums = {
        task: sum(by_name[f"{task}: {split}"] for split in ("train", "validation", "test"))
        for task in ("mortality", "length_of_stay", "diagnoses", "procedures", "ventilation")
    }
    assert sums == {
        "mortality": 48_745 - 61,
        "length_of_stay": 43_609,
        "diagnoses": 48_745 - 4,
        "procedures": 43_068,
        "ventilation": 7_079,
    }


def test_rows_come_in_the_published_order_and_only_for_what_was_counted():
    rows = compare({"radiology notes": 2_321_355, "mortality: test": 9_822, "discharge notes": 1})
    assert [(row.what, row.published, row.agrees) for row in rows] == [
        ("mortality: test", "9,822", True),
        ("discharge notes", "331,794 or 331,793", False),
        ("radiology notes", "2,321,355", True),
    ]


def test_the_figures_of_a_task_are_counted_per_split_with_its_labels():
    table = pl.DataFrame({"note_id": ["a", "b", "c"], "split": ["train", "test", "train"]})
    counts = task_counts(Task("diagnoses", "multilabel", ("V300", "038")), table)
    assert counts == {
        "diagnoses: train": 2,
        "diagnoses: validation": 0,
        "diagnoses: test": 1,
        "diagnoses: labels": 2,
        "diagnoses: sha256 of the labels in order": hashlib.sha256(b"V300 038").hexdigest(),
        "diagnoses: sha256 of the sorted labels": hashlib.sha256(b"038 V300").hexdigest(),
    }
    binary = task_counts(Task("mortality", "binary", ("died",)), table)
    assert set(binary) == {"mortality: train", "mortality: validation", "mortality: test"}
    assert len(compare(counts | binary)) == 9
    assert task_counts(Task("readmission", "binary", ("back",)), table) == {}


def test_the_figures_of_a_flow_are_those_of_its_data_set(tmp_path):
    cohort = read(small().write(tmp_path))
    counts = flow_counts("mimic3", cohort.flow)
    assert counts == {"rows of NOTEEVENTS": 2, "discharge summaries": 2, "admissions": 2}
    assert len(compare(counts)) == 3
    flow = [FlowCount("discharge notes", 5, 5), FlowCount("admissions", 3, 3)]
    assert flow_counts("mimic4", flow) == {"discharge notes": 5}


def test_a_hash_depends_on_the_order():
    assert label_hash(("a", "b")) != label_hash(("b", "a"))


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "core_splits").is_dir(), reason="open data not found")
def test_the_published_split_files_have_their_hashes():
    names = {"train": "train", "validation": "val", "test": "test"}
    found = {
        split: hashlib.sha256((DATA / "core_splits" / f"mimic_{name}.csv").read_bytes()).hexdigest()
        for split, name in names.items()
    }
    assert found == SPLIT_FILES
