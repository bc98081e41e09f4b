"""The whole way on a small hospital file, through the command line in real processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from builders import random_llama
from sklearn.metrics import roc_auc_score
from small_study import CANARY, files_below, notetune, small_study

from notetune import config, manifest, storage
from notetune.cli import dry_runs
from notetune.errors import DataError, RunWarning
from notetune.metrics.scores import read_scores
from notetune.prepare.patient_hashes import (
    PROVENANCE,
    corpus_findings,
    patient_hashes,
    stop_at_known_patients,
)
from notetune.prepare.prepared import Prepared, open_prepared
from notetune.recipe.recipe import Recipe
from notetune.recipe.sections import EvaluateConfig
from notetune.study import notices
from notetune.study.costs import costs
from notetune.study.last_recipe import other_keys
from notetune.study.listing import read_study
from notetune.study.run import work
from notetune.train.training import read_record

BASELINES = ["prevalence", "tf-idf", "tf-idf-all", "tf-idf-cut"]
VARIANTS = [
    "head-only",
    "task-lora",
    "domain-frozen+task-lora",
    "domain-trainable+task-lora",
]
# Tasks, variants, runs: the head alone has one, and so has the hybrid on it.
TASKS = ("died", "stay", "codes")
CELLS = 3 * (1 + 3 * 2)
OTHERS = 3 * (len(BASELINES) + 2)  # a hybrid has the runs of what it joins


def notetune_in_a_fresh_process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "notetune", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = small_study(tmp_path_factory.mktemp("study"))
    (folder / "words.csv").write_text("code,words\n038.9,Septicemia\nV58,Aftercare\n")
    columns = "code_column: code, description_column: words"
    words = f"descriptions: {{path: {folder}/words.csv, {columns}}}"
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace('separator: ";"', f'separator: ";", {words}'))
    return folder


@pytest.fixture(scope="module")
def finished(place):
    done = notetune_in_a_fresh_process("study", "run", place / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    return done


def test_a_study_ends_in_a_report_with_every_model(place, finished):
    report = place / "runs/small/report"
    results = json.loads((report / "report.json").read_text())
    assert [task["task"] for task in results["tasks"]] == ["died", "stay", "codes"]
    for task in results["tasks"]:
        assert [row["model"] for row in task["rows"]] == [*BASELINES, *VARIANTS, "hybrid"]
        assert [item["about"] for item in task["primary"]] == [
            *("domain adapter", "task adapter", "best validated", "hybrid")
        ]
        assert len(task["exploratory"]) >= len(VARIANTS)
    assert "domain-trainable+task-lora" in (report / "report.html").read_text()
    assert "report.html" in finished.stdout
    said = " ".join(finished.stdout.split())
    asked = "notes help? domain-frozen+task-lora against task-lora:"
    assert f"{asked} died no difference: both rank these patients alike." in said
    assert "mean over 2 runs, 95 % interval over patients and runs." in said
    assert "★ and bold" in said
    assert "hybrid joins tf-idf, domain-frozen+task-lora." in said
    looks = results["provenance"]["looks at the test scores"]
    assert looks == "1, of these 1 with these primary comparisons"


def test_words_for_labels_go_from_their_table_to_the_report(place, finished, tmp_path):
    words = {"0389": "Septicemia", "V58": "Aftercare"}
    report = place / "runs/small/report"
    found = {
        t["task"]: t["labels"] for t in json.loads((report / "report.json").read_text())["tasks"]
    }
    said = {row["label"]: row["description"] for row in found["codes"]}
    assert said.items() >= words.items()
    assert said["E88"] == ""
    assert {row["description"] for row in found["stay"]} == {""}
    assert 'V58 <span class="detail">Aftercare</span>' in (report / "report.html").read_text()
    prepared = Path(shutil.copytree(place / "runs/small/prepared", tmp_path / "prepared"))
    facts = json.loads((prepared / "facts.json").read_text())
    assert [task.pop("class_descriptions") for task in facts["tasks"]] == [{}, {}, words]
    (prepared / "facts.json").write_text(json.dumps(facts))
    (prepared / manifest.MANIFEST).unlink()
    manifest.seal(prepared, "as an earlier version")
    older = [table.task.class_descriptions for table in open_prepared(prepared).tasks.values()]
    assert older == [{}, {}, {}]


def test_the_report_says_which_trainings_were_too_short(place, finished, monkeypatch):
    said = json.loads((place / "runs/small/report/report.json").read_text())["notices"]
    short = [notice for notice in said if "fewer than 20 steps" in notice]
    assert [notice.partition(":")[0] for notice in short] == ["died, stay, codes"]
    recipe = config.load(Recipe, place / "recipe.yaml")
    monkeypatch.setattr(notices, "_FEW_STEPS", 1)
    assert not [n for n in notices.notices(recipe, read_study(recipe)) if "steps" in n]


def test_notices_of_the_labels_are_in_the_report_and_in_a_dry_run(
    place, finished, monkeypatch, capsys
):
    monkeypatch.setattr(Prepared, "notices", ("Of 9 codes 3 are none.",))
    recipe = config.load(Recipe, place / "recipe.yaml")
    monkeypatch.setattr(notices, "_FEW_PATIENTS", 1_000)
    study = read_study(recipe)
    of_few = [*notices.unsure(study[0].notes.prepared)]
    assert any("test patients have one of its values" in sentence for sentence in of_few)
    said = {"Of 9 codes 3 are none.", *of_few}
    assert said <= {*notices.notices(recipe, study)}
    dry_runs.tell(recipe, costs(recipe, "h100"), as_json=False)
    shown = capsys.readouterr().out
    assert all(f"Note: {sentence}" in shown for sentence in said)


def test_every_file_is_private(place, finished):
    files = files_below(place / "runs")
    assert len(files) > 50
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_note_text_is_in_no_output_but_the_prepared_notes(place, finished):
    assert CANARY not in finished.stdout + finished.stderr
    holding = [p.name for p in files_below(place / "runs") if CANARY.encode() in p.read_bytes()]
    # Parquet may compress it; all patients share this word, so TF-IDF has it.
    assert set(holding) <= {"000000.parquet", "terms.json"}
    texts = pl.read_parquet(place / "runs/small/prepared/texts")["text"]
    assert all(CANARY in text for text in texts)


def test_whatever_takes_time_is_shown_from_its_beginning(finished):
    begun = [line for line in finished.stderr.splitlines() if " 0/" in line]
    first, last = begun[0], begun[-1]
    assert (first, last) == ("prepare 0/1", "report 0/1")
    starts = {line.rpartition(" ")[0] for line in begun}
    assert {"perplexity", "pretrain · seed 0", "died · tf-idf"} <= starts
    assert "codes · hybrid · seed 0" in starts
    assert len(begun) >= CELLS


def test_the_same_command_again_trains_nothing_and_gives_the_same_numbers(place, finished):
    before = {path: path.stat().st_mtime_ns for path in files_below(place / "runs/small/cells")}
    assert len(before) > 30
    again = notetune("study", "run", place / "recipe.yaml", "--json")
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in files_below(place / "runs/small/cells")}
    assert before == after
    first = json.loads((place / "runs/small/report/report.json").read_text())
    assert json.loads(again.stdout)["tasks"] == first["tasks"]


def test_a_finished_study_says_so(place, finished):
    status = notetune("study", "status", place / "recipe.yaml", "--json")
    stages = json.loads(status.stdout)["jobs"]
    assert len(stages) == 5 + CELLS + OTHERS
    assert all(stage["state"] == "done" for stage in stages)
    assert json.loads(status.stdout)["other_keys"] == []
    keys = ("seeds=3", "downstream.epochs=7", "device=cpu")
    other = notetune("study", "status", place / "recipe.yaml", *keys, "--json")
    assert json.loads(other.stdout)["other_keys"] == ["seeds", "downstream.epochs"]
    said = " ".join(notetune("study", "status", place / "recipe.yaml", *keys).stdout.split())
    assert "last worked on with another seeds, downstream.epochs;" in said


@pytest.mark.parametrize("text", ["[]", "{}", '{"prepare": 1}'])
def test_a_file_of_something_else_says_nothing_of_keys(place, tmp_path, text):
    recipe = config.load(Recipe, place / "recipe.yaml", [f"runs={tmp_path}"])
    storage.write_text(recipe.folder.root / "recipe.json", text)
    assert other_keys(recipe) == ()


def test_columns_that_tell_an_outcome_as_its_copy_would_are_noticed():
    auroc = SimpleNamespace(value=0.999, low=0.99, high=1)
    row, words = (SimpleNamespace(model=name, auroc=auroc) for name in ("columns", "tf-idf"))
    (said,) = notices.of_scores([SimpleNamespace(task="died", rows=[row, words])])
    assert said.startswith("died: the columns beside the text alone have an AUROC of 0.999")
    row.auroc.value = 0.9
    same = SimpleNamespace(value=0.5, low=0.5, high=0.5)
    both = [SimpleNamespace(model=name, auroc=same) for name in ("prevalence", "hybrid")]
    (said,) = notices.of_scores([SimpleNamespace(task="died", rows=both)])
    assert said == "died: hybrid gives every test note the same score."
    assert list(notices.of_scores([SimpleNamespace(task="died", rows=[row])])) == []


def test_a_dry_run_leaves_out_of_its_time_what_is_made(place, finished):
    def costs(*keys):
        shown = notetune("study", "run", place / "recipe.yaml", "--dry-run", "--json", *keys)
        return [*(found := json.loads(shown.stdout))["trainings"], *found["perplexities"]]

    assert all(job["made"] == len(job["seeds"]) for job in costs())
    further = [job for job in costs("seeds=3") if job["made"] < len(job["seeds"])]
    assert further
    assert all(len(job["seeds"]) == 3 and job["made"] in (0, 2) for job in further)


def test_a_key_that_only_measures_leaves_every_training_finished(place, finished):
    keys = ("draws=200", "seed=1", "baselines=[prevalence]", "listed_patients={file: none.csv}")
    keys += ("primary=[]", "tfidf_min_patients=9", "hybrid=null", "published=gema-2023")
    # Of stays, which these notes do not have (test_end_to_end_stays), and jobs of its own.
    apart = {"combine", "deletion_notes"}
    assert {key.partition("=")[0] for key in keys} == set(EvaluateConfig.model_fields) - apart
    unfinished = {}
    for key in (*(f"evaluate.{key}" for key in keys), "pretrain.perplexity_documents=5"):
        done = notetune("study", "status", place / "recipe.yaml", key, "--json")
        assert done.returncode == 0, done.stderr
        stages = json.loads(done.stdout)["jobs"]
        if names := [stage["name"] for stage in stages if stage["state"] != "done"]:
            unfinished[key] = names
        lacking = {"baselines": 6, "hybrid": 6}.get(key.split(".")[1].split("=")[0], 0)
        assert len(stages) == 5 + CELLS + OTHERS - lacking
    of_task = [f"{task} · {name}" for task in TASKS for name in ("tf-idf", "tf-idf-cut")]
    again = [
        *of_task,
        *(f"{task} · hybrid · seed {seed}" for seed in range(2) for task in TASKS),
    ]
    assert unfinished == {
        "evaluate.tfidf_min_patients=9": again,
        "pretrain.perplexity_documents=5": ["perplexity · backbone alone", "perplexity"],
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_predict_gives_the_scores_of_the_study_for_each_note_alone_and_together(
    place, finished, variant, tmp_path
):
    bundle = place / "runs/small/cells/codes" / variant / "seed-0"
    test = read_scores(bundle / "test.parquet")
    notes = pl.read_csv(place / "notes.csv", infer_schema=False)
    asked = notes.filter(pl.col("note").is_in(test.note_ids_N.tolist()))
    for name, table in {"all": asked.reverse(), "one": asked.head(1)}.items():
        table.write_csv(tmp_path / f"{name}.csv")
        is_fresh = (variant, name) == (VARIANTS[-1], "all")
        command = notetune_in_a_fresh_process if is_fresh else notetune
        done = command(
            "predict",
            bundle,
            tmp_path / f"{name}.csv",
            "--note-id=note",
            "--patient-id=patient",
            f"--backbone={place / 'backbone'}",
            "-o",
            tmp_path / f"{name}.parquet",
        )
        assert done.returncode == 0, done.stderr
        got = pl.read_parquet(tmp_path / f"{name}.parquet")
        assert got.height == table.height * 4
        assert got["note_id"].unique(maintain_order=True).to_list() == table["note"].to_list()
        expected = dict(zip(test.note_ids_N.tolist(), test.scores_NK, strict=True))
        for (note_id,), part in got.group_by("note_id"):
            assert part["score"].to_numpy() == pytest.approx(expected[note_id], abs=1e-5)


def test_frozen_domain_adapters_leave_training_as_they_came(place, finished):
    def hash_in(folder):
        return json.loads((folder / "adapter.json").read_text())["sha256_of_tensors"]

    domains = {hash_in(place / f"runs/small/domain/seed-{seed}") for seed in (0, 1)}
    cells = place / "runs/small/cells"
    frozen = [hash_in(p) for p in cells.glob("*/domain-frozen+task-lora/*/domain")]
    trained = [
        hash_in(path / "domain")
        for path in cells.glob("*/domain-trainable+task-lora/*")
        if read_record(path / "training.json").kept_steps  # else the solved head was the best
    ]
    assert len(frozen) == 6
    assert len(trained) > 1
    assert set(frozen) == domains
    assert len(domains) == 2
    assert not domains & set(trained)
    assert len(set(trained)) == len(trained)


def test_a_dry_run_counts_and_writes_nothing(place, tmp_path):
    done = notetune(
        "study", "run", place / "recipe.yaml", f"runs={tmp_path}", "--dry-run", "--json"
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert sum(len(training["seeds"]) for training in plan["trainings"]) == 2 + CELLS
    assert plan["recipe"]["name"] == "small"
    pretrain = plan["trainings"][0]
    assert pretrain["documents"] > 40
    assert pretrain["trainable_parameters"] == 2 * (2 * (32 + 32) + 2 * (32 + 16))
    assert not list(tmp_path.iterdir())


def test_a_recipe_typo_names_the_nearest_key(place):
    done = notetune("study", "run", place / "recipe.yaml", "pretrain.optim.peek_lr=1")
    assert done.returncode == 2
    assert "did you mean pretrain.optim.peak_lr?" in done.stderr


def test_a_bundle_on_another_backbone_is_refused(place, finished, tmp_path):
    other = random_llama(tmp_path / "other", seed=4)
    bundle = place / "runs/small/cells/died/task-lora/seed-0"
    done = notetune("predict", bundle, place / "notes.csv", f"--backbone={other}")
    assert done.returncode == 2
    assert "was trained on the backbone" in done.stderr


def test_a_list_of_patients_that_is_not_there_is_missed_before_anything_is_made(place, tmp_path):
    option = f"evaluate.listed_patients={{file: {tmp_path / 'none.csv'}}}"
    done = notetune("study", "run", place / "recipe.yaml", option, f"runs={tmp_path / 'runs'}")
    assert done.returncode == 2
    assert re.search(r"evaluate\.listed_patients: .*none\.csv is missing", done.stderr)
    assert not (tmp_path / "runs").exists()


def test_listed_patients_are_also_scored_alone(place, finished):
    table = read_scores(place / "runs/small/cells/died/head-only/seed-0/test.parquet")
    listed = sorted(set(table.patient_ids_N.tolist()))[::2]
    (place / "listed.csv").write_text("\n".join(["SUBJECT_ID", *listed, "p999"]) + "\n")
    before = {path: path.read_bytes() for path in files_below(place / "runs/small/report")}
    option = f"evaluate.listed_patients={{file: {place / 'listed.csv'}}}"
    done = notetune("evaluate", place / "recipe.yaml", option)
    assert done.returncode == 0, done.stderr
    results = json.loads((place / "runs/small/report/report.json").read_text())
    report = (place / "runs/small/report/report.html").read_text()
    for path, content in before.items():
        path.write_bytes(content)
    alone = {task["task"]: task for task in results["listed_patients"]}
    assert list(alone) == ["died", "stay", "codes"]
    is_listed = np.isin(table.patient_ids_N, listed)
    assert 0 < is_listed.sum() < len(is_listed)
    assert alone["died"]["notes"] == is_listed.sum()
    assert alone["died"]["patients"] == len(listed)
    row = next(row for row in alone["died"]["rows"] if row["model"] == "head-only")
    expected = roc_auc_score(table.targets_NK[is_listed], table.scores_NK[is_listed])
    assert row["auroc_per_run"][0] == pytest.approx(expected, abs=1e-12)
    assert "Listed patients only" in report
    assert b"Listed patients only" not in before[place / "runs/small/report/report.html"]


def test_what_was_trained_with_other_settings_stays_out_of_the_report(place, finished, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    recipe = (place / "recipe.yaml", f"runs={tmp_path}/runs")
    notice = "are left out (died · "

    def rows():
        results = json.loads((tmp_path / "runs/small/report/report.json").read_text())
        models = [row["model"] for row in results["tasks"][0]["rows"]]
        return models, any(notice in text for text in results["notices"])

    assert notetune("evaluate", *recipe).returncode == 0
    models, is_noticed = rows()
    assert "head-only" in models
    assert not is_noticed
    done = notetune("evaluate", *recipe, "downstream.features.pooling=last")
    assert done.returncode == 0, done.stderr
    assert rows() == (BASELINES, True)
    done = notetune("evaluate", *recipe, "pretrain.adapter.rank=3")
    assert done.returncode == 2
    assert "no adapter that was trained as the recipe says now" in done.stderr


def test_another_kind_of_the_same_labels_is_another_task(place, finished, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    text = (place / "recipe.yaml").read_text()
    old = "name: stay, kind: multiclass, column: stay"
    assert old in text
    (tmp_path / "recipe.yaml").write_text(text.replace(old, old.replace("class", "label")))
    recipe = (tmp_path / "recipe.yaml", f"runs={tmp_path}/runs", "evaluate.deletion_notes=0")
    assert notetune("prepare", *recipe).returncode == 0
    done = json.loads(notetune("study", "status", *recipe, "--json").stdout)["jobs"]
    states = {(" stay " in f" {job['name']} ", job["state"] == "done") for job in done}
    assert states == {(True, False), (False, True)}


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_listed_patient_is_not_scored_and_the_rest_of_the_report_is_there(
    place, finished, tmp_path, count
):
    shutil.copytree(place / "runs", tmp_path / "runs")
    scores = read_scores(place / "runs/small/cells/died/tf-idf/seed-0/test.parquet")
    listed = ["patient", "nobody", *scores.patient_ids_N[:count]]
    (tmp_path / "listed.csv").write_text("\n".join(listed))
    listed = f"evaluate.listed_patients={{file: {tmp_path}/listed.csv, column: patient}}"
    done = notetune("evaluate", place / "recipe.yaml", f"runs={tmp_path}/runs", listed)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "runs/small/report/report.json").read_text())
    assert results["listed_patients"] == []
    few = [text for text in results["notices"] if "fewer than two test patients" in text]
    assert len(few) == len(TASKS)


def test_a_folder_with_another_study_in_it_answers_for_none_but_that(place, finished):
    other = "prepare.source.tasks=[{name: other, kind: binary, column: died}]"
    done = notetune("evaluate", place / "recipe.yaml", other)
    assert done.returncode == 2
    assert "was made with another prepare.source.tasks: another study" in done.stderr


def test_what_a_search_leaves_open_is_said_in_the_report(place, finished, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    searched = "tune.downstream={optim.peak_lr: [1e-3, 1e-2]}"
    done = notetune("evaluate", place / "recipe.yaml", f"runs={tmp_path}/runs", searched)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "runs/small/report/report.json").read_text())
    assert "task-lora" not in [row["model"] for row in results["tasks"][0]["rows"]]
    assert any("are left out" in text for text in results["notices"])


def test_a_domain_adapter_that_has_read_of_a_test_patient_is_refused(place, finished):
    recipe = config.load(Recipe, place / "recipe.yaml")
    prepared = open_prepared(recipe.folder.prepared)
    path = recipe.folder.domain(0) / PROVENANCE
    known = json.loads(path.read_text())
    store = prepared.store
    trained = set(store.patient_ids[store.split_N == "train"].tolist())
    assert known["patients"] == patient_hashes(trained, known["salt"])
    assert not trained & set(path.read_text().split('"'))
    (corpus,) = known["corpora"]
    assert (corpus["source"], corpus["patients"]) == ("visit", len(trained))
    assert [finding.count for finding in corpus_findings(recipe.folder.domain(0), prepared)] == [
        0,
        0,
        0,
    ]
    tested = store.patient_ids[store.split_N == "test"][:1].tolist()
    foreign = {**known, "patients": [*known["patients"], *patient_hashes(tested, known["salt"])]}
    before = path.read_bytes()
    path.write_text(json.dumps(foreign))
    try:
        with pytest.raises(DataError, match=r"1 patients of test of .* in corpus of step 1"):
            stop_at_known_patients(recipe.folder.domain(0), prepared, allowed=False)
        stop_at_known_patients(recipe.folder.domain(0), prepared, allowed=True)
    finally:
        path.write_bytes(before)


def test_predict_leaves_faulty_rows_out_where_it_is_told_to(place, finished, tmp_path):
    bundle = place / "runs/small/cells/died/head-only/seed-0"
    notes = tmp_path / "new.csv"
    notes.write_text(f"id,text\na,{CANARY} well\nb,\nc,{CANARY} shock\n")
    at = (bundle, notes, "--note-id=id", f"--backbone={place / 'backbone'}", "--device=cpu")
    done = notetune("predict", *at)
    assert done.returncode == 2
    assert "line 3: empty text" in done.stderr
    output = tmp_path / "new folder/scores.parquet"
    done = notetune("predict", *at, "--policy=quarantine", "-o", output)
    assert done.returncode == 0, done.stderr
    assert "warning: 1 rows are left out (empty text); the first is" in done.stderr
    assert pl.read_parquet(output)["note_id"].to_list() == ["a", "c"]
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_notes_that_replace_those_of_another_split_are_told(place, tmp_path):
    def begin(*keys):
        recipe = config.load(Recipe, place / "recipe.yaml", [f"runs={tmp_path}", *keys])
        work(recipe, is_wanted=lambda _: False)

    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        begin()
        begin("downstream.epochs=2")
    with pytest.warns(
        RunWarning, match=r"another prepare\.split\.seed: its notes are prepared anew"
    ):
        begin("prepare.split.seed=9")
