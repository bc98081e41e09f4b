"""Leak checks on notes whose texts do not fit into memory: from what the shards keep."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from notetune.notes import overlap
from notetune.notes.near_duplicates import Signatures, have_earlier_match
from notetune.notes.outcomes import SPLITS, Task
from notetune.notes.sources.cohort import PREDICTION_TIME
from notetune.workflows.prepare_shards import TEXT_HASH, Shard, slices, text_signatures, texts_of


def split_findings(shards: Sequence[Shard], notes: pl.DataFrame) -> list[overlap.Finding]:
    """What `overlap.split_findings` finds in the notes of all shards.

    Args:
        shards: All shards.
        notes: Their notes, with `patient_id`, the hash of the text, and `split`, which is null for
            notes that are in none.
    """
    parts = {name: notes.filter(pl.col("split") == name) for name in SPLITS}
    signatures = {name: _signatures_of(shards, notes["split"] == name) for name in SPLITS}
    return [
        finding
        for a, b in itertools.combinations(SPLITS, 2)
        for finding in (
            overlap.shared_patients(a, _patients(parts[a]), b, _patients(parts[b])),
            _shared_hashes(a, parts[a][TEXT_HASH], b, parts[b][TEXT_HASH]),
            overlap.near_duplicate_texts(a, signatures[a], b, signatures[b]),
        )
    ]


def task_findings(
    shards: Sequence[Shard], notes: pl.DataFrame, tasks: Sequence[tuple[Task, pl.DataFrame]]
) -> list[overlap.Finding]:
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
        is_repeat[is_train.to_numpy()] = have_earlier_match(_signatures_of(shards, is_train))
    return pl.Series("is_repeat", is_repeat)


def _patients(notes: pl.DataFrame) -> list[str]:
    return notes["patient_id"].unique().to_list()


def _shared_hashes(
    split_a: str, hashes_a: pl.Series, split_b: str, hashes_b: pl.Series
) -> overlap.Finding:
    count = int(hashes_b.is_in(hashes_a.implode()).sum())
    share = count / len(hashes_b) if len(hashes_b) else 0.0
    return overlap.Finding("same text", split_a, split_b, count, share, blocks=False)


def _signatures_of(shards: Sequence[Shard], is_wanted: pl.Series) -> Signatures:
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
