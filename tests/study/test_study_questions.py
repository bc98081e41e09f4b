"""Which comparisons a recipe declares, by default or by name, before anything is trained."""

from dataclasses import replace
from typing import get_args

import pytest

from notetune.config import parse
from notetune.errors import ConfigError
from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.questions import Pair
from notetune.metrics.uncertainty import ModelRuns
from notetune.recipe.models import VARIANTS, VariantName
from notetune.recipe.recipe import Recipe
from notetune.study.questions import fingerprint, questions

SOURCE = {
    "kind": "table",
    "path": "notes.csv",
    "columns": {"text": "text", "patient_id": "patient"},
    "tasks": [{"name": "died", "kind": "binary", "column": "died"}],
}


def recipe(variants, baselines=("prevalence", "tf-idf"), primary=None, hybrid=None, **keys):
    evaluate = {"baselines": list(baselines), "primary": primary, "hybrid": hybrid}
    downstream = {"variants": list(variants)}
    study = {"name": "asked", "prepare": {"source": SOURCE}, "downstream": downstream}
    return parse(Recipe, {**study, "evaluate": evaluate, **keys}, "test")


def primary(*args, **kwargs):
    return [(p.model, p.against, p.about) for p in questions(recipe(*args, **kwargs)).primary]


ALL = [
    "head-only",
    "task-lora",
    "domain-frozen",
    "domain-frozen+task-lora",
    "domain-trainable",
    "domain-trainable+task-lora",
]
AGAINST_TFIDF = (BEST_VALIDATED, "tf-idf", "best validated")


def test_every_variant_has_a_row_of_its_own():
    assert set(VARIANTS) == set(get_args(VariantName))
    assert len(set(VARIANTS.values())) == len(VARIANTS) > 5


def test_by_default_each_step_is_asked_about_once_and_the_best_one_against_tf_idf():
    assert primary(ALL) == [
        ("domain-frozen", "head-only", "domain adapter"),
        ("domain-frozen+task-lora", "domain-frozen", "task adapter"),
        AGAINST_TFIDF,
    ]
    assert primary(["task-lora", "domain-frozen+task-lora"]) == [
        ("domain-frozen+task-lora", "task-lora", "domain adapter"),
        AGAINST_TFIDF,
    ]
    assert primary(["head-only", "task-lora"]) == [
        ("task-lora", "head-only", "task adapter"),
        AGAINST_TFIDF,
    ]
    assert primary(["domain-trainable", "task-lora"], baselines=()) == [
        ("domain-trainable", "task-lora", "domain adapter")
    ]
    assert primary(["head-only"], hybrid="auto") == [AGAINST_TFIDF, ("hybrid", "tf-idf", "hybrid")]


def test_of_several_backbones_the_first_that_has_a_pair_is_asked_about():
    backbones = {
        "small": {"backbone": "tiny", "downstream": {"variants": ["head-only"]}},
        "large": "tiny",
        "other": "tiny",
    }
    found = primary(["head-only", "domain-frozen"], backbones=backbones)
    asked = [("large/domain-frozen", "large/head-only", "domain adapter"), AGAINST_TFIDF]
    assert found == asked
    found = primary(["head-only", "domain-frozen"], backbones=backbones, hybrid="auto")
    assert found == [*asked, ("small/hybrid", "tf-idf", "hybrid")]


def test_what_lacks_a_step_has_the_same_weights():
    backbones = {
        "small": {"backbone": "tiny", "downstream": {"variants": ["head-only"]}},
        "half": {"backbone": "tiny", "dtype": "bfloat16"},
    }
    assert primary(["domain-frozen"], backbones=backbones) == [AGAINST_TFIDF]
    declared = {"model": "half/domain-frozen", "against": "small/head-only"}
    found = primary(["domain-frozen"], backbones=backbones, primary=[declared])
    assert found == [("half/domain-frozen", "small/head-only", "")]
    for other in ({"class_weights": "balanced"}, {"features": {"layers": [0]}}):
        backbones["half"] = {"backbone": "tiny", "downstream": other}
        assert primary(["domain-frozen"], backbones=backbones) == [AGAINST_TFIDF]
    backbones["half"] = {"backbone": "tiny", "pretrain": {"tokens_per_row": 256}}  # shorter notes
    assert primary(["domain-frozen"], backbones=backbones) == [AGAINST_TFIDF]
    both = {"a": {"backbone": "tiny", "downstream": {"variants": ["domain-frozen"]}}}
    both["b"] = {"backbone": "tiny", "pretrain": {"adapter": {"kind": "prompt"}}}
    assert primary(["domain-frozen+task-lora"], backbones=both) == [AGAINST_TFIDF]


def test_everything_else_is_exploratory():
    found = questions(recipe(ALL))
    pairs = [(pair.model, pair.against) for pair in found.exploratory]
    assert len(set(pairs)) == len(pairs) == 5 + 2 + len(ALL)
    assert ("domain-trainable", "task-lora") in pairs  # its adapter trains on the task too
    assert ("domain-trainable+task-lora", "domain-trainable") in pairs
    assert all((name, "tf-idf") in pairs for name in ALL)
    several = recipe(["head-only"], backbones={"a": "tiny", "b": "tiny"})
    assert Pair("b/head-only", "a/head-only") in questions(several).exploratory
    words = {"hybrid": "b/head-only", "backbones": {"a": "tiny", "b": "tiny"}}
    joined = questions(recipe(["head-only"], baselines=("tf-idf", "tf-idf-cut"), **words))
    assert Pair("b/hybrid", "tf-idf", about="hybrid") in joined.primary
    assert Pair("b/hybrid", "b/head-only") in joined.exploratory
    assert not [pair for pair in joined.exploratory if "a/hybrid" in (pair.model, pair.against)]


def test_models_are_asked_against_the_tf_idf_of_most_words_and_the_other_is_exploratory():
    found = questions(recipe(["head-only"], ("tf-idf", "tf-idf-all"), hybrid="auto"))
    assert [(pair.model, pair.against, pair.about) for pair in found.primary] == [
        (BEST_VALIDATED, "tf-idf-all", "best validated"),
        ("hybrid", "tf-idf-all", "hybrid"),
    ]
    asked = {(pair.model, pair.against) for pair in found.exploratory}
    assert {("hybrid", "tf-idf"), ("head-only", "tf-idf"), ("tf-idf", "tf-idf-all")} <= asked
    assert ("tf-idf-all", "tf-idf") not in asked


def test_what_runs_are_follows_from_what_trains():
    about = {one.model: one for one in questions(recipe(ALL)).runs}
    assert about["prevalence"] == ModelRuns("prevalence", None, True, is_candidate=False)
    assert about["tf-idf"] == ModelRuns("tf-idf", None, True, is_candidate=False)
    assert about["head-only"] == ModelRuns("head-only", None, True)
    assert about["task-lora"] == ModelRuns("task-lora", "task-lora")
    on_it = questions(recipe(["task-lora"], hybrid="auto")).runs
    assert ModelRuns("hybrid", "task-lora", is_candidate=False) in on_it
    on_step_1 = [one for one in about.values() if one.shares == "step 1 of the backbone"]
    assert [one.model for one in on_step_1] == [name for name in ALL if name.startswith("domain")]
    every = recipe(["domain-frozen"], ("tf-idf", "tf-idf-cut"), hybrid="auto")
    about = {one.model: one for one in questions(every).runs}
    assert about["hybrid"] == ModelRuns("hybrid", "step 1 of the backbone", is_candidate=False)
    assert about["tf-idf-cut"] == ModelRuns("tf-idf-cut", None, True, is_candidate=False)
    fixed = questions(recipe(["head-only"], hybrid="auto")).runs
    assert ModelRuns("hybrid", None, True, is_candidate=False) in fixed
    several = recipe(["domain-frozen"], backbones={"a": "tiny", "b": "tiny"})
    shares = [one.shares for one in questions(several).runs if one.shares]
    assert shares == ["step 1 of a", "step 1 of b"]


def declared(*pairs):
    keys = ("model", "against", "task")
    return {"primary": [dict(zip(keys, pair, strict=False)) for pair in pairs]}


def test_a_recipe_declares_its_own_family():
    asked = questions(
        recipe(ALL, **declared(("task-lora", "tf-idf"), (BEST_VALIDATED, "head-only", "died")))
    )
    assert asked.primary == (
        Pair("task-lora", "tf-idf"),
        Pair(BEST_VALIDATED, "head-only", "died"),  # answers nothing about TF-IDF
    )
    assert questions(recipe(ALL, **declared())).primary == ()
    families = [questions(recipe(ALL)), asked, replace(asked, primary=asked.primary[:1])]
    families += [replace(asked, tasks=("died",))]
    assert len({fingerprint(family) for family in families}) == 4


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("bert", "tf-idf"), "evaluate.primary.0 names the model bert, which this study does not"),
        (("task-lora", "tfidf"), "names the model tfidf"),
        (("task-lora", BEST_VALIDATED), "names the model best-validated"),
        (("task-lora", "task-lora"), "evaluate.primary.0 asks nothing new"),
        (("task-lora", "tf-idf", "dead"), "names the task dead; the tasks are died"),
    ],
)
def test_what_is_not_there_cannot_be_asked_about(pair, message):
    with pytest.raises(ConfigError) as raised:
        recipe(ALL, **declared(pair))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_backbone_may_be_asked_about_by_its_name_in_the_study():
    pair = declared(("b/task-lora", "a/head-only"))
    several = recipe(["head-only", "task-lora"], backbones={"a": "tiny", "b": "tiny"}, **pair)
    assert list(several.studies) == ["a", "b"]
    assert [p.model for p in questions(several).primary] == ["b/task-lora"]
