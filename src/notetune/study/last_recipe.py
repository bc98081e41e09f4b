"""With which recipe and files a run folder was last worked on, and what is another one now."""

from collections.abc import Iterator
from typing import Any

from notetune import storage
from notetune.prepare import prepared
from notetune.recipe.recipe import Recipe
from notetune.study.wanted import encoder_digests, general_text, start_of, weights_of

RECIPE = "recipe.json"
_FILES = "files"
SECTIONS = frozenset({"name", "prepare", "pretrain", "downstream", "evaluate"})
_OF_A_MACHINE = (
    *("runs", "prepared", "data", "device", "gpu", "checkpoint_minutes", "keep_hidden_states"),
)
_CHOSEN_FOR_NOTES = (("prepare", "opener"), ("prepare", "max_tokens"), ("downstream", "max_pieces"))


def as_kept(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe, and the digests of what each of its backbones reads."""
    files = {backbone: _files(one) for backbone, one in recipe.studies.items()}
    return {**recipe.as_json(), _FILES: files}


def _files(recipe: Recipe) -> dict[str, Any]:
    """By the keys that name them."""
    read = {"prepare.source": recipe.preparation, "pretrain.corpus": recipe.corpus}
    encoders = {
        f"encoders.models.{name}": [*encoder_digests(folder, recipe.dtype)]
        for name, folder in recipe.encoders.models.items()
    }
    text = general_text(recipe)
    return {
        **{k: storage.fingerprint(prepared.inputs(v)["files"]) for k, v in read.items() if v},
        "backbone": weights_of(recipe.backbone, recipe.dtype).fingerprint,
        "pretrain.from": start_of(recipe.pretrain),
        "pretrain.general_text": storage.sha256_of_file(text) if text.is_file() else "no file",
        **encoders,
    }


def other_keys(recipe: Recipe) -> tuple[str, ...]:
    """Keys that were others when the run folder was last worked on; what else is there has none.

    What a machine and its notes decide aside.
    """
    mine, other = recipe.as_json(), _last(recipe)
    if not other:
        return ()
    for section, key in _CHOSEN_FOR_NOTES:
        if mine[section][key] == "auto" and isinstance(other[section], dict):
            other[section][key] = "auto"
    return tuple(_differing(_compared(mine), _compared(other)))


def other_files(recipe: Recipe) -> tuple[str, ...]:
    """The keys whose files were others then, behind the name of a backbone where it has one."""
    mine, other = as_kept(recipe)[_FILES], _last(recipe).get(_FILES)
    return tuple(key.strip(".") for key in _differing(mine, other)) if other else ()


def _last(recipe: Recipe) -> dict[str, Any]:
    path = recipe.folder.root / RECIPE
    found = storage.read_json(path) if path.exists() else None
    return found if isinstance(found, dict) and found.keys() >= SECTIONS else {}


def _compared(recipe: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in recipe.items() if key not in (*_OF_A_MACHINE, _FILES)}
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
