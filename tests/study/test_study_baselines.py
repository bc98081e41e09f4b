"""Words, columns and the hybrid, from notes to predictions."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from builders import random_llama
from one_job import find, jobs_on, run, run_jobs
from sklearn.linear_model import LogisticRegression
from small_study import CANARY, files_below, notetune

from notetune import config, manifest, runs, storage
from notetune.errors import BundleError, ConfigError, DataError
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.plain.bundles import load_stacked
from notetune.plain.columns import typed
from notetune.plain.stacked import fit_stacked, trusted_more
from notetune.recipe.recipe import Recipe
from notetune.serve.merge import merge
from notetune.serve.predictor import load_predictor
from notetune.study import baselines, step2
from notetune.study.baselines import ColumnsOfTask, WordsOfTask
from notetune.study.run import prepare_notes

RECIPE = """
name: plain
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    features: [age, sex, ward]
    coded_features: [ward]
    tasks:
      - {{name: died, kind: binary, column: died}}
      - {{name: stay, kind: multiclass, column: stay}}
      - {{name: codes, kind: multilabel, column: codes, separator: ";"}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 48
  min_train_positives: 3
seeds: 1
downstream:
  variants: [head-only, task-lora]
  tokens_per_row: 256
  max_pieces: 1
  epochs: 1
  adapter: {{rank: 2}}
  optim: {{peak_lr: 1e-2, targets_per_step: 16}}
pretrain: {{leaked_texts: drop}}
evaluate: {{draws: 100}}
"""
TASKS = ("died", "stay", "codes")
NOTES = 120


def write_notes(path: Path, first: int = 0, count: int = NOTES) -> Path:
    """Notes in which words tell the labels, and columns that tell something too."""
    rng = np.random.default_rng(first)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "died", "stay", "codes", "age", "sex", "ward"])
        for number in range(first, first + count):
            age = int(rng.normal(60, 15))
            died = int(rng.random() < 1 / (1 + np.exp(-(age - 60) / 10)))
            stay = ["short", "long", "longest"][int(rng.integers(3))]
            codes = [code for code in ("0389", "V58", "E88") if rng.random() < 0.4]
            told = [stay, *codes] if rng.random() < 0.7 else ["longest", "V58"]
            words = ["shock" if died and rng.random() < 0.7 else "well", *told]
            words += ["filler"] * int(rng.integers(1, 9)) + [f"seen by Dr {CANARY}{number}"]
            row = [f"n{number:03}", f"p{number // 2}", " ".join(words)]
            ward = str(int(rng.integers(2)) + 101) if number % 7 else ""
            age_cell = "" if number % 9 == 0 else age
            writer.writerow(
                [*row, died, stay, ";".join(codes) or "none", age_cell, "fm"[age % 2], ward]
            )
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A recipe with prepared notes, baselines, heads and hybrids."""
    runs.make_files_private()
    folder = tmp_path_factory.mktemp("plain")
    random_llama(folder / "backbone")
    write_notes(folder / "notes.csv")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    recipe = config.load(Recipe, folder / "recipe.yaml")
    notes = prepare_notes(recipe)
    run_jobs([job for job in jobs_on(recipe, notes) if job.model], notes)
    return recipe, notes.prepared


def words_of(recipe, prepared, table, name="tf-idf"):
    job = find(recipe, "baseline", task=table.task.name, model=name)
    return WordsOfTask(job.spec, recipe.backbone, prepared, table)


def columns_of(recipe, prepared, table):
    job = find(recipe, "baseline", task=table.task.name, model="columns")
    return ColumnsOfTask(job.spec, prepared, table)


def hybrids_of(recipe):
    return {model.name: model.stands_on.name for model in recipe.models_of("") if model.stands_on}


@pytest.mark.parametrize("cell", [None, "5", "one"])
def test_columns_that_say_nothing_give_the_prevalence_and_no_validation_notes_the_default(
    study, tmp_path, cell
):
    recipe, prepared = study
    for task in TASKS:
        whole = prepared.tasks[task]
        split_N = np.where(whole.split_N == "validation", "unused", whole.split_N)
        table = replace(whole, split_N=split_N)
        frame = pl.DataFrame({"note_id": table.note_ids_N}).with_columns(
            **dict.fromkeys(recipe.features, pl.lit(cell, pl.String))
        )
        typed(frame, recipe.preparation.codes).write_parquet(tmp_path / "columns.parquet")
        columns = columns_of(recipe, replace(prepared, folder=tmp_path), table)
        fitted = columns.fit()
        penalty = fitted.penalty
        assert (penalty.why, penalty.path) == ("no validation notes: the default", ())
        train = table.rows("train")
        expected_K = table.targets_NK[train].mean(0)
        assert np.abs(fitted.scores("test") - expected_K).max() < 1e-3
        assert columns.out_of_fold(penalty.value).std(0).max() < 0.1
        words = words_of(recipe, prepared, table)
        assert words.fit().penalty.why == "no validation notes: the default"
        assert fitted.scores("validation").shape == (0, len(table.task.classes))


def test_a_fold_in_which_a_label_has_one_value_is_scored_like_the_others(study):
    recipe, prepared = study
    whole = prepared.tasks["codes"]
    train = whole.rows("train")
    fold_N = baselines_folds(whole.patient_ids_N[train])[0]
    targets_NK = whole.targets_NK.copy()
    targets_NK[:, 0] = 0
    targets_NK[train[fold_N], 0] = 1  # so that the other folds see nothing else
    table = replace(whole, targets_NK=targets_NK)
    for scores_NK in (
        words_of(recipe, prepared, table).out_of_fold(1e-2),
        columns_of(recipe, prepared, table).out_of_fold(1e-2),
    ):
        prior = 1 / ((~fold_N).sum() + 2)
        assert scores_NK[fold_N, 0] == pytest.approx(np.full(fold_N.sum(), prior), rel=1e-5)
        assert (scores_NK[~fold_N, 0] > prior).all()
        assert np.isfinite(scores_NK).all()


def predict(study, bundle, path, *options):
    backbone = f"--backbone={study[0].backbone}"
    return notetune("predict", bundle, path, "--note-id=note", backbone, *options)


def scores_of(study, task, model, split="test"):
    return read_scores(study[0].folder.cell(task, model, 0) / f"{split}.parquet")


def test_every_baseline_that_applies_scores_validation_and_test_notes(study):
    recipe, prepared = study
    assert recipe.baselines == ("prevalence", "tf-idf", "tf-idf-all", "tf-idf-cut", "columns")
    assert hybrids_of(recipe) == {"hybrid": "task-lora"}
    joined = [job for job in jobs_on(recipe) if job.stage == "hybrid"]
    assert all(job.is_made() for job in joined)
    found = [(job.task, job.model.name, job.seed) for job in joined]
    assert found == [(task, "hybrid", 0) for task in TASKS]
    for task in TASKS:
        table = prepared.tasks[task]
        for name in (*recipe.baselines, "hybrid"):
            stage = "hybrid" if name == "hybrid" else "baseline"
            assert find(recipe, stage, task=task, model=name).is_made()
            folder = recipe.folder.cell(task, name, 0)
            for split in ("validation", "test"):
                found = read_scores(folder / f"{split}.parquet")
                rows = table.rows(split)
                assert len(rows) > 10
                assert found.note_ids_N.tolist() == table.note_ids_N[rows].tolist()
                assert np.array_equal(found.targets_NK, table.targets_NK[rows])


def test_words_of_few_patients_are_scored_and_leave_no_bundle(study):
    recipe, prepared = study
    folder = recipe.folder.cell("died", "tf-idf-all", 0)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "penalty.json",
        "test.parquet",
        "validation.parquet",
    ]
    table = prepared.tasks["died"]
    all_words, shared = (
        words_of(recipe, prepared, table, name).fit().bundle.words.terms
        for name in ("tf-idf-all", "tf-idf")
    )
    assert set(shared) < set(all_words)


@pytest.mark.parametrize("model", ["tf-idf", "tf-idf-cut", "columns", "hybrid"])
@pytest.mark.parametrize("task", TASKS)
def test_predict_gives_the_scores_of_the_study(study, task, model, tmp_path):
    recipe, prepared = study
    expected = scores_of(study, task, model)
    notes = pl.read_csv(prepared.folder.parents[2] / "notes.csv", infer_schema=False)
    asked = notes.filter(pl.col("note").is_in(expected.note_ids_N.tolist())).reverse()
    asked.write_csv(tmp_path / "new.csv")
    bundle = recipe.folder.cell(task, model, 0)
    done = predict(study, bundle, tmp_path / "new.csv", "-o", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    got = pl.read_parquet(tmp_path / "out.parquet")
    assert got["note_id"].unique(maintain_order=True).to_list() == asked["note"].to_list()
    classes = len(expected.classes)
    assert got["label"][:classes].to_list() == list(expected.classes)
    in_order = expected.in_note_order(np.array(asked["note"].to_list()))
    difference = got["score"].to_numpy() - in_order.scores_NK.ravel()
    assert len(difference) == asked.height * classes
    assert np.abs(difference).max() < 1e-6
    assert ("tokens" in got.columns) == (model in ("tf-idf-cut", "hybrid"))


@pytest.mark.parametrize("task", ["died", "codes"])
def test_a_hybrid_on_a_task_adapter_trusts_it_as_the_head_that_it_starts_from(
    study, task, tmp_path, monkeypatch
):
    recipe, prepared = study
    head, adapter = (find(recipe, "model", task=task, model=n) for n in ("head-only", "task-lora"))
    of_head, of_adapter = (
        step2.out_of_fold_scores(job, prepared).scores_NK for job in (head, adapter)
    )
    assert np.array_equal(of_head, of_adapter)
    folder = recipe.folder.cell(task, "hybrid", 0)
    stacked = load_stacked(folder, read_card(folder))
    table, names = prepared.tasks[task], ("tf-idf", "columns")
    parts = [find(recipe, "baseline", task=task, model=name) for name in names]
    plain = [baselines.out_of_fold_scores(part, prepared) for part in parts]
    order = table.sample_ids_N[table.rows("train")]
    whole = [*plain, step2.out_of_fold_scores(adapter, prepared).in_note_order(order).scores_NK]
    fitted = fit_stacked(table.task.kind, whole, table.targets_NK[table.rows("train")])
    seen = scores_of(study, task, "tf-idf", "validation")
    unseen = [scores_of(study, task, name, "validation") for name in (*names, "task-lora")]
    in_order = [one.in_note_order(seen.note_ids_N).scores_NK for one in unseen]
    raised = trusted_more(fitted, in_order, seen.targets_NK)
    assert stacked.slopes_M == pytest.approx(raised.slopes_M)
    assert raised.slopes_M[2] > 0
    monkeypatch.setattr(baselines, "read_record", lambda _: SimpleNamespace(kept_steps=0))
    kept = replace(find(recipe, "hybrid", task=task, model="hybrid"), folder=tmp_path / "kept")
    baselines.join(kept, SimpleNamespace(prepared=prepared))
    as_the_head = load_stacked(kept.folder, read_card(kept.folder))
    assert as_the_head.slopes_M == pytest.approx(fitted.slopes_M)
    first = scores_of(study, task, "tf-idf")
    expected, otherwise = (
        stacked.scores(
            [
                scores_of(study, task, part).in_note_order(first.note_ids_N).scores_NK
                for part in ("tf-idf", "columns", model)
            ]
        )
        for model in ("task-lora", "head-only")
    )
    found = scores_of(study, task, "hybrid").in_note_order(first.note_ids_N).scores_NK
    assert np.abs(found - expected).max() < 1e-12
    assert np.abs(found - otherwise).max() > 1e-6


def test_a_hybrid_needs_nothing_of_the_run_folder_but_itself(study, tmp_path):
    recipe, _ = study
    bundle = recipe.folder.cell("codes", "hybrid", 0)
    assert not [p for p in files_below(bundle / "parts") if p.suffix == ".parquet"]
    moved = bundle.rename(tmp_path / "elsewhere")
    try:
        card = read_card(moved)
        assert card.parts == ("tf-idf", "columns", "task-lora")
        predictor = load_predictor(moved, recipe.backbone)
    finally:
        moved.rename(bundle)
    frame = pl.DataFrame({"note_id": ["a"], "age": ["60"], "sex": ["f"], "ward": ["101"]})
    assert predictor.predict(["shock V58"], frame).scores_NK.shape == (1, len(card.classes))


def test_a_bundle_of_words_holds_only_what_ten_patients_share_and_says_so(study):
    recipe, prepared = study
    folder = recipe.folder.cell("died", "tf-idf", 0)
    terms = storage.read_json(folder / "terms.json")
    table = prepared.tasks["died"]
    train = table.rows("train")
    texts = [f" {text.lower()} " for text in prepared.texts(table.note_ids_N[train])]
    assert {"shock", "well", "filler", "filler filler", "seen by"} <= set(terms)
    for term in terms:
        patients = {p for p, t in zip(table.patient_ids_N[train], texts, strict=True) if term in t}
        assert len(patients) >= 10, term
    assert read_card(folder).holds == (
        f"terms.json holds {len(terms)} words and pairs of words of the training notes, each in "
        "the notes of at least 10 patients: keep it as private as the notes."
    )
    holding = [
        f for f in files_below(recipe.folder.root / "cells") if CANARY.encode() in f.read_bytes()
    ]
    assert holding == []
    assert {path.stat().st_mode & 0o077 for path in files_below(folder)} == {0}


def test_cut_texts_are_what_the_tokens_decode_to(study):
    recipe, prepared = study
    store, table = prepared.store, prepared.tasks["died"]
    cut = words_of(recipe, prepared, table, "tf-idf-cut").texts("train")
    note_ids = table.note_ids_N[table.rows("train")]
    whole = prepared.texts(note_ids)
    documents = store.first_documents(note_ids.tolist())
    shorter = 0
    for text, document, original in zip(cut, documents, whole, strict=True):
        assert len(text.encode()) == min(len(original.encode()), 47)  # a token a byte, after BOS
        assert len(store.document(document)) == min(len(original.encode()) + 2, 48)
        assert original.startswith(text)
        shorter += text != original
    assert 20 < shorter < len(cut)


def test_out_of_fold_scores_of_words_are_of_models_without_the_patient(study):
    recipe, prepared = study
    table = prepared.tasks["died"]
    rows = table.rows("train")
    words = words_of(recipe, prepared, table)
    scores_NK = words.out_of_fold(1e-3)
    assert scores_NK.shape == (len(rows), 1)
    patients_N = table.patient_ids_N[rows]
    is_left_out_N = baselines_folds(patients_N)[0]
    kept, features_NV = words._counted.words(~is_left_out_N)
    model = LogisticRegression(C=1e3 / (~is_left_out_N).sum(), tol=1e-8)
    model.fit(features_NV, table.targets_NK[rows][~is_left_out_N, 0])
    texts = [text for text, out in zip(words.texts("train"), is_left_out_N, strict=True) if out]
    expected_N = model.predict_proba(kept.features(texts))[:, 1]
    assert np.abs(scores_NK[is_left_out_N, 0] - expected_N).max() < 1e-3
    columns_NK = columns_of(recipe, prepared, table).out_of_fold(1e-2)
    fitted = scores_of(study, "died", "columns").scores_NK
    assert ((columns_NK > 0) & (columns_NK < 1)).all()
    assert fitted.std() > 0.05  # age tells


def baselines_folds(patients_N):
    groups, place_N = np.unique(patients_N, return_inverse=True)
    fold_N = (np.random.default_rng(0).permutation(len(groups)) % 5)[place_N]
    return [fold_N == fold for fold in range(5)]


def test_the_hybrid_is_made_again_when_a_part_changes_and_not_before(study, monkeypatch):
    recipe, prepared = study
    job = find(recipe, "hybrid", task="died", model="hybrid")
    kept = recipe.folder.cell("died", "tf-idf", 0).with_name("out-of-fold") / "train.parquet"
    words = words_of(recipe, prepared, prepared.tasks["died"])
    penalty = storage.read_json(kept.parents[1] / "seed-0/penalty.json")["value"]
    assert np.array_equal(read_scores(kept).scores_NK, words.out_of_fold(penalty))
    made = storage.read_json(job.folder / manifest.MANIFEST)
    monkeypatch.setattr(baselines, "fit_stacked", None)
    run(recipe, job)
    assert storage.read_json(job.folder / manifest.MANIFEST) == made
    lower = recipe.model_copy(
        update={"evaluate": recipe.evaluate.model_copy(update={"tfidf_min_patients": 9})}
    )
    jobs = [job for job in jobs_on(lower) if job.task == "died" and job.is_made()]
    assert [job.model.name for job in jobs] == [
        "prevalence",
        "tf-idf-all",
        "head-only",
        "task-lora",
    ]
    path = recipe.folder.root.parents[1] / "recipe.yaml"
    last = config.load(Recipe, path, ["downstream.features.pooling=last"])
    jobs = [job for job in jobs_on(last) if job.task == "died" and job.is_made()]
    assert [job.model.name for job in jobs] == list(recipe.baselines)
    with pytest.raises(BundleError, match="is a hybrid bundle, which has no backbone of its own"):
        merge(recipe.folder.cell("died", "hybrid", 0), prepared.folder / "merged")


@pytest.mark.parametrize("model", ["columns", "hybrid"])
def test_a_new_file_without_a_column_or_with_text_in_it_is_one_line(study, model, tmp_path):
    bundle = study[0].folder.cell("died", model, 0)
    new = pl.read_csv(write_notes(tmp_path / "new.csv", 900, 3), infer_schema=False)
    new.drop("age").write_csv(tmp_path / "less.csv")
    done = predict(study, bundle, tmp_path / "less.csv")
    assert done.returncode == 2
    assert "age" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    new.with_columns(age=pl.Series(["60", CANARY, ""])).write_csv(tmp_path / "odd.csv")
    done = predict(study, bundle, tmp_path / "odd.csv")
    assert done.returncode == 2
    assert "column age: 1 of 3 notes have something there that is no number of" in done.stderr
    assert "the first is note n901" in done.stderr
    assert CANARY not in done.stderr + done.stdout


def test_a_level_that_training_did_not_see_is_counted_in_a_line(study, tmp_path):
    bundle = study[0].folder.cell("died", "hybrid", 0)
    new = pl.read_csv(write_notes(tmp_path / "new.csv", 900, 3), infer_schema=False)
    new.with_columns(sex=pl.lit("x")).write_csv(tmp_path / "odd.csv")
    done = predict(study, bundle, tmp_path / "odd.csv")
    assert done.returncode == 0
    assert "column sex: 3 of 3 notes have a level that the bundle does not know" in done.stderr
    new.with_columns(sex=pl.lit("")).write_csv(tmp_path / "empty.csv")
    assert predict(study, bundle, tmp_path / "empty.csv").stderr == ""


def test_the_words_of_too_few_patients_are_said_before_anything_is_fitted(study):
    recipe, prepared = study
    table = prepared.tasks["died"]
    patients = len(set(table.patient_ids_N[table.rows("train")]))
    many = recipe.evaluate.model_copy(update={"tfidf_min_patients": patients + 1})
    lacking = recipe.model_copy(update={"evaluate": many})
    with pytest.raises(DataError, match=f"is in the notes of {patients + 1} of its {patients} tr"):
        words_of(lacking, prepared, table).fit()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["evaluate.hybrid=domain-frozen"],
            "domain-frozen is no language model of this recipe; these are head-only, task-lora",
        ),
        (["evaluate.baselines=[columns]", "prepare.source.features=[]"], "coded_features"),
        (
            [
                "evaluate.baselines=[columns]",
                "prepare.source.features=[]",
                "prepare.source.coded_features=[]",
            ],
            "columns needs prepare.source.features",
        ),
        (["prepare.source.features=[age, ward, ward]"], "a column is named twice"),
    ],
)
def test_a_recipe_that_asks_for_what_cannot_be_is_refused_by_name(study, changes, said):
    path = study[0].folder.root.parents[1] / "recipe.yaml"
    with pytest.raises(ConfigError) as caught:
        config.load(Recipe, path, changes)
    assert said in str(caught.value)


def test_null_switches_the_hybrid_off_and_each_backbone_has_its_own(study):
    recipe, _ = study
    path = recipe.folder.root.parents[1] / "recipe.yaml"
    assert hybrids_of(config.load(Recipe, path, ["evaluate.hybrid=null"])) == {}
    text = path.read_text().replace(
        "backbone: ", "backbones: {one: tiny, two: tiny}\nnotices: [] #"
    )
    two = path.parent / "two.yaml"
    two.write_text(text + "encoders: {models: {bert: bert}, variants: [head-only]}\n")
    own, of_bert = {"hybrid": "task-lora"}, {"bert+hybrid": "bert+head-only"}

    def of_each(*changes):
        studies = config.load(Recipe, two, changes).studies.values()
        return [(hybrids_of(study), study.baselines[:1]) for study in studies]

    assert of_each() == [({**own, **of_bert}, ("prevalence",)), (own, ())]
    of_head = {"hybrid": "head-only"}
    assert of_each("evaluate.hybrid=two/head-only") == [({}, ("prevalence",)), (of_head, ())]
    assert of_each("evaluate.hybrid=bert+head-only") == [(of_bert, ("prevalence",)), ({}, ())]
    assert of_each("evaluate.hybrid=null", "evaluate.baselines=[]") == [({}, ()), ({}, ())]
    with pytest.raises(
        ConfigError, match=r"are one/head-only, one/task-lora, bert\+head-only, two/"
    ):
        of_each("evaluate.hybrid=head-only")
