"""Test notes that may give an outcome away, so that scores can be shown without them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.notes import overlap
from notetune.notes.near_duplicates import are_matched
from notetune.prepare.checks import late_note_ids
from notetune.prepare.prepared import Prepared
from notetune.prepare.shards import NOTES, SIGNATURES

Suspects = Mapping[str, npt.NDArray[np.str_]]
"""Ids of notes, or of their samples, by what was found in them."""


def suspect_notes(prepared: Prepared) -> dict[str, Suspects]:
    """The test notes that a leak check finds, of each task that has any.

    These are the checks of the report's leak table, note by note: a word that tells the outcome, a
    training note with equal or nearly equal text, a time after the prediction.
    """
    notes = pl.read_parquet(
        prepared.folder / NOTES, columns=["note_id", "split", "time"], glob=False
    )
    signatures_N = np.load(prepared.folder / SIGNATURES, mmap_mode="r")
    is_train_N, is_test_N = (notes["split"].eq(name).to_numpy() for name in ("train", "test"))
    found_N = are_matched(signatures_N[is_train_N], signatures_N[is_test_N])
    repeated = notes["note_id"].to_numpy()[is_test_N][found_N].astype(np.str_)
    found = {task: _of_task(prepared, task, notes, repeated) for task in prepared.tasks}
    return {task: suspects for task, suspects in found.items() if suspects}


def _of_task(
    prepared: Prepared, task: str, notes: pl.DataFrame, repeated: npt.NDArray[np.str_]
) -> Suspects:
    table = prepared.tasks[task]
    note_ids_N = table.note_ids_N[table.rows("test")]
    labels = pl.read_parquet(prepared.folder / "tasks" / f"{task}.parquet", glob=False)
    late = late_note_ids(notes, labels).to_list()
    found = {
        "words that tell the outcome": overlap.tell_outcome(task, prepared.texts(note_ids_N)),
        "a text nearly that of a training note": np.isin(note_ids_N, repeated),
        "written after the prediction time": np.isin(note_ids_N, late),
    }
    ids_N = table.sample_ids_N[table.rows("test")]
    return {what: ids_N[found_N] for what, found_N in found.items() if found_N.any()}
