"""The CSV files that the published 2021 scripts write, from a cohort read by their rules."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from notetune import storage
from notetune.errors import DataError
from notetune.notes.outcomes import Task
from notetune.sources.cohort import Cohort
from notetune.strict_csv import read_table

_FILES: Final = {
    "mortality": ("MP_IN_adm", "hospital_expire_flag"),
    "length_of_stay": ("LOS_WEEKS_adm", "los_label"),
    "diagnoses": ("DIA_GROUPS_3_DIGITS_adm", "short_codes"),
    "procedures": ("PRO_GROUPS_3_DIGITS_adm", "short_codes"),
}
_CLASS_FILES: Final = {
    "diagnoses": "ALL_3_DIGIT_DIA_CODES.txt",
    "procedures": "ALL_3_DIGIT_PRO_CODES.txt",
}
SHUFFLE_SEED: Final = 123
"""Default of the published scripts."""


def write_core2021_files(
    folder: Path, cohort: Cohort, splits: Mapping[str, Path], seed: int = SHUFFLE_SEED
) -> tuple[Path, ...]:
    """Write the task files as published: rows, order, quoting and label lists.

    Args:
        folder: Gets MP_IN_adm_*, LOS_WEEKS_adm_*, DIA_GROUPS_3_DIGITS_adm_* and
            PRO_GROUPS_3_DIGITS_adm_*.csv per split, and ALL_3_DIGIT_{DIA,PRO}_CODES.txt.
        cohort: Of a `Mimic3Source` with `labels: core-2021`.
        splits: "train", "val" and "test" to the published file of SUBJECT_IDs.
        seed: Of the shuffle of each split.

    Returns:
        The files.

    Raises:
        DataError: If the cohort lacks one of the four tasks, or a split file is faulty.
        RunError: If one of the files exists.

    Source:
        Data specification, section 2.4; the shuffle is pandas' `sample(frac=1)`, which is a
        permutation by numpy's legacy generator.
    """
    patients = {
        name: set(read_table(path, ["SUBJECT_ID"])["SUBJECT_ID"]) for name, path in splits.items()
    }
    tasks = {task.name: (task, table) for task, table in cohort.tasks}
    if missing := [name for name in _FILES if name not in tasks]:
        raise DataError(f"the cohort has no task {missing[0]}; read it with labels: core-2021.")
    written = []
    for name, (stem, label_column) in _FILES.items():
        task, table = tasks[name]
        rows = table.join(cohort.notes, on="note_id", how="left", maintain_order="left")
        for split, ids in patients.items():
            path = folder / f"{stem}_{split}.csv"
            chosen = rows.filter(pl.col("patient_id").is_in(list(ids)))
            _write(path, ("id", "text", label_column), _cells(task, _shuffled(chosen, seed)))
            written.append(path)
        if name in _CLASS_FILES:
            path = folder / _CLASS_FILES[name]
            storage.write_text(path, " ".join(task.classes), replaces=False)
            written.append(path)
    return tuple(written)


def _shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    # The legacy generator is the point: its permutation is the published order of rows.
    return rows[np.random.RandomState(seed).permutation(rows.height)]


def _cells(task: Task, rows: pl.DataFrame) -> Iterable[tuple[str, str, str]]:
    for note_id, text, labels in rows.select("note_id", "text", "labels").iter_rows():
        yield note_id.split("-")[1], text, _label(task, labels)


def _label(task: Task, labels: list[str]) -> str:
    match task.kind:
        case "binary":
            return str(len(labels))
        case "multiclass":
            return str(task.classes.index(labels[0]))
        case "multilabel":
            return ",".join(labels)


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    storage.write_text(path, text.getvalue(), replaces=False)
