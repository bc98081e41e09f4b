"""Test notes that may give an outcome away, so that scores can be shown without them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.notes import overlap
from notetune.notes.near_duplicates import are_matched
from notetune.prepare.prepared import Prepared
from notetune.prepare.shards import NOTES, SIGNATURES
from notetune.sources.cohort import PREDICTION_TIME


def suspect_notes(prepared: Prepared, task: str) -> Mapping[str, npt.NDArray[np.str_]]:
    """Ids of the test notes of a task that a leak check finds, by what was found; all others pass.

    These are the checks of the report's leak table, note by note: a word that tells the outcome, a
    training note with equal or nearly equal text, a time after the prediction.
    """
    table = prepared.tasks[task]
    note_ids_N = table.note_ids_N[table.rows("test")]
    tells_N = overlap.tell_outcome(task, prepared.texts(note_ids_N))
    notes = pl.read_parquet(prepared.folder / NOTES)
    signatures = np.load(prepared.folder / SIGNATURES, mmap_mode="r")
    place = {note_id: row for row, note_id in enumerate(notes["note_id"])}
    rows_N = [place[note_id] for note_id in note_ids_N]
    is_train = notes["split"].eq("train").to_numpy()
    found = {
        "words that tell the outcome": tells_N,
        "a text nearly that of a training note": are_matched(
            signatures[is_train], signatures[rows_N]
        ),
        "written after the prediction time": _are_late(prepared, task, notes[rows_N]),
    }
    return {what: note_ids_N[found_N] for what, found_N in found.items() if found_N.any()}


def _are_late(prepared: Prepared, task: str, notes: pl.DataFrame) -> npt.NDArray[np.bool_]:
    table = pl.read_parquet(prepared.folder / "tasks" / f"{task}.parquet")
    if PREDICTION_TIME not in table.columns:
        return np.zeros(notes.height, np.bool_)
    timed = notes.join(table.select("note_id", PREDICTION_TIME), on="note_id", how="left")
    late: npt.NDArray[np.bool_] = (
        timed["time"].gt(timed[PREDICTION_TIME]).fill_null(False).to_numpy()
    )
    return late
