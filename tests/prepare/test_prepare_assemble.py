"""All notes of a source become one prepared folder with its checks and counts."""

import json

import numpy as np
import polars as pl
import pytest
from leak_oracle import split_findings
from small_notes import NOTES, hidden_in, recipe_in, small_notes

from notetune import sources
from notetune.audit import FlowCount
from notetune.cli import terminal_tables
from notetune.errors import DataError
from notetune.notes.outcomes import SPLITS
from notetune.prepare.build import prepare
from notetune.sources.cohort import Finished, NoteStream
from notetune.sources.tables.source import TableSource


@pytest.fixture
def place(tmp_path, monkeypatch):
    return small_notes(tmp_path, monkeypatch)


def test_the_checks_are_those_of_all_texts_at_once(place):
    rows = [f"m{number},q{number},the same words of {number % 9},1\n" for number in range(40)]
    with (place / "notes.csv").open("a") as file:
        file.writelines(rows)
    recipe = recipe_in(place)
    prepared = prepare(recipe.preparation)
    notes = sources.read(recipe.preparation.source).notes
    split_of = dict(zip(prepared.store.note_ids, prepared.store.split_N, strict=True))
    table = notes.with_columns(split=pl.Series([split_of[name] for name in notes["note_id"]]))
    of_splits = [f for f in prepared.findings if {f.split_a, f.split_b} < {*SPLITS}]
    assert tuple(of_splits) == split_findings(table)
    assert sum(finding.count > 0 for finding in prepared.findings) >= 3


def test_the_corpus_is_counted_by_source_and_split(place):
    prepared = prepare(recipe_in(place).preparation)
    store = prepared.store
    assert [count.split for count in prepared.corpus] == ["train", "test", "validation"]
    for count in prepared.corpus:
        documents = store.documents_of(count.split, [count.source])
        assert count.source == "report"
        assert count.notes == (store.split_N == count.split).sum()
        assert count.documents == len(documents)
        assert count.tokens == store.lengths_D[documents].sum()
    assert sum(count.notes for count in prepared.corpus) == NOTES
    assert sum(count.tokens for count in prepared.corpus) == len(store.ids)


def test_patients_in_two_spellings_are_told(place):
    with (place / "notes.csv").open("a") as file:
        file.writelines(f"m{n},{name},words {n},1\n" for n, name in enumerate(("7", "007", "7.0")))
    prepared = prepare(recipe_in(place).preparation)
    (told,) = (stage.notice for stage in prepared.flow if stage.stage == "notes by patient split")
    assert told.startswith("2 of ")
    assert "patient ids are those of others but for zeros before them or .0 behind" in told


def test_notes_of_patients_in_no_split_are_left_out(place):
    for split, patients in {"train": range(20), "validation": range(20, 25), "test": [30]}.items():
        rows = ["SUBJECT_ID", *(f"p{number}" for number in patients)]
        (place / f"{split}.csv").write_text("\n".join(rows) + "\n")
    files = {split: str(place / f"{split}.csv") for split in ("train", "validation", "test")}
    lines = (place / "recipe.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("  split:", "name:"))]
    lines.insert(-1, f"  split: {json.dumps({'kind': 'files', **files})}")
    lines.append("downstream: {tasks: [died]}")
    (place / "recipe.yaml").write_text("\n".join(["name: official", *lines]))
    prepared = prepare(recipe_in(place).preparation)
    wanted = [f"n{number:03}" for number in (*range(50), 60, 61)]
    assert prepared.store.note_ids.tolist() == wanted
    kept = pl.read_parquet(prepared.folder / "texts")["note_id"].to_list()
    assert kept == pl.read_parquet(prepared.folder / "notes.parquet")["note_id"].to_list() == wanted
    assert set(prepared.store.split_N) == {"train", "validation", "test"}
    assert prepared.flow[-3].rejected == {"patient in no split": NOTES - len(wanted)}


def test_a_bad_row_of_notes_that_hold_their_split_is_left_out_where_the_policy_says_so(place):
    notes = pl.read_csv(place / "notes.csv")
    part = pl.when(pl.col("note") < "n060").then(pl.lit("train")).otherwise(pl.lit("test"))
    written = notes.with_columns(split=part).write_csv()
    (place / "notes.csv").write_text(f"{written}n090,p45\n")
    text = (
        (place / "recipe.yaml")
        .read_text()
        .replace("kind: fractions, validation: 0.2", "kind: column")
    )
    text = text.replace(", test: 0.3", "").replace("source: report", "policy: quarantine")
    (place / "recipe.yaml").write_text(text)
    shares = "prepare.source.max_rejected_share=0.1"
    prepared = prepare(recipe_in(place, shares).preparation)
    assert prepared.flow[0].rejected == {"short row": 1}
    assert set(prepared.store.split_N) == {"train", "test"}


def test_only_the_first_piece_of_long_notes_is_kept_on_request(place):
    pieces = prepare(recipe_in(place).preparation)
    first = prepare(recipe_in(place, "name=first", long_notes="first").preparation)
    begins_D = pieces.store.piece_D == 0
    assert 0 < begins_D.sum() == NOTES < len(begins_D)
    assert first.store.lengths_D.tolist() == pieces.store.lengths_D[begins_D].tolist()
    numbers = np.arange(NOTES)
    truncated = pieces.store.reading(np.flatnonzero(begins_D), 1).truncated_N
    assert first.store.reading(numbers, 1).truncated_N.tolist() == truncated.tolist()
    assert truncated.any()
    assert not truncated.all()
    for number, document in zip(numbers, np.flatnonzero(begins_D), strict=True):
        assert np.array_equal(first.store.document(number), pieces.store.document(document))


def test_a_note_id_given_twice_is_found_across_chunks(place, monkeypatch):
    recipe = recipe_in(place)
    notes = sources.read(recipe.preparation.source).notes
    stream = NoteStream(iter([notes, notes[7:8]]), lambda: Finished((), ()))
    monkeypatch.setattr(TableSource, "open", lambda source: stream)
    with pytest.raises(DataError, match="note id n007 is given to 2 notes"):
        prepare(recipe.preparation)
    assert hidden_in(recipe.folder.root) == []


def test_labels_that_are_too_rare_are_counted_and_notices_are_kept(place, capsys):
    codes = ["note,code", *(f"n{number:03},I10" for number in range(0, NOTES, 2))]
    (place / "codes.csv").write_text("\n".join([*codes, "n001,E11", "n002,0BJ08ZZ", ""]))
    table = f"{{path: {place}/codes.csv, id_column: note, code_column: code, version: icd10}}"
    text = (place / "recipe.yaml").read_text()
    task = f"{{name: icd, kind: multilabel, column: note, codes: {table}}}"
    (place / "recipe.yaml").write_text(
        text.replace("{name: died, kind: binary, column: died}", task)
    )
    prepared = prepare(recipe_in(place, min_train_positives=8).preparation)
    rare = {"fewer than 8 training notes": 2}
    assert prepared.flow[-1] == FlowCount("labels of task icd", 3, 1, rare)
    forms, absent = prepared.notices
    assert forms.startswith("Task icd: 1 of 47 codes do not look like ICD-10 diagnoses")
    assert absent.startswith("Task icd: 44 of 90 notes have no usable code")
    terminal_tables.prepared([(prepared, ())], as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"Note: {notice}" in said for notice in prepared.notices)
