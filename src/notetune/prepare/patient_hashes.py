"""What step 1 trained on, and whether test patients were among it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from notetune import manifest, storage
from notetune.audit import CORPUS, Finding
from notetune.errors import DataError
from notetune.notes import overlap, overlap_text
from notetune.notes.ids import bare_id
from notetune.prepare.prepared import NoteIds, Prepared
from notetune.prepare.shards import NOTES
from notetune.tokens.packing import Int64Array

PROVENANCE = "provenance.json"
_FORMAT, _AS_WRITTEN = 2, 1
"""Format 1 hashes ids as they are written."""
_BROUGHT = "the adapter that was brought"
_HELD_OUT = ("validation", "test")


def write_provenance(
    folder: Path, prepared: Prepared, sources: Sequence[str], brought: Path | None = None
) -> None:
    """Write corpora, versions, hashed patients and texts of what step 1 trained into its folder.

    With `brought` it trained on an adapter from there, whose own provenance goes along.

    The hashes are salted, but whoever can guess an id can test it: the file tells who was in the
    corpus, so it stays in that folder and goes into no bundle.
    """
    store = prepared.store
    notes_N = np.unique(store.note_number_D[store.corpus_documents(sources)])
    salt = storage.read_json(prepared.folder / manifest.MANIFEST)["inputs"]
    value = {
        "format": _FORMAT,
        "corpora": _corpora(prepared, notes_N),
        "versions": manifest.provenance(),
        "salt": salt,
        "has_patients": prepared.has_patients,
        "patients": patient_hashes(store.patient_ids[notes_N].tolist(), salt),
        "texts": text_hashes(prepared, store.note_ids[notes_N], salt),
        "before": _known_of(brought) if brought else [],
    }
    storage.write_json(folder / PROVENANCE, value)


def write_brought(folder: Path, brought: Path) -> None:
    """Write the provenance of an adapter that is taken as it is, or that nobody knows it."""
    first, *before = _known_of(brought)
    storage.write_json(folder / PROVENANCE, {**first, "is_brought": True, "before": before})


def _known_of(brought: Path) -> list[dict[str, Any]]:
    """What an adapter was trained on, the latest first, as far as its folder says."""
    if not (brought / PROVENANCE).is_file():
        return [{"format": _FORMAT, "is_unknown": True}]
    known = storage.read_json(brought / PROVENANCE)
    needed = {"format", "salt", "patients", "has_patients"}
    is_ours = isinstance(known, dict) and (known.get("is_unknown") or needed <= known.keys())
    if not is_ours or known["format"] not in (_FORMAT, _AS_WRITTEN):
        raise DataError(
            f"{brought / PROVENANCE} is no provenance that this version reads; restore it, or "
            "remove it: its patients are unknown then."
        )
    return [{k: v for k, v in known.items() if k != "before"}, *known.get("before", [])]


def is_unknown(folder: Path) -> bool:
    """Whether nobody knows all patients that the adapter of a folder was trained on."""
    return any(known.get("is_unknown") for known in _known_of(folder))


def text_hashes(prepared: Prepared, note_ids: NoteIds, salt: str) -> list[str]:
    """16 hex digits for each different text, as leak checks compare them, sorted."""
    texts = set(overlap_text.text_hashes(prepared.texts(note_ids)))
    return sorted(_keyed(text, salt) for text in texts)


def _keyed(value: bytes, salt: str) -> str:
    return hashlib.blake2b(value, key=salt.encode(), digest_size=8).hexdigest()


def patient_hashes(patient_ids: Iterable[str], salt: str, form: int = _FORMAT) -> list[str]:
    """16 hex digits for each different patient, sorted; 7 and 007 are one in the present format.

    Example:
        >>> patient_hashes(["7", "007"], salt="a") == patient_hashes(["7"], salt="a")
        True
        >>> patient_hashes(["7"], salt="a") == patient_hashes(["7"], salt="b")
        False
    """
    names = set(patient_ids if form == _AS_WRITTEN else map(bare_id, patient_ids))
    return sorted(_keyed(name.encode(), salt) for name in names)


def corpus_findings(folder: Path, prepared: Prepared) -> list[Finding]:
    """For each task, how many of its test patients are in the corpus of what a folder holds.

    Of what was brought there, and so trained on before, texts are compared too: those of the notes
    of step 1 itself were when these were prepared.
    """
    findings: list[Finding] = []
    for number, known in enumerate(_known_of(folder)):
        is_brought = number > 0 or known.get("is_unknown") or known.get("is_brought")
        findings += _of_patients(known, prepared, _BROUGHT if is_brought else CORPUS)
        findings += _of_texts(known, prepared) if is_brought else []
    return findings


def _of_patients(known: dict[str, Any], prepared: Prepared, corpus: str) -> Iterator[Finding]:
    for name, task in prepared.tasks.items():
        place = f"test of {name}"
        if known.get("is_unknown"):
            yield overlap.unjudged("same patient", _BROUGHT, place, "its patients are unknown")
            continue
        are_named = known["has_patients"] and prepared.has_patients
        tested = task.patient_ids_N[task.rows("test")].tolist()
        patients = patient_hashes(tested, known["salt"], known["format"])
        pair = corpus, known["patients"], place, patients
        yield overlap.shared_patients(*pair, are_named=are_named)


def _of_texts(known: dict[str, Any], prepared: Prepared) -> Iterator[Finding]:
    trained = set(known.get("texts", ()))
    for (name, task), split in product(prepared.tasks.items(), _HELD_OUT):
        place = f"{split} of {name}"
        if "texts" not in known:
            yield overlap.unjudged("same text", _BROUGHT, place, "its texts are unknown")
            continue
        texts = text_hashes(prepared, task.note_ids_N[task.rows(split)], known["salt"])
        count = len(trained & set(texts))
        share = count / len(texts) if texts else 0.0
        yield Finding("same text", _BROUGHT, place, count, share, count > 0)


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
