"""The deletion test: how much of a model's scores rests on the few sentences that count most."""

import hashlib

import numpy as np
import scipy.stats

from notetune import runs, storage
from notetune.aliases import FloatArray
from notetune.metrics.results import DeletionRow
from notetune.model.device import torch_device
from notetune.notes.sentences import sentences
from notetune.prepare.prepared import Prepared
from notetune.serve.explain import MOST_SENTENCES, leave_out, without
from notetune.serve.predictor import load_predictor
from notetune.study.jobs import Job
from notetune.study.specs import DeletionSpec, Notes

_ROW = "deletion.json"
_LEFT_OUT = 3
_FEWEST = 2 * _LEFT_OUT
"""Sentences of a note; of a shorter one, three are most of it."""


def measure(job: Job, notes: Notes) -> None:
    """Leave out of some test notes the sentences that raise the score most, and as many others.

    One note of a patient; its score is that of the label with the highest one. The other sentences
    are drawn at random, with the note's id as the seed.

    Raises:
        BundleError: If the bundle cannot be read.
    """
    spec = job.spec_as(DeletionSpec)
    predictor = load_predictor(
        job.parts[0].folder, job.place.backbone, torch_device(job.place.device)
    )
    ids, texts = _drawn(notes.prepared, spec)
    changes = []
    left_out = leave_out(predictor, texts) if ids else ()
    for note_id, one in zip(ids, left_out, strict=True):
        label = int(one.scores_K.argmax())
        by_effect = np.argsort(one.without_SK[:, label], kind="stable")
        at_random = np.random.default_rng(_seed(note_id)).permutation(len(one.spans))
        rest = [
            without(one.text, one.spans, places[:_LEFT_OUT]) for places in (by_effect, at_random)
        ]
        scores_2 = predictor.predict(rest).scores_NK[:, label]
        changes.append((one.scores_K[label], *(one.scores_K[label] - scores_2), len(one.spans)))
    row = _row(spec, np.array(changes).reshape(-1, 4))
    with runs.new_folder(job.folder, job.inputs) as temporary:
        storage.write_json(temporary / _ROW, row)


def read(job: Job) -> DeletionRow:
    """The row of a finished job."""
    row = DeletionRow(**storage.read_json(job.folder / _ROW))
    return row.model_copy(update={"model": job.model.label if job.model else row.model})


def _drawn(prepared: Prepared, spec: DeletionSpec) -> tuple[list[str], list[str]]:
    """Ids and texts of test notes that have enough sentences, one of a patient."""
    table = prepared.tasks[spec.task]
    rows = table.rows("test")
    by_id = sorted(zip(map(_seed, table.note_ids_N[rows]), rows, strict=True))
    of_patient = {table.patient_ids_N[row]: str(table.note_ids_N[row]) for _, row in by_id}
    ids = list(of_patient.values())
    pairs = zip(ids, prepared.texts(ids), strict=True)
    found = [pair for pair in pairs if len(sentences(pair[1], MOST_SENTENCES)) >= _FEWEST]
    chosen = found[: spec.notes]
    return [note_id for note_id, _ in chosen], [text for _, text in chosen]


def _seed(note_id: str) -> int:
    return int.from_bytes(hashlib.sha256(note_id.encode()).digest()[:8])


def _row(spec: DeletionSpec, changes_N4: FloatArray) -> DeletionRow:
    """Means over notes, and the interval of a paired t-test."""
    notes = len(changes_N4)
    row = DeletionRow(task=spec.task, model=spec.model, notes=notes, left_out=_LEFT_OUT)
    if notes < 2:
        return row
    score, top, others, sentences_of_note = changes_N4.mean(0).tolist()
    difference_N = changes_N4[:, 1] - changes_N4[:, 2]
    half = scipy.stats.t.ppf(0.975, notes - 1) * scipy.stats.sem(difference_N)
    found = {"sentences": sentences_of_note, "score": score, "top": top, "others": others}
    low, high = difference_N.mean() - half, difference_N.mean() + half
    return row.model_copy(update={**found, "low": float(low), "high": float(high)})
