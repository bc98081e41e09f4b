"""What `prepare` says about the notes: published figures, leaks by word, time and text, repeats."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import random_llama

from notetune import config
from notetune.audit import FlowCount
from notetune.cli import main
from notetune.errors import DataError
from notetune.hospital.hospital import SyntheticConfig, write_hospital
from notetune.prepare.build import compare_with_published, prepare
from notetune.recipe.recipe import Recipe
from notetune.sources.mimic import published
from notetune.sources.mimic.published import PUBLISHED
from notetune.study.run import is_of_step_1, prepare_notes, work
from notetune.study.status import progress

PATIENTS = 60
TEXTS = ["no acute distress", "he expired at night", "seen by the ward team"]
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


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks") / "hospital"
    truth = write_hospital(folder, SyntheticConfig(patients=PATIENTS, mimic4_patients=PATIENTS))
    return folder, truth


def hospital_recipe(hospital, tmp_path, kind):
    recipe = {
        "name": kind,
        "runs": str(tmp_path),
        "prepare": {
            "source": {"kind": kind, "folder": str(hospital[0] / kind)},
            "min_train_positives": 2,
            "workers": 1,
        },
        "pretrain": {"leaked_texts": "drop"},  # short ward notes are often the same
        "downstream": {"tasks": ["mortality", "diagnoses"] if kind == "mimic3" else ["mortality"]},
    }
    path = tmp_path / f"{kind}.json"
    path.write_text(json.dumps(recipe))
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["notetune", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code or 0


def test_the_figures_of_mimic3_stand_beside_the_published_ones(
    hospital, tmp_path, monkeypatch, capsys
):
    path = hospital_recipe(hospital, tmp_path, "mimic3")
    rows = compare_with_published(prepare(config.load(Recipe, path).preparation))
    figures = {row.what: row.ours for row in rows}
    truth = [row for row in hospital[1].admissions if row.hospital == "mimic3"]
    assert figures["admissions"] == len(truth)
    assert figures["patients"] == len({row.subject_id for row in truth})
    labelled = sum("MOR" in row.labels for row in truth)
    assert sum(figures[f"mortality: {split}"] for split in ("train", "validation", "test")) == (
        labelled
    )
    labels = {label for row in truth for label in row.labels.get("DIAG", ())}
    assert figures["diagnoses: labels"] == len(labels)
    assert figures["diagnoses: sha256 of the sorted labels"] == published.label_hash(sorted(labels))
    assert len(rows) == 13
    assert run(monkeypatch, "prepare", path, "--check") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 of 13 figures agree." in shown
    assert "48,745" in shown
    assert "usually another MIMIC-III version than 1.4" in shown


def test_a_figure_that_agrees_is_shown_as_such(hospital, tmp_path, monkeypatch, capsys):
    path = hospital_recipe(hospital, tmp_path, "mimic4")
    counts = prepare(config.load(Recipe, path).preparation).counts
    assert set(counts) == {"discharge notes", "radiology notes"}
    ours = tuple(
        published.Published(row.what, (counts[row.what],), row.source, row.explanation)
        for row in PUBLISHED
        if row.what in counts
    )
    monkeypatch.setattr(published, "PUBLISHED", ours)
    assert run(monkeypatch, "prepare", path, "--check", "--json") == 0
    shown = json.loads(capsys.readouterr().out)["published"]
    assert [row["agrees"] for row in shown] == [True, True]


def table_recipe(tmp_path, notes, **prepare_options):
    """A recipe for notes of one patient each, with the task `mortality`."""
    with (tmp_path / "notes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "time", "predicted", "died"])
        writer.writerows(notes)
    columns = {"text": "text", "note_id": "note", "patient_id": "patient", "time": "time"}
    task = {"name": "mortality", "kind": "binary", "column": "died"}
    task["prediction_time"] = "predicted"
    source = {"kind": "table", "path": str(tmp_path / "notes.csv"), "columns": columns}
    return config.parse(
        Recipe,
        {
            "name": "table",
            "runs": str(tmp_path),
            "prepare": {"source": {**source, "tasks": [task]}, "workers": 1, **prepare_options},
        },
        "recipe",
    )


def notes_of(texts, hour_of=lambda number: 7):
    predicted = "2020-01-01 08:00:00"
    return [
        (f"n{n}", f"p{n}", text, f"2020-01-01 {hour_of(n):02}:00:00", predicted, n % 2)
        for n, text in enumerate(texts)
    ]


def findings_of(prepared, check):
    return {f.split_b: f for f in prepared.findings if f.check == check}


def test_outcome_words_are_counted_in_every_split_of_their_task(tmp_path):
    texts = [f"{TEXTS[number % 3]}, note {number}" for number in range(90)]
    prepared = prepare(table_recipe(tmp_path, notes_of(texts)).preparation)
    found = findings_of(prepared, "outcome words")
    assert list(found) == ["train", "validation", "test"]
    for split, finding in found.items():
        task = prepared.tasks["mortality"]
        held = ["expired" in text for text in prepared.texts(task.note_ids_N[task.rows(split)])]
        assert (finding.count, finding.share) == (sum(held), sum(held) / len(held))
    assert sum(finding.count for finding in found.values()) == 30


def test_what_cannot_be_judged_is_listed_with_its_reason(tmp_path, place):
    recipe = RECIPE.replace("name: died", "name: readmitted")
    prepared = prepare(load(place, recipe).preparation)
    unjudged = {f.check: f.not_judged for f in prepared.findings if not f.is_judged}
    assert unjudged == {
        "same patient": "no patient ids",
        "outcome words": "no words are listed for this outcome",
        "later than the prediction time": "the task has no prediction time",
    }
    timed = prepare(table_recipe(tmp_path, notes_of(list(map(words, range(60))))).preparation)
    assert all(finding.is_judged and not finding.not_judged for finding in timed.findings)


def test_a_note_written_after_the_prediction_time_stops_the_run(tmp_path):
    texts = [f"{TEXTS[0]} {number}" for number in range(60)]
    notes = notes_of(texts, hour_of=lambda number: 9 if number == 5 else 7)
    said = r"1 notes of .* written after the prediction time of mort.* Set prepare\.late_notes=drop"
    with pytest.raises(DataError, match=said):
        prepare(table_recipe(tmp_path, notes).preparation)
    assert not (tmp_path / "table/prepared").exists()
    prepared = prepare(table_recipe(tmp_path, notes, allow_leaks=True).preparation)
    late = findings_of(prepared, "later than the prediction time")
    assert sum(finding.count for finding in late.values()) == 1


def test_prediction_times_of_one_class_alone_stop_the_run(tmp_path):
    notes = notes_of([f"{TEXTS[0]} {number}" for number in range(60)])
    notes = [row if row[-1] else (*row[:4], "", row[-1]) for row in notes]
    said = (
        r"30 of all labelled notes lack the prediction time of mortality\. Fill it in, or set prep"
    )
    with pytest.raises(DataError, match=said):
        prepare(table_recipe(tmp_path, notes).preparation)
    prepared = prepare(table_recipe(tmp_path, notes, allow_leaks=True).preparation)
    (found,) = findings_of(prepared, "no prediction time").values()
    assert (found.count, found.share, found.blocks) == (30, 0.5, True)


def test_notes_without_a_prediction_time_can_be_left_out_of_the_task(tmp_path):
    notes = notes_of(list(map(words, range(60))))
    notes = [
        (*row[:4], "", row[-1]) if number % 20 < 2 else row for number, row in enumerate(notes)
    ]
    prepared = prepare(table_recipe(tmp_path, notes, late_notes="drop").preparation)
    (found,) = findings_of(prepared, "no prediction time").values()
    assert (found.count, found.blocks) == (0, False)
    (stage,) = (stage for stage in prepared.flow if stage.stage == "mortality: notes in time")
    assert (stage.read, stage.kept, stage.rejected["without a prediction time"]) == (60, 54, 6)


def test_notes_from_after_the_prediction_time_can_be_left_out_of_the_task(tmp_path):
    texts = [f"{TEXTS[0]} {number}" for number in range(60)]
    notes = notes_of(texts, hour_of=lambda number: 9 if number < 4 else 7)
    prepared = prepare(
        table_recipe(tmp_path, notes, late_notes="drop", allow_leaks=True).preparation
    )
    late = {"later than the prediction time": 4}
    assert FlowCount("mortality: notes in time", 60, 56, late) in prepared.flow
    assert not set(prepared.tasks["mortality"].note_ids_N) & {"n0", "n1", "n2", "n3"}
    found = findings_of(prepared, "later than the prediction time")
    assert [finding.count for finding in found.values()] == [0, 0, 0]


def test_notes_of_the_day_of_the_prediction_time_alone_are_not_known_to_be_in_time(tmp_path):
    notes = notes_of([f"{TEXTS[0]} {number}" for number in range(60)])
    notes[:5] = [(*row[:3], "2020-01-01", *row[4:]) for row in notes[:5]]
    notes[5] = (*notes[5][:3], "2019-12-31", *notes[5][4:])
    said = "have the day of the prediction time and no hour"
    told = findings_of(
        prepare(table_recipe(tmp_path, notes, allow_leaks=True).preparation),
        "later than the prediction time",
    )
    assert sum(int(f.not_judged.split()[0]) for f in told.values() if said in f.not_judged) == 5
    options = {"late_notes": "drop", "allow_leaks": True}
    prepared = prepare(table_recipe(tmp_path, notes, **options).preparation)
    (flow,) = [stage for stage in prepared.flow if stage.stage == "mortality: notes in time"]
    reason = "of the day of the prediction time, without an hour"
    assert flow.rejected == {"later than the prediction time": 0, reason: 5}
    assert not set(prepared.tasks["mortality"].note_ids_N) & {f"n{n}" for n in range(5)}


def test_repeated_training_notes_leave_step_1_but_keep_their_labels(tmp_path):
    texts = [f"the same long words of every template number {n // 3} " * 9 for n in range(90)]
    whole = prepare(table_recipe(tmp_path, notes_of(texts), allow_leaks=True).preparation)
    assert whole.store.in_corpus_N.all()
    options = {"allow_leaks": True, "drop_near_duplicates": True}
    prepared = prepare(table_recipe(tmp_path, notes_of(texts), **options).preparation)
    store = prepared.store
    trained = store.note_ids[store.note_number_D[store.corpus_documents()]].tolist()
    train = store.note_ids[store.split_N == "train"].tolist()
    first = {}
    for note_id in train:
        first.setdefault(int(note_id[1:]) // 3, note_id)
    assert trained == list(first.values())
    assert 0 < len(trained) < len(train) == len(prepared.tasks["mortality"].rows("train"))
    (flow,) = [stage for stage in prepared.flow if stage.stage == "training notes of step 1"]
    assert {reason: n for reason, n in flow.rejected.items() if n} == {
        "nearly the same as an earlier note": len(train) - len(trained)
    }
    assert store.in_corpus_N[store.split_N != "train"].all()


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
    heads = load(place, RECIPE, "downstream.variants=[head-only]")
    assert len(prepare_notes(heads).prepared.store.note_ids) == 60  # no step 1 reads them
    with pytest.raises(DataError, match="1 notes of corpus of step 1 in the validation and test"):
        work(load(place, RECIPE), is_wanted=is_of_step_1)
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
