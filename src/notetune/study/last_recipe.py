"""With which recipe a run folder was last worked on, and what is another one now."""

from collections.abc import Iterator
from typing import Any

from notetune import storage
from notetune.recipe.recipe import Recipe

RECIPE = "recipe.json"
SECTIONS = frozenset({"name", "prepare", "pretrain", "downstream", "evaluate"})
_OF_A_MACHINE = (
    *("runs", "prepared", "data", "device", "gpu", "checkpoint_minutes", "keep_hidden_states"),
)
_CHOSEN_FOR_NOTES = (("prepare", "opener"), ("prepare", "max_tokens"), ("downstream", "max_pieces"))


def other_keys(recipe: Recipe) -> tuple[str, ...]:
    """Keys that were others when the run folder was last worked on; what else is there has none.

    What a machine and its notes decide aside.
    """
    path = recipe.folder.root / RECIPE
    other = storage.read_json(path) if path.exists() else None
    if not isinstance(other, dict) or not other.keys() >= SECTIONS:
        return ()
    mine = recipe.as_json()
    for section, key in _CHOSEN_FOR_NOTES:
        if mine[section][key] == "auto" and isinstance(other[section], dict):
            other[section][key] = "auto"
    both = (_compared(mine), _compared(other))
    return tuple(_differing(*both))


def _compared(recipe: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in recipe.items() if key not in _OF_A_MACHINE}
    # What a backbone has in a study of several is not what it has by itself (`--only`).
    for section, key in (("pretrain", "always"), ("evaluate", "baselines")):
        if isinstance(keys := kept[section], dict):
            kept[section] = {name: value for name, value in keys.items() if name != key}
    return kept


def _differing(one: Any, other: Any, key: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            below = one.get(name), other.get(name)
            yield from _differing(*below, f"{key}.{name}" if key else name)
    elif one != other:
        yield key
