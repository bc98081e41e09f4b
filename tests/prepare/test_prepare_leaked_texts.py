"""No corpus of step 1 holds the text of a validation or test note, whoever wrote it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from builders import random_llama

from notetune import config
from notetune.errors import DataError
from notetune.prepare.build import prepare
from notetune.study.recipe import Recipe
from notetune.study.run import prepare_notes
from notetune.study.status import progress

RECIPE = """
name: small
runs: {place}/runs
backbone: {place}/backbone
prepare:
  source:
    kind: table
    path: {place}/notes.csv
    columns: {{text: text, note_id: note}}
    tasks: [{{name: died, kind: binary, column: died}}]
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 64
  workers: 1
"""
CORPUS = """
  corpus:
    source: {{kind: table, path: {place}/corpus.jsonl, columns: {{text: text}}}}
    split: {{kind: fractions, validation: 0, test: 0}}
"""


def words(number):
    rng = np.random.default_rng(number)
    return " ".join(f"word{n}" for n in rng.integers(0, 999, 40))


@pytest.fixture
def place(tmp_path):
    random_llama(tmp_path / "backbone")
    with (tmp_path / "notes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "text", "died"])
        writer.writerows([f"n{n}", words(n), n % 2] for n in range(60))
    return tmp_path


def load(place, text, *overrides):
    (place / "recipe.yaml").write_text(text.format(place=place))
    return config.load(Recipe, place / "recipe.yaml", overrides)


def of_splits(prepared, *splits):
    store = prepared.store
    return [n for n, s in zip(store.note_ids, store.split_N, strict=True) if s in splits]


def write_corpus(place, texts):
    lines = [json.dumps({"text": text}) for text in texts]
    (place / "corpus.jsonl").write_text("\n".join(lines))


def test_a_corpus_without_patient_ids_is_compared_by_text(place):
    recipe = load(place, RECIPE + "pretrain:" + CORPUS)
    prepared = prepare(recipe.preparation)
    held_out = of_splits(prepared, "validation", "test")
    assert len(held_out) == 30
    same = [words(int(note[1:])).upper() for note in held_out[:3]]  # but for the case of letters
    nearly = [f"{words(int(note[1:]))} and more" for note in held_out[3:7]]
    ours = [words(int(note[1:])) for note in of_splits(prepared, "train")[:2]]
    write_corpus(place, [*same, *nearly, *ours, *(words(n) for n in range(900, 910))])
    expected = "7 notes of corpus of step 1 in the validation and test notes. Set pretrain.leaked_"
    with pytest.raises(DataError, match=expected):
        prepare(recipe.corpus, prepared)

    dropping = load(place, RECIPE + "pretrain:\n  leaked_texts: drop" + CORPUS)
    corpus = prepare_notes(dropping).corpus
    assert (len(corpus.store.note_ids), int(corpus.store.in_corpus_N.sum())) == (19, 12)
    (finding,) = [f for f in corpus.findings if f.split_b == "corpus of step 1"]
    assert (finding.count, finding.blocks) == (7, False)
    (flow,) = [stage for stage in corpus.flow if stage.stage == "training notes of step 1"]
    assert flow.rejected["equal or nearly equal to a validation or test note"] == 7
    assert all(job.state == "done" for job in progress(dropping).jobs[:2])

    allowing = load(place, RECIPE + "  allow_leaks: true\npretrain:" + CORPUS)
    corpus = prepare_notes(allowing).corpus
    assert corpus.store.in_corpus_N.all()
    assert [f.count for f in corpus.findings if f.blocks] == [7]


def test_notes_of_the_tasks_that_step_1_reads_are_compared_too(place):
    prepared = prepare(load(place, RECIPE).preparation)
    train, test = of_splits(prepared, "train"), of_splits(prepared, "test")
    with (place / "notes.csv").open() as file:
        rows = {row["note"]: row for row in csv.DictReader(file)}
    rows[train[4]]["text"] = rows[test[2]]["text"]
    with (place / "notes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["note", "text", "died"])
        writer.writeheader()
        writer.writerows(rows.values())
    with pytest.raises(DataError, match="1 notes of corpus of step 1 in the validation and test"):
        prepare(load(place, RECIPE).preparation)
    prepared = prepare(load(place, RECIPE, "pretrain.leaked_texts=drop").preparation)
    assert prepared.store.note_ids[~prepared.store.in_corpus_N].tolist() == [train[4]]
    (place / "corpus.jsonl").write_text(json.dumps({"text": words(999)}))
    elsewhere = load(place, RECIPE + "pretrain:" + CORPUS)  # then step 1 does not read them
    assert prepare(elsewhere.preparation).store.in_corpus_N.all()


@pytest.mark.data
def test_the_unlabelled_case_of_codiesp_that_is_a_labelled_one_is_found(tmp_path, open_data):
    overrides = [
        f"data={open_data}",
        f"runs={tmp_path}",
        "backbones={}",
        "encoders.models={}",
        "evaluate.primary=null",
        "prepare.max_tokens=256",
        "prepare.split.test=[train]",
        "prepare.split.train=[validation]",
        "prepare.split.validation_share=0",
        "pretrain.corpus.split={kind: fractions, validation: 0, test: 0}",
    ]
    recipe = Path(__file__).parents[2] / "recipes/codiesp.yaml"
    stopping = config.load(Recipe, recipe, [*overrides, "pretrain.leaked_texts=stop"])
    prepared = prepare(stopping.preparation)
    with pytest.raises(DataError, match="1 notes of corpus of step 1") as raised:
        prepare(stopping.corpus, prepared)
    assert "S0004" not in str(raised.value)
