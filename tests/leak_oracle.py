"""The leak checks between splits, on texts that are all in memory."""

import itertools

import polars as pl

from notetune.audit import Finding
from notetune.notes.near_duplicates import signatures
from notetune.notes.outcomes import SPLITS
from notetune.notes.overlap import near_duplicate_texts, shared_patients
from notetune.notes.overlap_text import normalised_text


def split_findings(table):
    """For each pair of splits of a table: shared patients, equal texts and nearly equal ones."""
    parts = {name: table.filter(pl.col("split") == name) for name in SPLITS}
    return tuple(
        finding
        for a, b in itertools.combinations(SPLITS, 2)
        for finding in (
            shared_patients(a, parts[a]["patient_id"], b, parts[b]["patient_id"]),
            shared_texts(a, parts[a]["text"], b, parts[b]["text"]),
            near_duplicate_texts(a, signatures(parts[a]["text"]), b, signatures(parts[b]["text"])),
        )
    )


def shared_texts(split_a, texts_a, split_b, texts_b):
    """How many notes of b have the normalised text of a note of a."""
    known = {normalised_text(text) for text in texts_a}
    count = sum(normalised_text(text) in known for text in texts_b)
    share = count / len(texts_b) if len(texts_b) else 0.0
    return Finding("same text", split_a, split_b, count, share, blocks=False)
