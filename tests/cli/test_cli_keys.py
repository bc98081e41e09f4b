"""The list of a recipe's keys: whole, once each, with defaults that hold."""

import json
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import Field
from small_study import notetune

from notetune.cli.keys import Key, keys, within
from notetune.config import Config
from notetune.errors import ConfigError
from notetune.recipe.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


class Circle(Config):
    kind: Literal["circle"] = "circle"
    radius: float = 1.5
    """Half its width."""


class Square(Config):
    kind: Literal["square"]
    side: float


class Drawing(Config):
    main: Circle | Square = Circle()
    """What is
    in the middle."""
    others: dict[str, Circle | Square] = Field(default_factory=dict)
    circles: tuple[Circle, ...] = (Circle(radius=2),)
    colour: Literal["red", "blue"] | None = None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_a_dry_run_shows_is_that_recipe(path, tmp_path):
    shown = notetune("study", "run", path, "--dry-run", "--show", "recipe", "seeds=2")
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    again = notetune("study", "run", tmp_path / "shown.yaml", "--dry-run", "--show", "recipe")
    assert again.stdout == shown.stdout
    assert yaml.safe_load(shown.stdout)["seeds"] == 2


def test_keys_have_their_kind_default_and_meaning():
    kinds = "Its kind is one of circle, square."
    assert keys(Drawing) == [
        Key("main", "", "{kind: circle}", f"What is in the middle. {kinds}"),
        Key("main.radius", "circle", "1.5", "Half its width."),
        Key("main.side", "square", "required", ""),
        Key("others", "", "{}", f"{kinds} As main."),
        Key("circles", "", "[{kind: circle, radius: 2.0}]", "Its kind is one of circle."),
        Key("circles[].radius", "circle", "1.5", "Half its width."),
        Key("colour", "", "-", "One of red, blue."),
    ]  # fmt: skip


def test_each_key_of_a_kind_is_listed_once():
    found = [(key.name, key.kind) for key in keys(Recipe)]
    assert len(set(found)) == len(found) > 100


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_keys_of_the_shipped_recipes_are_listed(path):
    known = {key.name for key in keys(Recipe)}
    recipe = yaml.safe_load(path.read_text())
    used = {f"{section}.{key}" for section in ("pretrain", "downstream", "evaluate")
            for key in recipe.get(section, {})}  # fmt: skip
    assert used | recipe.keys() <= known


def test_a_list_is_asked_for_without_brackets():
    known = keys(Drawing)
    names = ["circles", "circles[].radius"]
    assert [key.name for key in within(known, "circles")] == names
    assert [key.name for key in within(known, "circles.radius")] == names[1:]
    assert within(known, "circles[].radius") == within(known, "circles.radius")
    assert within(known, "") == known


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [
        ("split", "Perhaps prepare.split, "),
        ("tasks.codes", "Perhaps prepare.source.tasks.codes."),
        ("table", "Perhaps prepare.source."),
        ("downstream.head", "downstream.head_lr"),
        ("zzzzzz", "lists them all."),
    ],
)
def test_a_word_that_is_no_key_leads_to_those_it_may_mean(asked, suggested):
    with pytest.raises(ConfigError) as error:
        within(keys(Recipe), asked)
    assert suggested in str(error.value)
    assert ("Perhaps" in str(error.value)) == (asked != "zzzzzz")


def test_the_command_shows_a_section_or_names_the_fault():
    done = notetune("keys", "downstream.head_lr", "--json")
    assert [key["default"] for key in json.loads(done.stdout)] == ["auto"]
    assert "Peak learning rate of the head" in notetune("keys", "downstream").stdout
    done = notetune("keys", "downstream.head")
    assert done.returncode == 2
    assert "no key downstream.head in a recipe" in done.stderr
