"""A MEDS folder with its own split and a label file of several prediction times per subject."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from builders import random_llama
from small_study import CANARY, files_below, notetune

from notetune import config
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.prepare.build import prepare
from notetune.prepare.suspects import suspect_notes
from notetune.recipe.recipe import Recipe

SUBJECTS, NOTES_EACH = 60, 2
FIRST = datetime(2150, 1, 1)  # noqa: DTZ001
RECIPE = """
name: meds
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
prepare:
  source:
    kind: meds
    folder: cohort
    notes: {{NOTE//DS: discharge}}
    tasks:
      - {{name: mortality, kind: binary, column: subject_id, samples: {{path: tasks/mortality}}}}
  split: {{kind: column}}
  max_tokens: 48
  workers: 1
pretrain:
  perplexity_documents: 4
  adapter: {{kind: lora, rank: 2, alpha: 4}}
  optim: {{targets_per_step: 512}}
downstream: {{variants: [head-only, task-lora], adapter: {{kind: lora, rank: 2}}, epochs: 1}}
evaluate: {{draws: 100, tfidf_min_patients: 3}}
"""


def hours(number):
    return FIRST + timedelta(hours=number)


def split_of(subject):
    return ("train", "train", "train", "tuning", "held_out")[subject % 5]


def write_cohort(folder):
    """Each subject has notes at hour 10 and 20, and is asked about at hours 5, 15, 20 and 25.

    The label changes between 20 and 25, so the second note has samples of both labels.
    """
    notes, labels = [], []
    for subject in range(SUBJECTS):
        for number in range(NOTES_EACH):
            word = "shock" if subject % 2 else "well"
            text = f"{CANARY} note {number} of {subject} {word}"
            text += " expired" * (subject == 4 and number == 1)
            notes.append((subject, hours(10 * (number + 1)), "NOTE//DS//1", text))
        dies = subject % 2 == 1
        asked = ((5, dies), (15, dies), (20, dies), (25, not dies))
        labels += [(subject, hours(hour), value) for hour, value in asked]
    labels.append((SUBJECTS, hours(25), True))  # a subject without a note
    for name, rows, columns in (
        ("cohort/data/0", notes, ["subject_id", "time", "code", "text_value"]),
        ("tasks/mortality/0", labels, ["subject_id", "prediction_time", "boolean_value"]),
        (
            "cohort/metadata/subject_splits",
            [(subject, split_of(subject)) for subject in range(SUBJECTS)],
            ["subject_id", "split"],
        ),
    ):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=columns, orient="row").write_parquet(path)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds")
    write_cohort(folder)
    random_llama(folder / "backbone")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    done = notetune("study", "run", folder / "recipe.yaml", "--data", folder)
    assert done.returncode == 0, done.stderr
    return folder


def expected_samples():
    """Sample id to subject and label, by hand: notes of a subject are rows 2 s + 1 and 2 s + 2."""
    samples = {}
    for subject in range(SUBJECTS):
        dies = subject % 2 == 1
        for hour, row, value in ((15, 1, dies), (20, 2, dies), (25, 2, not dies)):
            name = f"0-{2 * subject + row}@{hours(hour).isoformat()}"
            samples[name] = (str(subject), int(value))
    return samples


def test_every_model_scores_each_sample_once_with_its_own_label(study):
    expected = expected_samples()
    cells = study / "runs" / "meds" / "cells" / "mortality"
    split_words = {"validation": "tuning", "test": "held_out"}
    models = 0
    for path in files_below(cells):
        if path.stem not in split_words:
            continue
        models += 1
        table = read_scores(path)
        wanted = {
            name: found
            for name, found in expected.items()
            if split_of(int(found[0])) == split_words[path.stem]
        }
        rows = zip(table.patient_ids_N.tolist(), table.targets_NK[:, 0].tolist(), strict=True)
        assert dict(zip(table.note_ids_N.tolist(), rows, strict=True)) == wanted
        assert len(wanted) == 36
    assert models == 2 * 7  # prevalence, three of words, two of step 2, and the hybrid


@pytest.mark.parametrize("model", ["head-only", "hybrid", "tf-idf"])
def test_a_card_names_the_kind_of_a_source_that_is_no_table(study, model):
    card = read_card(study / "runs" / "meds" / "cells" / "mortality" / model / "seed-0")
    assert (card.source, card.note_columns) == ("meds", {})


@pytest.mark.parametrize("model", ["head-only", "task-lora", "hybrid", "tf-idf"])
def test_samples_of_one_note_have_one_score(study, model):
    (path,) = (study / "runs" / "meds" / "cells" / "mortality" / model).rglob("test.parquet")
    table = read_scores(path)
    by_note = {}
    for name, score in zip(table.note_ids_N.tolist(), table.scores_NK[:, 0], strict=True):
        by_note.setdefault(name.split("@")[0], []).append(score)
    assert sorted(map(len, by_note.values())) == [1] * 12 + [2] * 12
    for scores in by_note.values():
        assert np.ptp(scores) < 1e-6


def test_samples_without_a_note_are_counted_and_suspect_notes_are_named_by_sample(study):
    prepared = prepare(config.load(Recipe, study / "recipe.yaml", [f"data={study}"]).preparation)
    flow = {count.stage: count for count in prepared.flow}
    met = flow["samples of task mortality, each with its latest note"]
    assert (met.read, met.kept) == (4 * SUBJECTS + 1, 3 * SUBJECTS)
    assert list(met.rejected.values()) == [1, SUBJECTS]
    assert flow["mortality: samples"].kept == 3 * SUBJECTS
    assert len(prepared.store.note_ids) == NOTES_EACH * SUBJECTS  # step 1 reads each note once
    late = [f for f in prepared.findings if f.check == "later than the prediction time"]
    assert [finding.count for finding in late] == [0, 0, 0]
    found = suspect_notes(prepared)["mortality"]["words that tell the outcome"]
    assert found.tolist() == [f"0-10@{hours(hour).isoformat()}" for hour in (20, 25)]
    page = (study / "runs" / "meds" / "report" / "report.md").read_text()
    assert "no note at or before the prediction time" in page
    assert CANARY not in page
