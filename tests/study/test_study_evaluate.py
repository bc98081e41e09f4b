"""Looks at a report are counted on if they are ours."""

import json

import pytest
from small_study import small_study

from notetune import config, storage
from notetune.errors import ConfigError, RunError
from notetune.metrics.questions import Pair, Questions
from notetune.recipe.recipe import Recipe
from notetune.study import evaluate
from notetune.study.evaluate import refuse_foreign_looks, refuse_unready


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("small"))


LOOKS = {"0123456789abcdef": 3}


@pytest.mark.parametrize(
    "text",
    [
        '{"views": 3}',
        json.dumps(LOOKS),  # not as we write it
        *(storage.json_text({**LOOKS, **other}) for other in [{"views": 3}, {"f" * 16: "three"}]),
        *(storage.json_text({"f" * 16: count}) for count in [0, True, 1.5, None]),
        "[]",
        "{}\n",
        '{"f": NaN}',
    ],
)
def test_only_counted_looks_of_ours_are_counted_on(text, place, tmp_path):
    recipe = config.load(Recipe, place / "recipe.yaml", [f"runs={tmp_path}", "name=mine"])
    path = tmp_path / "mine" / "looks.json"
    storage.write_json(path, LOOKS)
    assert refuse_foreign_looks(recipe) == path
    path.write_text(text)
    with pytest.raises(RunError, match=r"looks\.json exists already"):
        refuse_foreign_looks(recipe)
    assert path.read_text() == text


def test_looks_at_one_backbone_alone_count(place, tmp_path):
    keys = [f"runs={tmp_path}", "name=mine", "backbones={a: tiny, b: tiny}"]
    whole = json.loads(storage.json_text(config.load(Recipe, place / "recipe.yaml").as_json()))
    del whole["backbone"]
    (tmp_path / "recipe.yaml").write_text(storage.json_text(whole))
    recipe = config.load(Recipe, tmp_path / "recipe.yaml", keys)
    storage.write_json(tmp_path / "mine/backbones/a/looks.json", LOOKS)
    for count in (1, 2):
        said = evaluate._looks(recipe, Questions((Pair("a", "b"),), tasks=("died",)))
        total = f"{LOOKS['0123456789abcdef'] + count}, of these {count} with"
        assert said["looks at the test scores"].startswith(total)
    (tmp_path / "mine/backbones/a/looks.json").write_text("[3]")
    with pytest.raises(RunError, match=r"looks\.json exists already"):
        evaluate._looks(recipe, Questions(()))


def test_a_study_that_scores_nothing_is_refused_before_anything_is_trained(place, tmp_path):
    nothing = ["downstream.variants=[]", "evaluate.baselines=[]", f"runs={tmp_path}"]
    with pytest.raises(ConfigError, match="the recipe scores no model; name one in downstream"):
        refuse_unready(config.load(Recipe, place / "recipe.yaml", nothing))
