"""Every adapter method through both steps of a recipe, and what stands in the run folder then."""

import csv

import numpy as np
import pytest
from one_job import domain_job, find, run, train
from recipe_of_adapters import ADAPTERS, NF4, load, small_notes_and_recipe

from notetune.errors import BundleError
from notetune.metrics.scores import read_scores
from notetune.model.adapters.files import read_adapter
from notetune.model.cards import read_card
from notetune.serve.merge import merge
from notetune.serve.predictor import load_predictor
from notetune.study.costs import costs
from notetune.study.jobs import TRAINING
from notetune.train.training import read_record

VARIANTS = ("domain-frozen+task-lora", "domain-trainable")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_notes_and_recipe(tmp_path_factory.mktemp("adapters"))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_method_trains_in_step_1_and_carries_both_kinds_of_step_2(place, kind):
    variants = (*VARIANTS, "full-domain") if kind == "full" else VARIANTS
    recipe = load(place, kind, f"downstream.variants=[{', '.join(variants)}]")
    planned = {training.name: training for training in costs(recipe).trainings}
    run(recipe, find(recipe, "perplexity", method=kind))
    record = read_record(domain_job(recipe).folder / TRAINING)
    expected = planned[f"pretrain · {kind}"]
    assert record.steps == expected.steps
    assert record.trainable_parameters == expected.trainable_parameters
    assert read_adapter(recipe.folder.domain(0)).spec == recipe.pretrain.adapter
    for variant in variants:
        folder = train(recipe, "died", variant)
        record = read_record(folder / TRAINING)
        assert record.trainable_parameters == planned[f"died · {variant}"].trainable_parameters
        table = read_scores(folder / "test.parquet")
        texts = dict(zip(*notes_of(place), strict=True))
        chosen = [str(note) for note in table.note_ids_N[:3]]
        predictor = load_predictor(folder, str(place / "backbone"))
        again = predictor.predict([texts[note] for note in chosen]).scores_NK
        assert np.abs(again - table.scores_NK[:3]).max() < 1e-5


def test_an_nf4_backbone_carries_both_steps_and_predicts_the_same_again(place):
    pytest.importorskip("bitsandbytes", reason="nf4 needs notetune[4bit]")
    recipe = load(place, "lora", *NF4, f"downstream.variants=[{VARIANTS[0]}]")
    run(recipe, find(recipe, "perplexity", method="lora"))
    folder = train(recipe, "died", VARIANTS[0])
    assert read_card(folder).dtype == "nf4"
    table = read_scores(folder / "test.parquet")
    texts = dict(zip(*notes_of(place), strict=True))
    predictor = load_predictor(folder, str(place / "backbone"))
    again = predictor.predict([texts[str(note)] for note in table.note_ids_N]).scores_NK
    assert np.abs(again - table.scores_NK).max() < 1e-5
    assert len(again) > 3
    with pytest.raises(BundleError, match="stands on weights in nf4"):
        merge(folder, place / "merged-nf4", str(place / "backbone"))


def notes_of(place):
    with (place / "notes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["note"] for row in rows], [row["text"] for row in rows]
