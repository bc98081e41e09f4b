"""Every adapter method through both steps of a recipe, and what stands in the run folder then."""

import csv

import numpy as np
import pytest
from builders import random_llama
from one_job import domain_job, find, run, train
from small_study import write_word_notes

from notetune import config
from notetune.errors import ConfigError
from notetune.metrics.scores import read_scores
from notetune.model.adapters.files import read_adapter
from notetune.model.bundle import read_card
from notetune.serve.predictor import load_predictor
from notetune.study.costs import costs
from notetune.study.jobs import TRAINING
from notetune.study.recipe import Recipe
from notetune.train.training import read_record

RECIPE = """
name: NAME
runs: {place}/runs
backbone: {place}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {place}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 40
pretrain:
  perplexity_documents: 20
  tokens_per_row: 64
  optim: {{targets_per_step: 512, peak_lr: 5e-3}}
downstream:
  tokens_per_row: 64
  epochs: 1
  adapter: {{kind: lora, rank: 2, dora: true}}
evaluate: {{draws: 100, baselines: [prevalence]}}
"""
ADAPTERS = {
    "lora": "{kind: lora, rank: 2, rslora: true}",
    "prefix": "{kind: prefix, virtual_tokens: 4, projection: true, hidden: 8}",
    "prompt": "{kind: prompt, virtual_tokens: 20, init: text}",
    "p-tuning": "{kind: p-tuning, virtual_tokens: 4, reparameterisation: lstm, hidden: 8}",
    "adaptation-prompt": "{kind: adaptation-prompt, length: 3, layers: 1}",
    "full": "{kind: full}",
}
VARIANTS = ("domain-frozen+task-lora", "domain-trainable")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    random_llama(folder / "backbone")
    write_word_notes(folder / "notes.csv", 40, most_words=8)
    (folder / "recipe.yaml").write_text(RECIPE.format(place=folder))
    return folder


def load(place, kind, *overrides):
    settings = [f"name={kind}", f"pretrain.adapter={ADAPTERS[kind]}", *overrides]
    return config.load(Recipe, place / "recipe.yaml", settings)


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


FLOAT8 = ("name=float8", "dtype=float8", "downstream.adapter={kind: lora, rank: 2}")


def test_a_float8_backbone_carries_both_steps_and_predicts_the_same_again(place):
    recipe = load(place, "lora", *FLOAT8, f"downstream.variants=[{VARIANTS[0]}]")
    run(recipe, find(recipe, "perplexity", method="lora"))
    folder = train(recipe, "died", VARIANTS[0])
    assert read_card(folder).dtype == "float8"
    table = read_scores(folder / "test.parquet")
    texts = dict(zip(*notes_of(place), strict=True))
    predictor = load_predictor(folder, str(place / "backbone"))
    again = predictor.predict([texts[str(note)] for note in table.note_ids_N]).scores_NK
    assert np.abs(again - table.scores_NK).max() < 1e-2
    assert len(again) > 3


@pytest.mark.parametrize(
    "change",
    [
        "pretrain.adapter={kind: full}",
        "pretrain.adapter={kind: lora, dora: true}",
        "pretrain.compare={all: {adapter: {kind: full}}}",
        "downstream.adapter={kind: lora, dora: true}",
    ],
)
def test_float8_goes_with_adapters_on_frozen_weights_alone(place, change):
    load(place, "lora", *FLOAT8)
    with pytest.raises(ConfigError, match=r"float8 is for frozen weights.* set dtype bfloat16"):
        load(place, "lora", *FLOAT8, change)


def notes_of(place):
    with (place / "notes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["note"] for row in rows], [row["text"] for row in rows]


def test_a_row_must_hold_the_longest_document_and_its_virtual_tokens(place):
    load(place, "prompt", "pretrain.tokens_per_row=60", "downstream.tokens_per_row=60")
    with pytest.raises(ConfigError, match=r"59 is below prepare\.max_tokens 40 \+ 20 virtual"):
        load(place, "prompt", "pretrain.tokens_per_row=59")


def test_two_trainings_of_all_weights_in_one_model_are_refused(place):
    load(place, "full", "downstream.adapter={kind: full}", "downstream.variants=[task-lora]")
    with pytest.raises(ConfigError, match=r"domain-frozen\+task-lora has .* cannot both be"):
        load(place, "full", "downstream.adapter={kind: full}")


def test_the_variant_full_domain_needs_full_fine_tuning(place):
    load(place, "full", "downstream.variants=[full-domain]")
    with pytest.raises(ConfigError, match=r"full-domain needs pretrain\.adapter of kind full, not"):
        load(place, "lora", "downstream.variants=[full-domain]")
