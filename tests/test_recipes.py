"""Every shipped recipe is read by the code that runs it, and every key of it is a known one."""

from pathlib import Path

import pytest

from notetune import config
from notetune.recipe.models import VARIANTS
from notetune.recipe.recipe import Recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("src/notetune/cli/*.yaml")])


def test_the_shipped_recipes_are_found():
    assert {path.stem for path in RECIPES} >= {
        "demo",
        "eicu",
        "fhir",
        "mimic3",
        "mimic4",
        "mtsamples",
        "paper",
        "synthetic-mortality",
        "table2",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_named_after_its_file(path):
    recipe = config.load(Recipe, path)
    assert recipe.name == path.stem
    assert recipe.backbone == "tiny"
    assert set(recipe.downstream.variants) <= set(VARIANTS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_with_its_defaults_written_down_is_the_same(path):
    for one in config.load(Recipe, path).studies.values():
        again = config.parse(Recipe, one.as_json(), "again")
        assert repr(again) == repr(one)  # 1 and 1.0 are equal, but not to a fingerprint


def test_relative_sources_start_from_the_data_folder():
    recipe = config.load(Recipe, ROOT / "recipes/eicu.yaml", ["data=/somewhere"])
    assert recipe.preparation.source.folder == Path("/somewhere/eicu_demo")
    absolute = config.load(
        Recipe, ROOT / "recipes/mtsamples.yaml", ["prepare.source.path=/else/notes.csv"]
    )
    assert absolute.preparation.source.path == Path("/else/notes.csv")


def test_the_files_of_an_official_split_start_from_the_data_folder():
    split = "{kind: files, train: a.csv, validation: b.csv, test: /else/c.csv}"
    overrides = ["data=/somewhere", f"prepare.split={split}"]
    split = config.load(Recipe, ROOT / "recipes/mimic3.yaml", overrides).preparation.split
    assert [str(path) for path in (split.train, split.validation, split.test)] == [
        "/somewhere/a.csv",
        "/somewhere/b.csv",
        "/else/c.csv",
    ]


def test_a_row_that_cannot_hold_a_document_is_refused():
    with pytest.raises(Exception, match="a row must hold the longest document"):
        config.load(
            Recipe,
            ROOT / "recipes/eicu.yaml",
            ["prepare.max_tokens=256", "pretrain.tokens_per_row=100"],
        )
