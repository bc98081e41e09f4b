"""What is said of backbones and encoders before a study and in its report."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from builders import random_encoder, random_llama
from tiny_families import tiny_model

from notetune import runs
from notetune.config import parse
from notetune.plain.bundles import ColumnsBundle, ColumnsCard
from notetune.plain.columns import Columns, LevelColumn, NumberColumn
from notetune.plain.linear import Linear
from notetune.recipe.recipe import Recipe
from notetune.study.notices import (
    compat_switches,
    of_columns,
    of_models,
    of_scripts,
    of_stays,
    without_step_1,
)
from notetune.study.specs import BaselineSpec


def recipe_of(backbones, encoders=None):
    studies = {
        name: SimpleNamespace(backbone=folder, pretrain=SimpleNamespace(tokens_per_row=64))
        for name, folder in backbones.items()
    }
    return SimpleNamespace(studies=studies, encoders=SimpleNamespace(models=encoders or {}))


def test_documents_that_are_computed_alone_are_told_with_what_that_costs(tmp_path):
    hybrid = str(tmp_path / "hybrid")
    tiny_model("qwen3_5_text").save_pretrained(hybrid)
    rows = str(random_llama(tmp_path / "llama"))
    recipe = recipe_of({"hybrid": hybrid, "rows": rows})
    lengths_D = np.full(8, 32)
    (said,) = of_models(recipe, {"hybrid": lengths_D, "rows": lengths_D})
    assert said.startswith("hybrid: its documents would see each other in a row")
    assert said.endswith(
        "an epoch of step 1 is 8 passes through the model where rows would take 4."
    )
    (in_report,) = of_models(recipe)
    assert in_report.endswith("so each is computed alone.")


def test_a_switch_of_one_backbone_is_told_of_it():
    keys = {"prepare": {"source": {"kind": "table", "path": "a.csv", "columns": {"text": "t"}}}}
    balanced = {"backbone": "tiny", "downstream": {"class_weights": "balanced"}}
    several = {"name": "some", **keys, "backbones": {"a": "tiny", "b": balanced}}
    (switch,) = compat_switches(parse(Recipe, several, "test"))
    assert switch.startswith("b: class_weights: balanced")
    everywhere = {**several, "downstream": {"class_weights": "balanced"}}
    (switch,) = compat_switches(parse(Recipe, everywhere, "test"))
    assert switch.startswith("class_weights: balanced")


def test_where_nothing_stands_on_step_1_it_is_told_with_the_backbones_of_which_that_is():
    source = {"kind": "table", "path": "a.csv", "columns": {"text": "t"}}
    task = {"name": "died", "kind": "binary", "column": "died"}
    keys = {"name": "some", "prepare": {"source": {**source, "tasks": [task]}}}
    heads = {"downstream": {"variants": ["head-only"]}}
    (said,) = without_step_1(parse(Recipe, {**keys, **heads, "backbone": "tiny"}, "test"))
    assert said.startswith("No step 1: no variant stands on a domain adapter (pretrain.always=true")
    several = {**keys, "backbones": {"a": "tiny", "b": {"backbone": "tiny", **heads}}}
    (said,) = without_step_1(parse(Recipe, several, "test"))
    assert said.startswith("No step 1 with b: ")
    assert not list(without_step_1(parse(Recipe, {**keys, "backbone": "tiny"}, "test")))


def test_a_tokenizer_that_loses_capitals_is_told_and_a_folder_that_is_gone_is_not(tmp_path):
    folder = random_encoder(tmp_path / "cased")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"]["vocab"] |= {"Fever": 200, "Pain": 201}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    recipe = recipe_of({"gone": str(tmp_path / "gone")}, {"bert": str(folder)})
    (said,) = of_models(recipe)
    assert said.startswith("bert: the vocabulary has capital letters")
    assert "do_lower_case=False" in said


def test_a_column_without_a_level_that_enough_patients_share_is_told(tmp_path):
    columns = (
        NumberColumn(name="age", mean=60, scale=9),
        LevelColumn(name="ward", levels=("x",)),
        LevelColumn(name="weight", levels=()),
    )
    names = tuple(column.name for column in columns)
    card = ColumnsCard(task="died", kind="binary", classes=("died",), columns=names)
    linear = Linear(np.zeros((1, 5), np.float32), np.zeros(1, np.float32))
    with runs.new_folder(tmp_path / "cell", "test") as temporary:
        ColumnsBundle(card, Columns(columns=columns), linear).save(temporary)
    specs = [BaselineSpec("died", name, "labels", "texts", 10) for name in ("tf-idf", "columns")]
    jobs = [
        SimpleNamespace(stage="baseline", spec=spec, folder=tmp_path / "cell", task="died")
        for spec in specs
    ]
    done = SimpleNamespace(done_of=lambda stage: [job for job in jobs if job.stage == stage])
    (said,) = of_columns(done)
    assert said == (
        "died: column weight counts for nothing, or at most where it is empty: it is read as "
        "levels, and 10 training patients share none of them."
    )


@pytest.mark.parametrize("how", ["last", "none"])
def test_notes_of_scored_stays_that_have_no_label_are_told_where_scores_are_combined(how):
    known = {"note_id": ["a", "b", "c", "d"], "stay_id": ["s", "s", "s", "t"], "time": [1, 2, 3, 1]}
    task = SimpleNamespace(note_ids_N=np.array(["a", "d"]), rows=lambda split: np.array([0]))
    prepared = SimpleNamespace(tasks={"died": task}, stays=pl.DataFrame(known))
    evaluation, preparation = SimpleNamespace(combine=how), SimpleNamespace(join="none")
    recipe = SimpleNamespace(evaluate=evaluation, prepare=preparation)
    said = [*of_stays(SimpleNamespace(recipe=recipe, notes=SimpleNamespace(prepared=prepared)))]
    assert len(said) == (2 if how == "last" else 0)
    told = [told for told in said if told.startswith("died: 2 notes of the test stays have no lab")]
    assert len(told) == (how == "last")


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("患者男性, aspirin 100 mg。既往高血压病史", True),
        ("ผู้ป่วยมีไข้", True),
        ("Chest pain, 漢", False),
    ],
)
def test_notes_without_spaces_between_words_are_told(text, is_told):
    tasks = {"died": SimpleNamespace(note_ids_N=np.array(["n1"]))}
    said = [*of_scripts(SimpleNamespace(tasks=tasks, texts=lambda ids: [text for _ in ids]))]
    assert len(said) == is_told
    assert all("scripts without spaces between words" in one for one in said)
