"""Recipes whose parts do not go together are refused by name."""

import pytest
from recipe_of_adapters import NF4, load, small_notes_and_recipe

from notetune.errors import ConfigError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_notes_and_recipe(tmp_path_factory.mktemp("adapters"))


@pytest.mark.parametrize(
    "change",
    [
        "pretrain.adapter={kind: full}",
        "pretrain.adapter={kind: lora, dora: true}",
        "pretrain.compare={all: {adapter: {kind: full}}}",
        "downstream.adapter={kind: lora, dora: true}",
    ],
)
def test_nf4_goes_with_adapters_on_frozen_weights_alone(place, change):
    load(place, "lora", *NF4)
    with pytest.raises(ConfigError, match=r"nf4 is for frozen weights.* set dtype bfloat16"):
        load(place, "lora", *NF4, change)


@pytest.mark.parametrize("key", ["sharded", "compiled"])
def test_layers_that_are_sharded_or_compiled_are_plain_and_keep_what_they_compute(place, key):
    for other, message in (("dtype=nf4", f"nf4 layers are not {key}"), ("recompute=true", key)):
        load(place, "lora", "name=n", "downstream.adapter={kind: lora}", other)
        with pytest.raises(ConfigError, match=message):
            load(place, "lora", "name=n", "downstream.adapter={kind: lora}", other,
                 f"pretrain.{key}=true")  # fmt: skip


def test_a_row_must_hold_the_longest_document_and_its_virtual_tokens(place):
    load(place, "prompt", "pretrain.tokens_per_row=60", "downstream.tokens_per_row=60")
    with pytest.raises(ConfigError, match=r"59 is below prepare\.max_tokens 40 \+ 20 virtual"):
        load(place, "prompt", "pretrain.tokens_per_row=59")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("downstream.variants", "head-only"),
        ("downstream.tasks", "died"),
        ("encoders.variants", "lora"),
        ("evaluate.baselines", "tf-idf"),
    ],
)
def test_a_name_that_is_given_twice_is_refused_before_anything_is_trained(place, key, name):
    load(place, "lora", f"{key}=[{name}]")
    with pytest.raises(ConfigError, match=f"{key}.*{name} is named 2 times; name each once"):
        load(place, "lora", f"{key}=[{name}, {name}]")


def test_a_prompt_that_starts_from_text_has_text(place):
    with pytest.raises(ConfigError, match="init: text needs a text"):
        load(place, "lora", "pretrain.adapter={kind: prompt, init: text, text: ' '}")


def test_two_trainings_of_all_weights_in_one_model_are_refused(place):
    load(place, "full", "downstream.adapter={kind: full}", "downstream.variants=[task-lora]")
    with pytest.raises(ConfigError, match=r"domain-frozen\+task-lora has .* cannot both be"):
        load(place, "full", "downstream.adapter={kind: full}")


def test_the_variant_full_domain_needs_full_fine_tuning(place):
    load(place, "full", "downstream.variants=[full-domain]")
    with pytest.raises(ConfigError, match=r"full-domain needs pretrain\.adapter of kind full, not"):
        load(place, "lora", "downstream.variants=[full-domain]")


def test_a_split_named_by_a_column_of_the_notes_needs_no_more(place):
    named = load(place, "lora", "prepare.split={kind: column, column: part}").preparation
    assert named.split.path == named.source.path
    assert named.split.patient_id == named.source.columns.patient_id
    elsewhere = load(
        place, "lora", "prepare.split={kind: column, path: parts.csv}"
    ).preparation.split
    assert elsewhere.path.name == "parts.csv"
    with pytest.raises(ConfigError, match=r"prepare\.split: give its path and patient_id"):
        load(
            place,
            "lora",
            "prepare.split={kind: column, path: parts.csv}",
            "prepare.source.columns={text: text}",
            "prepare.source.tasks=[]",
        )
