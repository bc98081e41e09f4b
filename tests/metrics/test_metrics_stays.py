"""The scores of a stay are what a calculation by hand gives."""

import numpy as np
import polars as pl
import pytest

from notetune.errors import DataError
from notetune.metrics.scores import ScoreTable
from notetune.metrics.stays import combined, without_score

KNOWN = pl.DataFrame(
    {
        "note_id": ["a", "e", "b", "c", "d", "x"],
        "stay_id": ["s1", "s2", "s2", "s1", None, "s9"],
        "time": [2, 1, 1, None, 3, 1],
    }
)
SCORES = {"a": 0.2, "b": 0.5, "c": 0.7, "d": 0.9, "e": 0.1}
LABELS = {"a": 1, "b": 0, "c": 1, "d": 1, "e": 0}


def table_of(order="abcde", **changes):
    values = {
        "task": "died",
        "kind": "binary",
        "model": "tf-idf",
        "seed": 0,
        "split": "test",
        "classes": ("died",),
        "note_ids_N": np.array([*order]),
        "patient_ids_N": np.array([{"b": "p2", "e": "p2"}.get(note, "p1") for note in order]),
        "targets_NK": np.array([[LABELS[note]] for note in order], np.int8),
        "scores_NK": np.array([[SCORES[note]] for note in order]),
    }
    return ScoreTable(**values | changes)


@pytest.mark.parametrize(
    ("how", "first", "second"),
    [("mean", 0.45, 0.3), ("max", 0.7, 0.5), ("last", 0.2, 0.5)],
)
@pytest.mark.parametrize("order", ["abcde", "edcba", "cbead"])
def test_scores_of_a_stay_are_combined_and_a_note_of_no_stay_stands_alone(
    how, first, second, order
):
    found = combined(table_of(order), KNOWN, how)
    scores = dict(zip(found.note_ids_N.tolist(), found.scores_NK[:, 0].tolist(), strict=True))
    assert scores == pytest.approx({"s1": first, "s2": second, "d": 0.9})
    labels = dict(zip(found.note_ids_N.tolist(), found.targets_NK[:, 0].tolist(), strict=True))
    assert labels == {"s1": 1, "s2": 0, "d": 1}
    patients = dict(zip(found.note_ids_N.tolist(), found.patient_ids_N.tolist(), strict=True))
    assert patients == {"s1": "p1", "s2": "p2", "d": "p1"}
    assert found.unit == "stays"


def test_a_note_of_no_stay_is_apart_from_a_stay_of_its_id():
    known = KNOWN.with_columns(stay_id=pl.col("stay_id").replace({"s1": "d"}))
    stays = combined(table_of(), known, "mean")
    assert stays.note_ids_N.tolist() == ["d", "s2", "d (of no stay)"]


def test_the_greatest_scores_of_classes_are_scaled_to_sum_to_1():
    table = table_of(
        "ac",
        kind="multiclass",
        classes=("x", "y", "z"),
        targets_NK=np.array([[1, 0, 0]] * 2, np.int8),
        scores_NK=np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]),
    )
    (row,) = combined(table, KNOWN, "max").scores_NK
    assert row == pytest.approx(np.array([0.6, 0.7, 0.1]) / 1.4)
    (row,) = combined(table, KNOWN, "mean").scores_NK
    assert row == pytest.approx([0.4, 0.5, 0.1])


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("targets_NK", np.array([[1], [0], [0], [1], [0]], np.int8), "labels of task died"),
        ("patient_ids_N", np.array(["p1", "p2", "p3", "p1", "p2"]), "patients"),
    ],
)
def test_stays_whose_notes_disagree_stop_with_their_number(name, value, what):
    told = rf"notes of 1 of 3 stays have different {what}"
    with pytest.raises(DataError, match=told):
        combined(table_of(**{name: value}), KNOWN, "mean")


def test_other_notes_of_the_stays_of_scored_notes_are_counted():
    counts = {"abcde": 0, "ab": 2, "d": 0, "": 0}
    for order, others in counts.items():
        assert without_score(np.array([*order], np.str_), KNOWN) == others


def test_notes_of_no_stay_at_all_cannot_be_combined():
    alone = KNOWN.with_columns(stay_id=pl.lit(None, pl.String))
    with pytest.raises(DataError, match="no note names its stay"):
        combined(table_of(), alone, "mean")
