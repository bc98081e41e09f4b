"""An encoder in a study, full and with LoRA."""

import json

import numpy as np
import polars as pl
import pytest
from builders import random_encoder, random_llama
from safetensors.torch import load_file
from small_study import files_below, notetune, write_notes

from notetune import config
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.recipe.recipe import Recipe
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import open_store

MODELS = ["bert+full", "bert+lora"]
RECIPE = """
name: small
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
  split: {{kind: fractions, validation: 0, test: 0.3}}
  max_tokens: 48
pretrain:
  perplexity_documents: 20
  adapter: {{kind: lora, rank: 2, alpha: 4}}
  tokens_per_row: 256
downstream: {{variants: [head-only], max_pieces: 1, tokens_per_row: 256}}
encoders:
  models: {{bert: {folder}/bert}}
  adapter: {{rank: 2, alpha: 4, targets: [query, value]}}
  features: {{pooling: mean}}
  epochs: 1
  tokens_per_row: 256
evaluate: {{draws: 100, baselines: [prevalence]}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    random_llama(folder / "backbone")
    random_encoder(folder / "bert")
    write_notes(folder / "notes.csv")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def planned(place):
    done = notetune("study", "run", place / "recipe.yaml", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert not (place / "runs").exists()
    return json.loads(done.stdout)["trainings"]


@pytest.fixture(scope="module")
def finished(place, planned):
    done = notetune("study", "run", place / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    return place / "runs/small"


def test_encoders_stand_in_scores_report_and_costs(finished):
    results = json.loads((finished / "report/report.json").read_text())
    (task,) = results["tasks"]
    assert [row["model"] for row in task["rows"]] == [
        *("prevalence", "head-only", *MODELS, "hybrid", "bert+hybrid")
    ]
    costs = [(cost["model"], cost["stage"]) for cost in results["costs"]]
    assert {model for model, _ in costs} >= set(MODELS)
    assert "bert+lora" in (finished / "report/report.html").read_text()
    (notice,) = [text for text in results["notices"] if text.startswith("bert: ")]
    assert notice.endswith("longer than 48 of its tokens; it reads their beginning.")


def test_full_trains_every_weight_and_lora_its_own(finished, place):
    results = json.loads((finished / "report/report.json").read_text())
    sizes = {
        c["model"]: (c["trainable_parameters"], c["total_parameters"]) for c in results["costs"]
    }
    assert sizes["bert+full"][0] == sizes["bert+full"][1]
    assert sizes["bert+lora"][0] == 2 * 2 * 2 * (32 + 32) + 33
    before = load_file(place / "bert/model.safetensors")
    after = load_file(finished / "cells/died/bert+full/seed-0/task/model.safetensors")
    changed = [name for name, value in after.items() if not value.equal(before[f"bert.{name}"])]
    assert len(after) > 30
    unread = {"embeddings.token_type_embeddings.weight"}  # AdamW's decay changes it all the same
    assert set(changed) | unread >= set(after)


def test_an_encoder_reads_labelled_notes_in_its_own_tokens(finished, place):
    store = open_store(finished / "prepared/encoders/bert")
    notes = pl.read_parquet(finished / "prepared/notes.parquet")
    assert store.note_ids.tolist() == notes["note_id"].to_list()
    texts = pl.read_parquet(finished / "prepared/texts")
    encoder = load_encoder(place / "bert", frames_pieces=True)
    text_of = dict(texts.select("note_id", "text").iter_rows())
    for number, note_id in enumerate(store.note_ids.tolist()):
        body = encoder.tokenizer.encode(text_of[note_id]).ids[1:-1][:46]
        assert store.document(number).tolist() == [2, *body, 3]


@pytest.mark.parametrize("model", MODELS)
def test_predict_gives_the_scores_of_the_study(finished, place, model, tmp_path):
    bundle = finished / "cells/died" / model / "seed-0"
    test = read_scores(bundle / "test.parquet")
    notes = pl.read_csv(place / "notes.csv", infer_schema=False)
    notes.filter(pl.col("note").is_in(test.note_ids_N.tolist())).reverse().write_csv(
        tmp_path / "notes.csv"
    )
    out = tmp_path / "scores.parquet"
    columns = ("--note-id=note", "--patient-id=patient", f"--backbone={place}/bert")
    done = notetune("predict", bundle, tmp_path / "notes.csv", *columns, "-o", out)
    assert done.returncode == 0, done.stderr
    got = pl.read_parquet(out)
    expected = dict(zip(test.note_ids_N.tolist(), test.scores_NK[:, 0].tolist(), strict=True))
    assert got.height == len(expected) > 10
    assert np.ptp(got["score"].to_numpy()) > 0
    for note_id, score in got.select("note_id", "score").iter_rows():
        assert score == pytest.approx(expected[note_id], abs=1e-5)


def test_the_same_command_again_trains_nothing_and_status_says_so(finished, place):
    before = {
        path: path.stat().st_mtime_ns for path in files_below(finished) if "cells" in str(path)
    }
    assert notetune("study", "run", place / "recipe.yaml", "--json").returncode == 0
    after = {
        path: path.stat().st_mtime_ns for path in files_below(finished) if "cells" in str(path)
    }
    assert before == after
    stages = json.loads(notetune("study", "status", place / "recipe.yaml", "--json").stdout)["jobs"]
    names = [stage["name"] for stage in stages]
    assert {"encoder bert", "died · bert+full · seed 0"} <= set(names)
    assert all(stage["state"] == "done" for stage in stages)


def test_another_encoder_leaves_everything_else_as_it_was(finished, place):
    more = f"encoders.models={{bert: {place / 'bert'}, other: {place / 'bert'}}}"
    stages = json.loads(notetune("study", "status", place / "recipe.yaml", more, "--json").stdout)[
        "jobs"
    ]
    is_open = [stage["name"] for stage in stages if stage["state"] != "done"]
    of_cells = [f"died · other+{name} · seed 0" for name in ("full", "lora", "hybrid")]
    assert is_open == ["encoder other", *of_cells]


def test_a_dry_run_plans_the_encoders(planned):
    names = [(training["task"], training["model"], training["seeds"]) for training in planned]
    cells = [("died", model, [0]) for model in ("head-only", *MODELS)]
    assert names == cells  # no variant stands on step 1
    assert all(training["seconds"] > 0 for training in planned)
    assert [training["model"] for training in planned if not training["steps"]] == ["head-only"]


def test_encoders_beside_an_nf4_backbone_are_bfloat16(place, tmp_path):
    pytest.importorskip("bitsandbytes", reason="nf4 needs notetune[4bit]")
    done = notetune(
        "study", "run", place / "recipe.yaml", f"runs={tmp_path}", "dtype=nf4",
        f"encoders.models={{bert: {place}/bert}}", "encoders.variants=[full, lora]"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_card(tmp_path / "small/cells/died/bert+lora/seed-0").dtype == "bfloat16"
    assert read_card(tmp_path / "small/cells/died/head-only/seed-0").dtype == "nf4"


def test_a_decoder_among_the_encoders_is_refused(place, tmp_path):
    models = f"encoders.models={{llama: {place / 'backbone'}}}"
    done = notetune("study", "run", place / "recipe.yaml", f"runs={tmp_path}", models, "--dry-run")
    assert done.returncode == 2
    assert "encoders.models.llama: backbone is a decoder; give it as the backbone." in done.stderr


@pytest.mark.parametrize("name", ["Bert", "a+b", "../up"])
def test_a_name_of_an_encoder_that_cannot_name_a_folder_is_refused(place, name):
    with pytest.raises(Exception, match=r"encoders\.models"):
        config.load(Recipe, place / "recipe.yaml", [f"encoders.models={{'{name}': bert}}"])
