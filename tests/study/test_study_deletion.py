"""The deletion test: a sentence that decides counts, and its row says so."""

import csv

import numpy as np
import pytest
from builders import random_llama
from one_job import jobs_on, run

from notetune import config
from notetune.prepare.prepared import open_prepared
from notetune.recipe.recipe import Recipe
from notetune.serve.predictor import load_predictor
from notetune.study import deletion

RECIPE = """
name: left-out
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks: [{{name: died, kind: binary, column: died}}]
  split: {{kind: fractions, validation: 0.2, test: 0.4}}
  max_tokens: 100
  min_train_positives: 3
downstream: {{variants: [head-only], max_pieces: 1, tokens_per_row: 512}}
pretrain: {{leaked_texts: drop, epochs: 0.1, perplexity_documents: 2}}
evaluate: {{draws: 100, deletion_notes: 8, tfidf_min_patients: 3}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Notes of eight sentences, one of which says the outcome."""
    folder = tmp_path_factory.mktemp("left-out")
    random_llama(folder / "backbone")
    rng = np.random.default_rng(0)
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "died"])
        for n in range(80):
            died = n % 2
            words = rng.choice(["ward", "bed", "food", "walk", "rest"], 7)
            told = [*(f"{word} {n}." for word in words), "shock." if died else "well."]
            text = " ".join(rng.permutation(told))
            # Two notes of each patient, and some too short to leave three sentences out.
            writer.writerow([f"n{n}", f"p{n // 2}", text if n % 5 else told[-1] + f" {n}", died])
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return config.load(Recipe, folder / "recipe.yaml")


@pytest.fixture(scope="module")
def rows(recipe):
    jobs = [job for job in jobs_on(recipe) if job.stage == "deletion test"]
    run(recipe, *jobs)
    return {job.model.name: (job, deletion.read(job)) for job in jobs}


def test_it_is_made_for_words_and_for_what_a_hybrid_joins(rows):
    assert rows.keys() == {"tf-idf", "head-only"}


def test_the_sentence_that_decides_carries_the_score_and_others_do_not(rows):
    _, row = rows["tf-idf"]
    assert row.notes == 8
    assert row.sentences == 8
    assert row.top > 3 * abs(row.others)
    assert row.top - row.others > 0.1
    assert 0 < row.low < row.top - row.others < row.high


def test_what_the_top_sentences_take_is_what_leaving_them_out_takes(recipe, rows):
    """By hand: the notes, of test patients, one of each; the sentences; and the mean."""
    job, row = rows["head-only"]
    predictor = load_predictor(job.parts[0].folder, recipe.backbone)
    prepared = open_prepared(recipe.folder.prepared)
    ids, texts = deletion._drawn(prepared, job.spec)
    patients = prepared.tasks["died"]
    of = dict(zip(patients.note_ids_N.tolist(), patients.patient_ids_N.tolist(), strict=True))
    split = dict(zip(patients.note_ids_N.tolist(), patients.split_N.tolist(), strict=True))
    assert len({of[note] for note in ids}) == len(ids) == row.notes
    assert {split[note] for note in ids} == {"test"}
    falls = []
    for text in texts:
        parts = [f"{part.strip()} " for part in text.replace(". ", ".|").split("|")]
        whole, *less = predictor.predict(
            [text, *("".join(parts[:n] + parts[n + 1 :]) for n in range(8))]
        ).scores_NK[:, 0]
        top = set(np.argsort(less, kind="stable")[:3].tolist())
        rest = "".join(part for n, part in enumerate(parts) if n not in top)
        falls.append(whole - predictor.predict([rest]).scores_NK[0, 0])
    assert row.top == pytest.approx(np.mean(falls), abs=1e-6)
