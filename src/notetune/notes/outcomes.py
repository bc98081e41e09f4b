"""Outcome tasks as values: what a note is asked, which answers are allowed, and their checks.

A task table has the columns `note_id` and `labels` (a list of class names): `[]` or the one class
for a binary task, exactly one class for a multiclass task, any number for a multilabel task. Where
a note may stand several times, `sample_id` tells its rows apart. After splitting it also has
`patient_id` and `split`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.aliases import TaskKind
from notetune.errors import DataError

SPLITS: Final = ("train", "validation", "test")

LENGTH_OF_STAY_CLASSES: Final = ("<=3 days", "3-7 days", "7-14 days", ">14 days")
"""Source: van Aken et al. 2021 (CORe): at most 3, over 3 to 7, over 7 to 14, over 14 days."""


@dataclass(frozen=True)
class Task:
    """One outcome. K = `len(classes)`; a binary task has one class, the positive one.

    `class_descriptions` are words for some classes, one line each, for readers alone.

    Raises:
        DataError: If the number of classes does not fit the kind, or a class is repeated or blank.
    """

    name: str
    kind: TaskKind
    classes: tuple[str, ...]
    description: str = ""
    class_descriptions: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        count = len(self.classes)
        allowed = {"binary": count == 1, "multiclass": count >= 2, "multilabel": count >= 1}
        if not allowed[self.kind]:
            need = {"binary": "exactly 1 (the positive one)", "multiclass": "2 or more"}
            raise DataError(
                f"task {self.name}: {count} classes for a {self.kind} task, which needs "
                f"{need.get(self.kind, '1 or more')}. Check its label column."
            )
        if len(set(self.classes)) != count or not all(name.strip() for name in self.classes):
            raise DataError(f"task {self.name}: a class is repeated or blank. Name each one once.")


def check_labels(task: Task, table: pl.DataFrame) -> None:
    """Check every row of a task table, its columns `note_id` and `labels`, against the task.

    Raises:
        DataError: At the first faulty note, by its id: a missing label, an unknown class, a class
            given twice, or a number of labels that the kind does not allow. The label itself is
            not shown, since a wrongly named column could put note text there.
    """
    labels = pl.col("labels")
    count = labels.list.len()
    wrong_count, need = {
        "binary": (count > 1, "at most 1 label"),
        "multiclass": (count != 1, "exactly 1 label"),
        "multilabel": (pl.lit(value=False), ""),
    }[task.kind]
    known = pl.element().is_in(list(task.classes), nulls_equal=True)
    more = f" and {len(task.classes) - 5} more" if len(task.classes) > 5 else ""
    allowed = f"allowed are {', '.join(task.classes[:5])}{more}"
    rules = (
        (labels.is_null() | labels.list.contains(None), "has no label", "fill it in"),
        (~labels.list.eval(known).list.all(), "has an unknown class", allowed),
        (wrong_count, f"does not have {need}", f"a {task.kind} task needs {need}"),
        (count != labels.list.n_unique(), "has a class twice", "name each class once"),
    )
    for is_bad, problem, remedy in rules:
        bad = table.filter(is_bad)["note_id"]
        if bad.len():
            raise DataError(
                f"task {task.name}: note {bad[0]} {problem} ({bad.len()} of {table.height} notes); "
                f"{remedy}, or leave the note out."
            )


def label_matrix(task: Task, table: pl.DataFrame) -> npt.NDArray[np.int8]:
    """The labels as zeros and ones, `(N, K)` int8: rows of the table by classes of the task.

    Raises:
        DataError: As `check_labels`.
    """
    check_labels(task, table)
    matrix_NK = np.zeros((table.height, len(task.classes)), dtype=np.int8)
    column_of = pl.DataFrame({"labels": task.classes, "column": range(len(task.classes))})
    rows = table.select("labels").with_row_index("row").explode("labels", empty_as_null=False)
    positives = rows.join(column_of, on="labels")
    matrix_NK[positives["row"].to_numpy(), positives["column"].to_numpy()] = 1
    return matrix_NK


def keep_frequent_classes(
    task: Task, table: pl.DataFrame, min_train_positives: int
) -> tuple[Task, pl.DataFrame]:
    """A multilabel task reduced to the classes with enough positive notes in the TRAIN `split`.

    Validation and test never choose a class, so that nothing about them reaches the model. A note
    that loses all its labels stays, with an empty list. Other kinds come back unchanged: there a
    dropped class would leave its notes without an answer.

    Raises:
        DataError: If no class has that many.
    """
    if task.kind != "multilabel":
        return task, table
    counts = _positives_per_class(table.filter(pl.col("split") == "train"))
    kept = tuple(name for name in task.classes if counts.get(name, 0) >= min_train_positives)
    if not kept:
        most = max(counts.values(), default=0)
        raise DataError(
            f"task {task.name}: no class has {min_train_positives} positive train notes (the most "
            f"frequent has {most}). Lower min_train_positives or add notes."
        )
    filtered = pl.col("labels").list.filter(pl.element().is_in(list(kept)))
    return replace(task, classes=kept), table.with_columns(filtered)


def check_train_classes(task: Task, table: pl.DataFrame) -> None:
    """Stop where the train split cannot teach the task.

    Raises:
        DataError: If the train split is empty, or all of its notes have the same answer (for a
            multilabel task: if no class varies).
    """
    train = table.filter(pl.col("split") == "train")
    if train.is_empty():
        raise DataError(f"task {task.name}: the train split has no note. Check the split settings.")
    counts = _positives_per_class(train)
    if not any(0 < counts.get(name, 0) < train.height for name in task.classes):
        raise DataError(
            f"task {task.name}: all {train.height} train notes have the same label; 2 or more "
            "different ones are needed. Add notes of another outcome or drop the task."
        )


def _positives_per_class(table: pl.DataFrame) -> dict[str, int]:
    labels = table["labels"].list.unique().explode(empty_as_null=False).drop_nulls()
    return dict(labels.value_counts().iter_rows())


def length_of_stay_class(days: float) -> str:
    """The class of a hospital stay; each upper bound belongs to the shorter class.

    Example:
        >>> length_of_stay_class(3.0), length_of_stay_class(3.1), length_of_stay_class(14.5)
        ('<=3 days', '3-7 days', '>14 days')
    """
    return LENGTH_OF_STAY_CLASSES[sum(days > bound for bound in (3.0, 7.0, 14.0))]


def classes_in(label_lists: Sequence[Sequence[str]] | pl.Series) -> tuple[str, ...]:
    """Every class that occurs in the lists, sorted."""
    return tuple(sorted({name for labels in label_lists for name in labels}))
