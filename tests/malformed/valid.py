"""A valid input of every kind, all of the same forty notes."""

import base64
import csv
import gzip
import json
import random
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from notetune import runs, storage
from notetune.plain.bundles import (
    ColumnsBundle,
    ColumnsCard,
    HybridCard,
    WordsBundle,
    WordsCard,
    save_stacked,
    what_it_holds,
)
from notetune.plain.columns import Columns, LevelColumn, NumberColumn
from notetune.plain.linear import Linear
from notetune.plain.stacked import Stacked
from notetune.plain.tfidf import Words

CANARY = "zyxcanary"
_WORDS = [
    "fever",
    "cough",
    "pain",
    "rash",
    "dyspnoea",
    "fracture",
    "syncope",
    "oedema",
    "sepsis",
    "stroke",
]
_RNG = random.Random(0)
NOTES = {
    f"n{number:02}": (
        str(100 + number // 2),
        " ".join([CANARY, f"{number:02}", *_RNG.choices(_WORDS, k=12), CANARY]),
        str(number % 2),
    )
    for number in range(40)
}
"""Patient, text and label of death by note id."""
HEADER = ("note", "patient", "time", "age", "ward", "text", "died")
TIME = datetime(2150, 1, 2, 8)  # noqa: DTZ001

_RECIPE = """name: small
runs: runs
device: cpu
prepare:
  source:
{source}
    tasks:
      - {{name: died, kind: binary, column: {column}{labels}}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  opener: bos
  max_tokens: 32
  workers: 1
"""
_STUDY = """pretrain: {perplexity_documents: 4, tokens_per_row: 256, always: true}
downstream: {variants: [head-only], max_pieces: 1, tokens_per_row: 256}
evaluate: {draws: 100, tfidf_min_patients: 2}
"""
"""What makes a study of the notes short."""
_LABELS = ", labels: {path: labels.csv, id_column: id, label_column: died}"
_TABLE = """    kind: table
    path: notes.csv
    columns: {text: text, note_id: note, patient_id: patient, time: time}"""
_SOURCES = {
    "recipe": (_TABLE, "died", ""),
    "fhir": ("    kind: fhir\n    path: fhir", "id", _LABELS),
    "meds": (
        "    kind: meds\n    folder: meds\n    notes: {NOTE: note}\n    note_id: note",
        "note",
        _LABELS,
    ),
    "omop": ("    kind: omop\n    path: omop.csv", "note_id", _LABELS),
}


def write_valid(folder: Path) -> Path:
    """Recipes, the tables that they read, and bundles without a language model."""
    for name, (source, column, labels) in _SOURCES.items():
        text = _RECIPE.format(source=source, column=column, labels=labels)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "study.yaml").write_text((folder / "recipe.yaml").read_text() + _STUDY)
    _write_tables(folder)
    _write_fhir(folder / "fhir")
    _write_meds(folder / "meds/data/train")
    _write_bundles(folder)
    return folder


def rows() -> list[dict[str, str]]:
    """The notes as rows of a table."""
    return [
        dict(
            zip(HEADER, (name, patient, str(TIME), str(50 + n), "ab"[n % 2], text, died), strict=1)
        )
        for n, (name, (patient, text, died)) in enumerate(NOTES.items())
    ]


def _write_tables(folder: Path) -> None:
    table = rows()
    _write_csv(folder / "notes.csv", HEADER, table)
    (folder / "notes.csv.gz").write_bytes(gzip.compress((folder / "notes.csv").read_bytes()))
    lines = [json.dumps({**row, "died": int(row["died"])}) for row in table]
    (folder / "notes.jsonl").write_text("\n".join(lines) + "\n")
    frame = pl.DataFrame(table).with_columns(
        pl.col("time").str.to_datetime(), died=pl.col("died").cast(pl.Int64)
    )
    frame.write_parquet(folder / "notes.parquet")
    labels = [{"id": name, "died": died} for name, (*_, died) in NOTES.items()]
    _write_csv(folder / "labels.csv", ("id", "died"), labels)
    omop = [
        {"note_id": name, "person_id": patient, "note_date": TIME.date(), "note_text": text}
        for name, (patient, text, _) in NOTES.items()
    ]
    _write_csv(folder / "omop.csv", tuple(omop[0]), omop)


def _write_csv(path: Path, header: tuple[str, ...], table: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def document(name: str, **changes: object) -> dict:
    """A FHIR document of one of the notes."""
    patient, text, _ = NOTES[name]
    return {
        "resourceType": "DocumentReference",
        "id": name,
        "status": "current",
        "type": {"text": "note"},
        "subject": {"reference": f"Patient/{patient}"},
        "date": "2150-01-02T08:00:00Z",
        "content": [attachment("text/plain", data=base64.b64encode(text.encode()).decode())],
    } | changes


def attachment(kind: str, **fields: object) -> dict:
    return {"attachment": {"contentType": kind, **fields}}


def _write_fhir(folder: Path) -> None:
    folder.mkdir()
    lines = [json.dumps(document(name)) for name in NOTES]
    (folder / "DocumentReference.ndjson").write_text("\n".join(lines) + "\n")


def _write_meds(folder: Path) -> None:
    folder.mkdir(parents=True)
    events = [
        {"subject_id": int(patient), "time": TIME, "code": "NOTE//DS", "numeric_value": None, "text_value": text, "note": name}
        for name, (patient, text, _) in NOTES.items()
    ]  # fmt: skip
    schema = {"numeric_value": pl.Float32}
    pl.DataFrame(events, schema_overrides=schema).write_parquet(folder / "0.parquet")


def _write_bundles(folder: Path) -> None:
    task = {"task": "died", "kind": "binary", "classes": ("died",)}
    with runs.new_folder(folder / "words", "valid") as made:
        _save_words(made, task)
    with runs.new_folder(folder / "columns", "valid") as made:
        _save_columns(made, task)
    parts = {"words": _save_words, "columns": _save_columns}
    with runs.new_folder(folder / "hybrid", "valid") as made:
        card = HybridCard(**task, parts=tuple(parts), columns=("age", "ward"))
        save_stacked(made, Stacked("binary", np.array([0.5, 1.0]), np.array([0.1])))
        storage.write_json(made / "bundle.json", card.model_dump(mode="json"))
        (made / "parts").mkdir()
        for name, save in parts.items():
            with runs.new_folder(made / "parts" / name, "valid") as part:
                save(part, task)


def _save_words(folder: Path, task: dict) -> None:
    words = Words(tuple(sorted(_WORDS)), np.linspace(1, 2, len(_WORDS)))
    linear = Linear(
        np.linspace(-3, 3, len(_WORDS), dtype=np.float32)[None], np.zeros(1, np.float32)
    )
    card = WordsCard(**task, min_patients=10, holds=what_it_holds(len(_WORDS), 10))
    WordsBundle(card, words, linear).save(folder)
    storage.write_json(folder / "bundle.json", card.model_dump(mode="json"))


def _save_columns(folder: Path, task: dict) -> None:
    age = NumberColumn(name="age", mean=60, scale=10)
    columns = Columns(columns=(age, LevelColumn(name="ward", levels=("a", "b"))))
    linear = Linear(np.linspace(-1, 1, 5, dtype=np.float32)[None], np.zeros(1, np.float32))
    card = ColumnsCard(**task, columns=columns.names)
    ColumnsBundle(card, columns, linear).save(folder)
    storage.write_json(folder / "bundle.json", card.model_dump(mode="json"))


def notes_in(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Patient, text and label of every prepared note that has a label."""
    prepared = folder / "runs/small/prepared"
    texts = pl.read_parquet(prepared / "texts")
    labels = pl.read_parquet(prepared / "tasks/died.parquet")
    notes = labels.join(texts, on="note_id").sort("note_id")
    died = notes["labels"].list.len().cast(pl.String)
    columns = (notes["note_id"], notes["patient_id"], notes["text"], died)
    return {name: tuple(row) for name, *row in zip(*columns, strict=True)}
