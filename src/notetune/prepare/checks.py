"""Leak checks on notes whose texts do not fit into memory: from what the shards keep."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.audit import CORPUS, Finding, FlowCount
from notetune.errors import DataError
from notetune.notes import overlap
from notetune.notes.near_duplicates import Signatures, are_matched, have_earlier_match
from notetune.notes.outcomes import SPLITS, Task
from notetune.prepare.settings import Preparation
from notetune.prepare.shards import NOTES, SIGNATURES, TEXT_HASH, Shard, signatures_of, texts_of
from notetune.sources.cohort import PREDICTION_TIME

_ALL = "all notes"
_HELD_OUT = "the validation and test notes"
HeldOut = Path | Literal["own"] | None
"""A prepared folder whose validation and test notes step 1 may not read of; those of the same
notes; or none, since step 1 reads other notes."""


def split_findings(
    shards: Sequence[Shard], notes: pl.DataFrame, *, has_patients: bool
) -> list[Finding]:
    """Patients, texts and near-duplicates that splits share; `notes` in no split are left out."""
    parts = {name: notes.filter(pl.col("split") == name) for name in SPLITS}
    patients = {name: part["patient_id"].unique().to_list() for name, part in parts.items()}
    signatures = {name: signatures_of(shards, notes["split"] == name) for name in SPLITS}
    return [
        finding
        for a, b in itertools.combinations(SPLITS, 2)
        for finding in (
            overlap.shared_patients(a, patients[a], b, patients[b], are_named=has_patients),
            _shared_hashes(a, parts[a][TEXT_HASH], b, parts[b][TEXT_HASH]),
            overlap.near_duplicate_texts(a, signatures[a], b, signatures[b]),
        )
    ]


def task_findings(
    shards: Sequence[Shard], notes: pl.DataFrame, tasks: Sequence[tuple[Task, pl.DataFrame]]
) -> Iterator[Finding]:
    """Notes of each task and split that tell its outcome, by their words or by their time.

    The tables of the tasks have `note_id`, `split` and, where it is known, the prediction time.
    """
    for task, table in tasks:
        parts = {split: table.filter(pl.col("split") == split) for split in SPLITS}
        if overlap.words_of(task.name):
            for split, part in parts.items():
                texts = texts_of(shards, notes["note_id"].is_in(part["note_id"].implode()))
                yield overlap.outcome_words(task.name, split, texts)
        else:
            why = "no words are listed for this outcome"
            yield overlap.unjudged("outcome words", task.name, _ALL, why)
        if PREDICTION_TIME in table.columns:
            yield overlap.without_moment(task.name, table)
            for split, part in parts.items():
                yield overlap.late_notes(task.name, split, notes, part)
        else:
            why = "the task has no prediction time"
            yield overlap.unjudged("later than the prediction time", task.name, _ALL, why)


def late_note_ids(
    notes: pl.DataFrame, table: pl.DataFrame, reason: str = overlap.LATE
) -> pl.Series:
    """The notes of a task table that `reason` keeps from being in time, where it has such a time.

    Reasons are those of `overlap.not_in_time`.
    """
    if PREDICTION_TIME not in table.columns:
        return pl.Series([], dtype=pl.String)
    timed = table.select("note_id", PREDICTION_TIME).join(notes, on="note_id", how="left")
    return timed.filter(overlap.not_in_time() == reason)["note_id"]


def corpus_notes(
    spec: Preparation, shards: Sequence[Shard], notes: pl.DataFrame, held_out: HeldOut
) -> tuple[pl.Series, FlowCount, list[Finding]]:
    """The training notes that step 1 may read.

    Returns:
        Which of all notes these are (those outside training do not matter), what was left out, and
        what was found of texts that step 1 may not read.
    """
    is_train = notes["split"].eq_missing("train")
    trained = int(is_train.sum())
    ours = functools.cache(lambda: signatures_of(shards, is_train))
    is_repeat = is_leaked = pl.repeat(value=False, n=notes.height, eager=True)
    if spec.config.drop_near_duplicates and trained:
        is_repeat = _in_training(is_train, have_earlier_match(ours()))
    findings = []
    if held_out is not None:
        if trained:
            found_N = are_matched(_held_out(shards, notes, held_out), ours())
            is_leaked = _in_training(is_train, found_N)
        leaked, is_dropped = int(is_leaked.sum()), spec.leaked_texts == "drop"
        share, blocks = leaked / trained if trained else 0.0, leaked > 0 and not is_dropped
        findings = [Finding("near-duplicate text", _HELD_OUT, CORPUS, leaked, share, blocks)]
        is_leaked = is_leaked & is_dropped
    in_corpus = ~(is_repeat | is_leaked)
    reasons = {
        "equal or nearly equal to a validation or test note": int(is_leaked.sum()),
        "nearly the same as an earlier note": int((is_repeat & ~is_leaked).sum()),
    }
    kept = int((in_corpus & is_train).sum())
    return in_corpus, FlowCount("training notes of step 1", trained, kept, reasons), findings


def _in_training(is_train: pl.Series, found_N: npt.NDArray[np.bool_]) -> pl.Series:
    """What was found of the training notes, over all notes."""
    found = np.zeros(len(is_train), np.bool_)
    found[is_train.to_numpy()] = found_N
    return pl.Series(found)


def _held_out(
    shards: Sequence[Shard], notes: pl.DataFrame, held_out: Path | Literal["own"]
) -> Signatures:
    """The signatures of the validation and test notes that step 1 may not read of."""
    if held_out == "own":
        return signatures_of(shards, notes["split"].is_in(["validation", "test"]))
    split_N = pl.read_parquet(held_out / NOTES, columns=["split"], glob=False)["split"]
    signatures_N: Signatures = np.load(held_out / SIGNATURES)
    return np.compress(split_N.is_in(["validation", "test"]).to_numpy(), signatures_N, axis=0)


def _shared_hashes(split_a: str, hashes_a: pl.Series, split_b: str, hashes_b: pl.Series) -> Finding:
    count = int(hashes_b.is_in(hashes_a.implode()).sum())
    share = count / len(hashes_b) if len(hashes_b) else 0.0
    return Finding("same text", split_a, split_b, count, share, blocks=False)


def stop_at_leaks(findings: Iterable[Finding]) -> None:
    """Refuse what blocks training.

    Raises:
        DataError: If one of the findings does.
    """
    blocking = [finding for finding in findings if finding.blocks]
    if blocking:
        first, remedy = blocking[0], "Mend the split or the notes"
        if first.split_b == CORPUS:
            remedy = "Set pretrain.leaked_texts=drop to leave them out of step 1"
        elif first.check == "later than the prediction time":
            remedy = "Set prepare.late_notes=drop to leave them out of the task"
        elif first.check == "no prediction time":
            remedy = "Fill it in, or set prepare.late_notes=drop to leave them out of the task"
        raise DataError(
            f"leak check: {first.sentence}. {remedy}, or set "
            "prepare.allow_leaks=true to go on; the report will say so."
        )
