"""What step 1 trained on, and whether test patients were among it."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from notetune import runs
from notetune.audit import Finding
from notetune.errors import DataError
from notetune.notes import overlap
from notetune.prepare.checks import CORPUS
from notetune.prepare.prepared import Prepared
from notetune.prepare.shards import NOTES
from notetune.tokens.packing import Int64Array

PROVENANCE = "provenance.json"
_FORMAT = 1


def write_provenance(folder: Path, prepared: Prepared, sources: Sequence[str]) -> None:
    """Write corpora, versions and hashed patients of what step 1 trained into its folder.

    The hashes are salted, but whoever can guess an id can test it: the file tells who was in the
    corpus, so it stays in that folder and goes into no bundle.
    """
    store = prepared.store
    notes_N = np.unique(store.note_number_D[store.corpus_documents(sources)])
    salt = runs.read_json(prepared.folder / runs.MANIFEST)["inputs"]
    value = {
        "format": _FORMAT,
        "corpora": _corpora(prepared, notes_N),
        "versions": runs.provenance(),
        "salt": salt,
        "has_patients": prepared.has_patients,
        "patients": patient_hashes(store.patient_ids[notes_N].tolist(), salt),
    }
    runs.write_json(folder / PROVENANCE, value)


def patient_hashes(patient_ids: Iterable[str], salt: str) -> list[str]:
    """16 hex digits for each different patient, sorted.

    Example:
        >>> patient_hashes(["7", "7"], salt="a") == patient_hashes(["7"], salt="b")
        False
    """
    key = salt.encode()
    digests = (hashlib.blake2b(p.encode(), key=key, digest_size=8) for p in set(patient_ids))
    return sorted(digest.hexdigest() for digest in digests)


def corpus_findings(folder: Path, prepared: Prepared) -> list[Finding]:
    """For each task, how many of its test patients are in the corpus of what a folder holds."""
    known = runs.read_json(folder / PROVENANCE)
    are_named = known["has_patients"] and prepared.has_patients
    findings = []
    for name, task in prepared.tasks.items():
        patients = patient_hashes(task.patient_ids_N[task.rows("test")].tolist(), known["salt"])
        findings.append(
            overlap.shared_patients(
                CORPUS, known["patients"], f"test of {name}", patients, are_named=are_named
            )
        )
    return findings


def stop_at_known_patients(folder: Path, prepared: Prepared, *, allowed: bool) -> None:
    """Refuse a domain adapter or encoder that has read notes of test patients.

    Raises:
        DataError: If there is such a patient and the recipe does not allow leaks.
    """
    blocking = [finding for finding in corpus_findings(folder, prepared) if finding.blocks]
    if blocking and not allowed:
        raise DataError(
            f"leak check: {blocking[0].sentence}. Train step 1 on other patients, list "
            "the others with evaluate.listed_patients, or set prepare.allow_leaks=true to go on; "
            "the report will say so."
        )


def _corpora(prepared: Prepared, notes_N: Int64Array) -> list[dict[str, Any]]:
    """Notes, patients and years of each source of a corpus."""
    notes = pl.read_parquet(prepared.folder / NOTES, glob=False)[notes_N]
    year = pl.col("time").dt.year()
    counts = notes.group_by("source").agg(
        pl.len().alias("notes"),
        pl.col("patient_id").n_unique().alias("patients"),
        year.min().alias("first_year"),
        year.max().alias("last_year"),
    )
    return counts.sort("source").to_dicts()
