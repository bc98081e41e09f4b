import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.errors import DataError
from notetune.notes.outcomes import (
    LENGTH_OF_STAY_CLASSES,
    Task,
    check_labels,
    check_train_classes,
    keep_frequent_classes,
    label_matrix,
    length_of_stay_class,
)

DEATH = Task("mortality", "binary", ("died",))
STAY = Task("stay", "multiclass", ("short", "long"))
CODES = Task("codes", "multilabel", ("250", "401", "V30"))
CANARY = "zygomorphic"


def table(*labels, splits=None):
    frame = pl.DataFrame(
        {"note_id": [f"n{i}" for i in range(len(labels))], "labels": list(labels)},
        schema={"note_id": pl.String, "labels": pl.List(pl.String)},
    )
    return frame if splits is None else frame.with_columns(pl.Series("split", splits))


@pytest.mark.parametrize(
    ("kind", "classes", "problem"),
    [
        ("binary", ("a", "b"), "2 classes for a binary task, which needs exactly 1"),
        ("binary", (), "0 classes"),
        ("multiclass", ("a",), "1 classes for a multiclass task, which needs 2 or more"),
        ("multilabel", (), "0 classes for a multilabel task, which needs 1 or more"),
        ("multilabel", ("a", "a"), "repeated or blank"),
        ("multiclass", ("a", " "), "repeated or blank"),
    ],
)
def test_a_task_with_the_wrong_classes_cannot_exist(kind, classes, problem):
    with pytest.raises(DataError, match=problem):
        Task("t", kind, classes)


@pytest.mark.parametrize(
    ("task", "labels", "problem"),
    [
        (DEATH, [[], ["died"], [CANARY]], "note n2 has an unknown class (1 of 3 notes)"),
        (DEATH, [[], None], "note n1 has no label"),
        (DEATH, [["died", "died"]], "note n0 does not have at most 1 label"),
        (STAY, [["short"], []], "note n1 does not have exactly 1 label"),
        (STAY, [["short", "long"]], "note n0 does not have exactly 1 label"),
        (STAY, [["short"], [None]], "note n1 has no label"),
        (CODES, [["250", CANARY], [CANARY]], "note n0 has an unknown class (2 of 2 notes)"),
        (CODES, [["250", "250"]], "note n0 has a class twice"),
    ],
)
def test_a_faulty_label_is_named_by_its_note_and_never_shown(task, labels, problem):
    with pytest.raises(DataError, match=re.escape(problem)) as caught:
        check_labels(task, table(*labels))
    assert CANARY not in str(caught.value)


def test_correct_labels_of_every_kind_pass():
    check_labels(DEATH, table([], ["died"]))
    check_labels(STAY, table(["short"], ["long"]))
    check_labels(CODES, table([], ["V30", "250"], ["250", "401", "V30"]))


@given(st.lists(st.lists(st.sampled_from(CODES.classes), unique=True), min_size=1, max_size=20))
def test_the_label_matrix_has_a_one_exactly_where_a_note_has_the_class(labels):
    matrix = label_matrix(CODES, table(*labels))
    assert matrix.dtype == np.int8
    assert matrix.tolist() == [[int(name in row) for name in CODES.classes] for row in labels]


def test_the_label_matrix_of_binary_and_multiclass_tasks_has_one_column_per_class():
    assert label_matrix(DEATH, table([], ["died"])).tolist() == [[0], [1]]
    assert label_matrix(STAY, table(["long"], ["short"])).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="unknown class"):
        label_matrix(STAY, table(["middle"]))


def test_frequent_classes_are_chosen_on_train_only():
    labels = [["250"], ["250", "401"], ["401", "V30"], ["401"], ["401"], []]
    splits = ["train", "train", "train", "validation", "test", "test"]
    task, kept = keep_frequent_classes(CODES, table(*labels, splits=splits), 2)
    assert task.classes == ("250", "401")
    assert kept["labels"].to_list() == [["250"], ["250", "401"], ["401"], ["401"], ["401"], []]
    task, _ = keep_frequent_classes(CODES, table(*labels, splits=splits), 1)
    assert task.classes == CODES.classes
    with pytest.raises(DataError, match=r"no class has 3 positive train notes .* has 2"):
        keep_frequent_classes(CODES, table(*labels, splits=splits), 3)


def test_binary_and_multiclass_tasks_keep_all_their_classes():
    rows = table(["short"], ["long"], splits=["train", "test"])
    assert keep_frequent_classes(STAY, rows, 5) == (STAY, rows)


@pytest.mark.parametrize(
    ("task", "one", "other"),
    [(DEATH, [], ["died"]), (STAY, ["short"], ["long"]), (CODES, ["250"], ["401"])],
)
def test_a_train_split_with_one_answer_stops_and_elsewhere_it_does_not(task, one, other):
    splits = ["train", "train", "validation", "validation", "test"]
    with pytest.raises(DataError, match="all 2 train notes have the same label"):
        check_train_classes(task, table(one, one, one, other, other, splits=splits))
    fine = table(one, other, one, other, other, splits=splits)
    check_train_classes(task, fine)
    with pytest.raises(DataError, match="the train split has no note"):
        check_train_classes(task, fine.filter(pl.col("split") != "train"))


def test_each_bound_of_the_length_of_stay_belongs_to_the_shorter_class():
    days = [-1.0, 0.0, 3.0, 3.1, 7.0, 7.1, 14.0, 14.1, 300.0]
    classes = [LENGTH_OF_STAY_CLASSES.index(length_of_stay_class(value)) for value in days]
    assert classes == [0, 0, 0, 1, 1, 2, 2, 3, 3]
