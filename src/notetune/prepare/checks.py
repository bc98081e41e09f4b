"""Leak checks on notes whose texts do not fit into memory: from what the shards keep."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from notetune.audit import Finding, FlowCount
from notetune.notes import overlap
from notetune.notes.near_duplicates import Signatures, are_matched, have_earlier_match
from notetune.notes.outcomes import SPLITS, Task
from notetune.prepare.settings import Preparation
from notetune.prepare.shards import (
    NOTES,
    SIGNATURES,
    TEXT_HASH,
    Shard,
    slices,
    text_signatures,
    texts_of,
)
from notetune.sources.cohort import PREDICTION_TIME

CORPUS = "corpus of step 1"
_HELD_OUT = "the validation and test notes"
HeldOut = Path | Literal["own"] | None
"""A prepared folder whose validation and test notes step 1 may not read of; those of the same
notes; or none, since step 1 reads other notes."""


def split_findings(
    shards: Sequence[Shard], notes: pl.DataFrame, *, has_patients: bool
) -> list[Finding]:
    """What `overlap.split_findings` finds in the notes of all shards.

    Args:
        shards: All shards.
        notes: Their notes, with `patient_id`, the hash of the text, and `split`, which is null for
            notes that are in none.
        has_patients: Whether the notes name their patients.
    """
    parts = {name: notes.filter(pl.col("split") == name) for name in SPLITS}
    signatures = {name: signatures_of(shards, notes["split"] == name) for name in SPLITS}
    return [
        finding
        for a, b in itertools.combinations(SPLITS, 2)
        for finding in (
            overlap.shared_patients(
                a, _patients(parts[a]), b, _patients(parts[b]), are_named=has_patients
            ),
            _shared_hashes(a, parts[a][TEXT_HASH], b, parts[b][TEXT_HASH]),
            overlap.near_duplicate_texts(a, signatures[a], b, signatures[b]),
        )
    ]


def task_findings(
    shards: Sequence[Shard], notes: pl.DataFrame, tasks: Sequence[tuple[Task, pl.DataFrame]]
) -> list[Finding]:
    """Notes of each task and split that tell its outcome, by their words or by their time.

    Args:
        shards: All shards.
        notes: Their notes, with `time`.
        tasks: Each with its table: `note_id`, `split` and, where it is known, the prediction time.
    """
    findings = []
    for task, table in tasks:
        for split in SPLITS:
            part = table.filter(pl.col("split") == split)
            if task.name in overlap.OUTCOME_WORDS:
                texts = texts_of(shards, notes["note_id"].is_in(part["note_id"].implode()))
                findings.append(overlap.outcome_words(task.name, split, texts))
            if PREDICTION_TIME in table.columns:
                findings.append(overlap.late_notes(task.name, split, notes, part))
    return findings


def repeats_in_training(shards: Sequence[Shard], notes: pl.DataFrame) -> pl.Series:
    """Which notes are training notes that are nearly the same as an earlier training note."""
    is_train = (notes["split"] == "train").fill_null(value=False)
    is_repeat = np.zeros(notes.height, np.bool_)
    if is_train.any():
        is_repeat[is_train.to_numpy()] = have_earlier_match(signatures_of(shards, is_train))
    return pl.Series("is_repeat", is_repeat)


@dataclass(frozen=True)
class CorpusNotes:
    """Which notes step 1 may read.

    Attributes:
        in_corpus: Boolean, over all notes; those outside training do not matter.
        flow: What was left out of the training notes.
        findings: What was found of texts that step 1 may not read.
    """

    in_corpus: pl.Series
    flow: FlowCount
    findings: tuple[Finding, ...]


def corpus_notes(
    spec: Preparation, shards: Sequence[Shard], notes: pl.DataFrame, held_out: HeldOut
) -> CorpusNotes:
    """The training notes that step 1 may read.

    Args:
        spec: What to do with those of held-out texts, and with repeats.
        shards: All shards.
        notes: Their notes, with `split`.
        held_out: What step 1 may not read of.
    """
    is_train = notes["split"].eq_missing("train")
    is_repeat = is_leaked = pl.Series([False]).new_from_index(0, notes.height)
    if spec.config.drop_near_duplicates:
        is_repeat = repeats_in_training(shards, notes)
    findings = []
    if held_out is not None:
        theirs = _held_out(shards, notes) if held_out == "own" else _held_out_of(held_out)
        is_leaked = _matches_in_training(shards, notes, theirs)
        is_dropped = spec.leaked_texts == "drop"
        findings = [_leak_finding(int(is_leaked.sum()), int(is_train.sum()), blocks=not is_dropped)]
        is_leaked = is_leaked & is_dropped
    in_corpus = ~(is_repeat | is_leaked)
    reasons = {
        "equal or nearly equal to a validation or test note": int(is_leaked.sum()),
        "nearly the same as an earlier note": int((is_repeat & ~is_leaked).sum()),
    }
    kept = int((in_corpus & is_train).sum())
    flow = FlowCount("training notes of step 1", int(is_train.sum()), kept, reasons)
    return CorpusNotes(in_corpus.alias("in_corpus"), flow, tuple(findings))


def _leak_finding(leaked: int, training: int, *, blocks: bool) -> Finding:
    share = leaked / training if training else 0.0
    check: Literal["near-duplicate text"] = "near-duplicate text"
    return Finding(check, _HELD_OUT, CORPUS, leaked, share, blocks and leaked > 0)


def _held_out(shards: Sequence[Shard], notes: pl.DataFrame) -> Signatures:
    """The signatures of the validation and test notes."""
    return signatures_of(shards, notes["split"].is_in(["validation", "test"]))


def _held_out_of(folder: Path) -> Signatures:
    """The same of a prepared folder."""
    splits_N = pl.read_parquet(folder / NOTES, columns=["split"])["split"]
    signatures_N: Signatures = np.load(folder / SIGNATURES)
    return np.compress(splits_N.is_in(["validation", "test"]).to_numpy(), signatures_N, axis=0)


def _matches_in_training(
    shards: Sequence[Shard], notes: pl.DataFrame, held_out: Signatures
) -> pl.Series:
    """Which notes are training notes with the text, or nearly the text, of a held-out note."""
    is_train = notes["split"].eq_missing("train")
    is_leaked = np.zeros(notes.height, np.bool_)
    if is_train.any():
        is_leaked[is_train.to_numpy()] = are_matched(held_out, signatures_of(shards, is_train))
    return pl.Series("is_leaked", is_leaked)


def _patients(notes: pl.DataFrame) -> list[str]:
    return notes["patient_id"].unique().to_list()


def _shared_hashes(split_a: str, hashes_a: pl.Series, split_b: str, hashes_b: pl.Series) -> Finding:
    count = int(hashes_b.is_in(hashes_a.implode()).sum())
    share = count / len(hashes_b) if len(hashes_b) else 0.0
    return Finding("same text", split_a, split_b, count, share, blocks=False)


def signatures_of(shards: Sequence[Shard], is_wanted: pl.Series) -> Signatures:
    """The signatures of some notes, without a copy of all of them."""
    rows = _wanted_signatures(shards, is_wanted.fill_null(value=False))
    first = next(rows)
    found = np.empty((int(is_wanted.sum()), *first.shape[1:]), first.dtype)
    end = 0
    for block in itertools.chain([first], rows):
        found[end : end + len(block)] = block
        end += len(block)
    return found


def _wanted_signatures(shards: Sequence[Shard], is_wanted: pl.Series) -> Iterator[Signatures]:
    for shard, wanted in slices(shards, is_wanted):
        yield text_signatures(shard)[wanted.to_numpy()]
