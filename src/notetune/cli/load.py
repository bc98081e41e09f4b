"""What the commands name becomes a recipe."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from notetune.cli import terminal
from notetune.errors import ConfigError, RunWarning

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe


def study(
    recipe: Path, overrides: list[str] | None, data: Path | None, only: str | None
) -> "Recipe":
    """A recipe with its keys changed, or that of one of its backbones.

    Raises:
        ConfigError: If it is no recipe, or has no such backbone.
    """
    named = [f"data={json.dumps(str(data), ensure_ascii=False)}"] if data else []
    changed = [*named, *(overrides or [])]
    with terminal.busy("reading the recipe"):
        from notetune import config
        from notetune.recipe.recipe import Recipe

        loaded = config.load(Recipe, recipe, changed)
    if only is not None and only not in loaded.backbones:
        known = ", ".join(loaded.backbones) or "none"
        raise ConfigError(f"--only {only}: the recipe's backbones are {known}.")
    for name in loaded.backbones if only is None else [only]:
        _warn_of_own_keys(name, loaded.backbones[name], overrides or [])
    return loaded if only is None else loaded.only(only)


def _warn_of_own_keys(name: str, entry: object, overrides: list[str]) -> None:
    """Warn of changed keys that the entry of a backbone has itself, so that the change is none."""
    for key in (override.partition("=")[0] for override in overrides):
        found = entry
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else found
        if found is not entry and found is not None and not isinstance(found, dict):
            told = f"{key} changes nothing for {name}, whose entry of backbones has its own"
            warnings.warn(RunWarning(f"{told}; change backbones.{name}.{key}."), stacklevel=2)


def one(recipe: Path, overrides: list[str] | None, data: Path | None, only: str | None) -> "Recipe":
    """As `study`, where one backbone must be left."""
    loaded = study(recipe, overrides, data, only)
    if loaded.backbones:
        raise ConfigError(
            f"{recipe} names {len(loaded.backbones)} backbones; say which one with "
            f"--only {next(iter(loaded.backbones))}, or take them all with `notetune study run`."
        )
    return loaded


def worker_command(
    recipe: Path, overrides: list[str] | None, data: Path | None, only: str | None
) -> list[str]:
    """The arguments of `notetune` that make a worker of the same study."""
    options = {"--data": data, "--only": only}
    given = [text for name, value in options.items() if value for text in (name, str(value))]
    return ["study", "work", str(recipe), *(overrides or []), *given]
