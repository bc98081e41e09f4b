"""Leak checks between splits and corpora. Only counts come out, never a table of who matches."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.audit import Check, Finding
from notetune.errors import DataError
from notetune.notes.near_duplicates import Signatures, are_matched
from notetune.notes.overlap_text import normalised_text
from notetune.strict_csv import read_rows

OUTCOME_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mortality": (
        *("expired", "died", "deceased", "pronounced", "passed away", "time of death"),
        *("cause of death", "autopsy", "comfort measures only", "hospice"),
    ),
    "length_of_stay": ("length of stay", "discharge date", "date of discharge"),
    "diagnoses": ("discharge diagnosis", "discharge diagnoses", "final diagnosis"),
    "procedures": ("major surgical or invasive procedure", "procedures performed"),
    "ventilation": ("tracheostomy", "extubated", "ventilator day", "prolonged ventilation"),
}
"""Words that give an outcome away, by task, in lower case."""


def shared_patients(
    split_a: str,
    patients_a: Iterable[str],
    split_b: str,
    patients_b: Iterable[str],
    *,
    are_named: bool = True,
) -> Finding:
    """How many patients of b are also in a; one is enough to block.

    Where the notes do not name their patients (not `are_named`), that is not judged.
    """
    if not are_named:
        return unjudged("same patient", split_a, split_b, "no patient ids")
    ours, theirs = set(patients_b), set(patients_a)
    count = len(ours & theirs)
    return Finding("same patient", split_a, split_b, count, _share(count, len(ours)), count > 0)


def near_duplicate_texts(
    split_a: str, signatures_a: Signatures, split_b: str, signatures_b: Signatures
) -> Finding:
    """How many notes of b are nearly the same as a note of a, exact copies included; never blocks.

    Signatures are those of `near_duplicates.signatures`; those of chunks can be concatenated.
    """
    count = int(are_matched(signatures_a, signatures_b).sum())
    share = _share(count, len(signatures_b))
    return Finding("near-duplicate text", split_a, split_b, count, share, blocks=False)


def outcome_words(task: str, split: str, texts: Iterable[str]) -> Finding:
    """How many notes hold a word that gives the outcome away; never blocks.

    The words also occur innocently ("father died of cancer"), so the count is for the report. They
    are those of `OUTCOME_WORDS`; a task that is not in there has none.
    """
    held_N = tell_outcome(task, texts)
    count = int(held_N.sum())
    return Finding("outcome words", task, split, count, _share(count, len(held_N)), blocks=False)


def tell_outcome(task: str, texts: Iterable[str]) -> npt.NDArray[np.bool_]:
    """`(N,)` which texts hold one of these words."""
    phrases = OUTCOME_WORDS.get(task, ())
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b" if phrases else r"(?!)")
    return np.array([pattern.search(normalised_text(t)) is not None for t in texts], np.bool_)


def late_notes(task: str, split: str, notes: pl.DataFrame, table: pl.DataFrame) -> Finding:
    """How many notes of a task were written after its prediction time; one is enough to block.

    Notes have `time`, the task table of the split `prediction_time`. A note without either cannot
    be judged and is not counted in the share.
    """
    check: Final = "later than the prediction time"
    timed = table.join(notes.select("note_id", "time"), on="note_id", how="inner")
    judged = timed.select("time", "prediction_time").drop_nulls()
    count = judged.filter(pl.col("time") > pl.col("prediction_time")).height
    if judged.is_empty() and timed.height:
        return unjudged(check, task, split, "no note has both times")
    without = timed.height - judged.height
    share = _share(count, judged.height)
    said = f"{without} notes lack a time" if without else ""
    return Finding(check, task, split, count, share, count > 0, not_judged=said)


def unjudged(check: Check, split_a: str, split_b: str, why: str) -> Finding:
    """That a check could not be made."""
    return Finding(check, split_a, split_b, 0, 0.0, blocks=False, is_judged=False, not_judged=why)


def notes_of_listed_patients(
    notes: pl.DataFrame, path: Path, column: str = "SUBJECT_ID"
) -> pl.Series:
    """The ids of the notes whose patient is named in a column of a CSV file, in their order.

    For scores on a part of the test patients, such as those of the MIMIC-III CareVue subset: none
    of them is in MIMIC-IV, so no adapter trained on MIMIC-IV has seen their notes.

    Raises:
        DataError: If the file is faulty or names none of the patients.
    """
    listed = {row.cells[0].strip() for row in read_rows(path, [column])}
    kept = notes.filter(pl.col("patient_id").is_in(listed))["note_id"]
    if kept.is_empty():
        patients = notes["patient_id"].n_unique()
        raise DataError(
            f"{path} names none of the {patients} patients; is {column} the patient id of the same "
            "data set?"
        )
    return kept


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
