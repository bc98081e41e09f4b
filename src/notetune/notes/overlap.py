"""Leak checks between splits and corpora. Only counts come out, never a table of who matches."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.audit import Check, Finding
from notetune.notes.ids import bare_id
from notetune.notes.near_duplicates import Signatures, are_matched
from notetune.notes.overlap_text import normalised_text
from notetune.strict_csv import read_rows

OUTCOME_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mortality|death|dead|died|deceased|expired?": (
        *("expired", "died", "deceased", "pronounced", "passed away", "time of death"),
        *("cause of death", "autopsy", "comfort measures only", "hospice"),
    ),
    "length.?of.?stay|los": ("length of stay", "discharge date", "date of discharge"),
    "diagnos[ei]s": ("discharge diagnosis", "discharge diagnoses", "final diagnosis"),
    "procedures?": ("major surgical or invasive procedure", "procedures performed"),
    "ventilat(?:ed|ion)": ("tracheostomy", "extubated", "ventilator day", "prolonged ventilation"),
}
"""Words that give an outcome away, in lower case, by what its tasks are named, a pattern."""
LATE: Final = "later than the prediction time"
UNDATED: Final = "without a time"
UNFORETOLD: Final = "without a prediction time"
SAME_DAY: Final = "of the day of the prediction time, without an hour"
UNJUDGED: Final = "unjudged"
"""Column that a task table may have: why a joined note holds some that are not judged."""
_LABELLED: Final = "all labelled notes"
_SAID: Final = {
    UNDATED: "lack a time",
    UNFORETOLD: "lack a prediction time",
    SAME_DAY: "have the day of the prediction time and no hour",
}


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


def words_of(task: str) -> tuple[str, ...]:
    """Words that give away the outcome that a task's name tells, such as `died_in_hospital`."""
    return tuple(
        word
        for names, words in OUTCOME_WORDS.items()
        if re.search(rf"(?<![a-z])(?:{names})(?![a-z])", task)
        for word in words
    )


def outcome_words(task: str, split: str, texts: Iterable[str]) -> Finding:
    """How many notes hold a word that gives the outcome away; never blocks.

    The words also occur innocently ("father died of cancer"), so the count is for the report. They
    are those of `words_of`.
    """
    held_N = tell_outcome(task, texts)
    count = int(held_N.sum())
    return Finding("outcome words", task, split, count, _share(count, len(held_N)), blocks=False)


def tell_outcome(task: str, texts: Iterable[str]) -> npt.NDArray[np.bool_]:
    """`(N,)` which texts hold one of these words."""
    phrases = words_of(task)
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b" if phrases else r"(?!)")
    return np.array([pattern.search(normalised_text(t)) is not None for t in texts], np.bool_)


def not_in_time() -> pl.Expr:
    """Why a note is not known to be in time, by its `time` and `prediction_time`; null where it is.

    Midnight is what a day without an hour becomes, here and in most tables. So a note of midnight
    may be from any hour of its day, which counts only where the prediction time is on that day.
    """
    time, moment = pl.col("time"), pl.col("prediction_time")
    return (
        pl.when(moment.is_null())
        .then(pl.lit(UNFORETOLD))
        .when(time.is_null())
        .then(pl.lit(UNDATED))
        .when(time > moment)
        .then(pl.lit(LATE))
        .when(time == moment.dt.truncate("1d"))
        .then(pl.lit(SAME_DAY))
    )


def late_notes(task: str, split: str, notes: pl.DataFrame, table: pl.DataFrame) -> Finding:
    """How many notes of a task were written after its prediction time; one is enough to block.

    Notes have `time`, the task table of the split `prediction_time`. A note without either, one of
    the day of the prediction time alone, and a joined one that holds such notes cannot be judged
    and are not counted in the share.
    """
    timed = table.join(notes.select("note_id", "time"), on="note_id", how="inner")
    found = timed.with_columns(why=not_in_time())
    why = pl.col("why").replace(_SAID)
    if UNJUDGED in table.columns:
        held = pl.format("hold notes {}", UNJUDGED)
        why = pl.when(pl.col("why") == LATE).then(why).otherwise(pl.coalesce(held, why))
    counts = Counter(found.select(why)["why"].sort().drop_nulls().to_list())
    count = counts.pop(LATE, 0)
    said = "; ".join(f"{number} notes {reason}" for reason, number in counts.items())
    judged = timed.height - counts.total()
    if not judged and timed.height:
        return unjudged(LATE, task, split, said)
    return Finding(LATE, task, split, count, _share(count, judged), count > 0, not_judged=said)


def without_moment(task: str, table: pl.DataFrame) -> Finding:
    """How many labelled notes of a task have no prediction time; it blocks where others have one.

    Whose time is missing often follows from the outcome, and late notes of theirs are not found.
    """
    count = table["prediction_time"].null_count()
    share = _share(count, table.height)
    return Finding("no prediction time", task, _LABELLED, count, share, 0 < count < table.height)


def unjudged(check: Check, split_a: str, split_b: str, why: str) -> Finding:
    """That a check could not be made."""
    return Finding(check, split_a, split_b, 0, 0.0, blocks=False, is_judged=False, not_judged=why)


def listed_patients(path: Path, column: str) -> set[str]:
    """The patients that a column of a CSV file names.

    Raises:
        DataError: If the file is faulty.
    """
    return {row.cells[0].strip() for row in read_rows(path, [column])}


def notes_of_listed_patients(
    notes: pl.DataFrame, path: Path, column: str = "SUBJECT_ID"
) -> pl.Series:
    """The ids of the notes whose patient is named in a column of a CSV file, in their order.

    7, 007 and 7.0 are one patient.

    For scores on a part of the test patients, such as those of the MIMIC-III CareVue subset: none
    of them is in MIMIC-IV, so no adapter trained on MIMIC-IV has seen their notes.

    Raises:
        DataError: If the file is faulty.
    """
    listed = set(map(bare_id, listed_patients(path, column)))
    is_listed = [bare_id(patient) in listed for patient in notes["patient_id"].to_list()]
    return notes.filter(pl.Series(is_listed, dtype=pl.Boolean))["note_id"]


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
