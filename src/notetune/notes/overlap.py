"""Leak checks between splits and corpora. Only counts come out, never a table of who matches."""

import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from notetune.notes.outcomes import SPLITS

# The bounds keep both patterns linear on text with many marks that open and never close.
_MARKS = re.compile(r"\[\*\*.{0,200}?\*\*\]|_{3,}", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """The result of one check; a count of zero says that it was made and found nothing.

    `count` is the number of patients or notes of `split_b` that are also in `split_a`, and `share`
    that number over all of `split_b` (0.0 where it is empty).
    """

    check: Literal["same patient", "same text"]
    split_a: str
    split_b: str
    count: int
    share: float
    blocks: bool
    """Whether training must stop, unless the user overrides it and the report says so."""


def split_findings(table: pl.DataFrame) -> tuple[Finding, ...]:
    """Both checks over every pair of splits.

    Args:
        table: Columns `patient_id`, `split` and `text`, one row per note.

    Returns:
        For each of (train, validation), (train, test) and (validation, test): the patient check,
        then the text check.
    """
    parts = {name: table.filter(pl.col("split") == name) for name in SPLITS}
    hashes = {name: text_hashes(part["text"]) for name, part in parts.items()}
    return tuple(
        finding
        for a, b in itertools.combinations(SPLITS, 2)
        for finding in (
            shared_patients(a, parts[a]["patient_id"], b, parts[b]["patient_id"]),
            _shared_hashes(a, hashes[a], b, hashes[b]),
        )
    )


def shared_patients(
    split_a: str, patients_a: Iterable[str], split_b: str, patients_b: Iterable[str]
) -> Finding:
    """How many patients of b are also in a; one is enough to block."""
    ours, theirs = set(patients_b), set(patients_a)
    count = len(ours & theirs)
    return Finding("same patient", split_a, split_b, count, _share(count, len(ours)), count > 0)


def shared_texts(
    split_a: str, texts_a: Iterable[str], split_b: str, texts_b: Iterable[str]
) -> Finding:
    """How many notes of b have the same normalised text as a note of a; never blocks.

    Exact copies occur in clean data too (short templates such as "No acute process."), so the
    count is for the report. Also for a pretraining corpus (a) against a test split (b).
    """
    return _shared_hashes(split_a, text_hashes(texts_a), split_b, text_hashes(texts_b))


def text_hashes(texts: Iterable[str]) -> list[bytes]:
    """A 16-byte hash per text, equal when only letter case, white space or marks differ."""
    return [
        hashlib.blake2b(
            normalised_text(text).encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        for text in texts
    ]


def normalised_text(text: str) -> str:
    r"""Lower case, de-identification marks removed, every run of white space one space.

    Example:
        >>> normalised_text("Seen by [**Last Name 7**]\n at  ___ Clinic")
        'seen by at clinic'
    """
    return " ".join(_MARKS.sub(" ", text).casefold().split())


def _shared_hashes(
    split_a: str, hashes_a: list[bytes], split_b: str, hashes_b: list[bytes]
) -> Finding:
    in_a = set(hashes_a)
    count = sum(digest in in_a for digest in hashes_b)
    share = _share(count, len(hashes_b))
    return Finding("same text", split_a, split_b, count, share, blocks=False)


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
