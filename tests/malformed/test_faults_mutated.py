"""Two thousand random changes of valid files: none is a bug, a hang, or shows the text of a note."""

import random
import shutil
from dataclasses import dataclass

import pytest

from malformed import bundles, exports, mutations, recipes, tables
from malformed.cases import sealed
from malformed.mutations import BYTES, LINES, Mutate

SEED = 20261128
PER_FILE = 100


@dataclass(frozen=True)
class Subject:
    """A file, in which ways it is changed, and what reads it; `bundle` gets a manifest that fits."""

    file: str
    ways: tuple[Mutate, ...]
    command: str
    bundle: str = ""


_TEXT = (*LINES, mutations.of_cells, mutations.of_cells)
_JSON = (*LINES, mutations.of_values, mutations.of_values, mutations.of_values)
_YAML = (*LINES, mutations.of_keys, mutations.of_keys)
_INIT = "init {} -o new.yaml --json"
_COLUMNS, _HYBRID = (f"predict {name} notes.csv --note-id note" for name in ("columns", "hybrid"))
SUBJECTS = (
    Subject("recipe.yaml", _YAML, recipes.PREPARE),
    Subject("study.yaml", _YAML, "study status study.yaml"),
    Subject("fhir.yaml", _YAML, exports.FHIR),
    Subject("notes.csv", _TEXT, recipes.PREPARE),
    Subject("notes.csv", _TEXT, f"{recipes.PREPARE} prepare.source.policy=quarantine"),
    Subject("notes.csv", _TEXT, _INIT.format("notes.csv")),
    Subject("notes.csv", _TEXT, _HYBRID),
    Subject("labels.csv", _TEXT, exports.OMOP),
    Subject("omop.csv", _TEXT, exports.OMOP),
    Subject("notes.csv.gz", BYTES, _INIT.format("notes.csv.gz")),
    Subject("notes.jsonl", _JSON, tables.JSONL),
    Subject("notes.jsonl", _JSON, _INIT.format("notes.jsonl")),
    Subject("notes.parquet", BYTES, tables.PARQUET),
    Subject("meds/data/train/0.parquet", BYTES, exports.MEDS),
    Subject("fhir/DocumentReference.ndjson", _JSON, exports.FHIR),
    Subject("words/bundle.json", _JSON, bundles.PREDICT, "words"),
    Subject("words/weights.safetensors", BYTES, bundles.PREDICT, "words"),
    Subject("words/manifest.json", _JSON, bundles.PREDICT),
    Subject("columns/columns.json", _JSON, _COLUMNS, "columns"),
    Subject("hybrid/bundle.json", _JSON, _HYBRID, "hybrid"),
)


def test_the_mutations_are_two_thousand():
    assert len(SUBJECTS) * PER_FILE == 2000


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: f"{s.file}: {s.command.split()[0]}")
def test_a_changed_file_is_read_or_refused_in_one_line(subject, place, worker):
    path = place / subject.file
    valid = path.read_bytes()
    faults, statuses = {}, set()
    for number in range(PER_FILE):
        rng = random.Random(f"{SEED} {subject.file} {subject.command} {number}")
        way = rng.choice(subject.ways)
        path.write_bytes(way(valid, rng))
        if subject.bundle:
            sealed(subject.bundle)(place)
        done = worker.run(place, subject.command)
        statuses.add(done.status)
        if found := done.faults():
            faults[f"seed {SEED}, mutation {number} ({way.__name__})"] = found, done.complaints[-3:]
        shutil.rmtree(place / "runs", ignore_errors=True)
        (place / "new.yaml").unlink(missing_ok=True)
    assert faults == {}
    assert 2 in statuses
