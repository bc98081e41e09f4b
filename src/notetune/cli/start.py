"""First recipes: drafted for a table of notes, or those that come with notetune."""

import itertools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from notetune import storage
from notetune.aliases import TaskKind
from notetune.errors import ConfigError
from notetune.ownership import refuse_existing

if TYPE_CHECKING:
    from notetune.recipe.draft import Choices, Draft
    from notetune.recipe.draft_codes import Codes
    from notetune.sources.tables.survey import Survey


def choices(roles: dict[str, Any], outcomes: Sequence[str], features: Sequence[str]) -> "Choices":
    """What the options of `notetune init` say of the columns; `roles` by the names in `Choices`.

    Raises:
        ConfigError: If an outcome is named twice or of a kind that there is not.
    """
    from notetune.recipe.draft import Choices

    kinds: dict[str, TaskKind | None] = {}
    for column, kind in map(_outcome, outcomes):
        if column in kinds:
            raise ConfigError(f"--outcome {column} is given twice; name each outcome once.")
        kinds[column] = kind
    return Choices(outcomes=kinds, features=tuple(features), **roles)


def _outcome(given: str) -> "tuple[str, TaskKind | None]":
    column, _, kind = given.rpartition("=")
    if not column:
        return given, None
    if kind not in get_args(TaskKind):
        known = ", ".join(get_args(TaskKind))
        raise ConfigError(f"--outcome {column}={kind}: the kinds are {known}.")
    return column, kind  # type: ignore[return-value]


def codes_beside(
    path: Path | None, id_column: str | None, code_column: str | None, version: str | None
) -> "Codes | None":
    """The table of codes that the options of `notetune init` name, looked at.

    Raises:
        ConfigError: If an option speaks of a table that is not named.
        DataError: If the table is missing or faulty.
    """
    from notetune.recipe.draft_codes import Codes
    from notetune.sources.tables.survey import survey

    said = id_column, code_column, version
    if path is None:
        if any(said):
            raise ConfigError("--codes-id, --code-column and --codes-version go with --codes FILE.")
        return None
    return Codes(path.resolve(), survey(path), *said)  # whatever `data` is


def write_draft(
    notes: Path, columns: "Choices", backbone: str, output: Path | None, codes: "Codes | None"
) -> "tuple[Survey, Draft, Path]":
    """Draft a recipe for a table and write it.

    Returns:
        What was seen, what was drafted, and where it stands.

    Raises:
        ConfigError: As `draft`; or if the notes are FHIR resources, which have a recipe already.
        DataError: If the table is missing or faulty.
        RunError: If something stands where the recipe is to be.
    """
    from notetune.config import as_name
    from notetune.recipe.draft import draft
    from notetune.sources.tables.resources import resource_files
    from notetune.sources.tables.survey import survey

    if resource_files(notes):
        raise ConfigError(
            f"{notes} holds FHIR resources, for which there is a recipe: notetune recipes fhir -o "
            "fhir.yaml; write this path into it."
        )

    name = as_name(notes.name.split(".")[0], "notes")
    path = output or Path(f"{name}.yaml")
    refuse_existing(path)
    seen = survey(notes)
    drafted = draft(notes.resolve(), seen, columns, name, backbone, codes)  # whatever `data` is
    assert drafted.recipe
    storage.write_text(path, drafted.text, replaces=False)
    return seen, drafted, path


def shipped() -> dict[str, str]:
    """Name and first paragraph of each recipe that comes with notetune."""
    found = {}
    for path in sorted(_folder().glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").split("\n")
        first = itertools.takewhile(lambda line: line.startswith("# "), lines)
        found[path.stem] = " ".join(line.removeprefix("# ") for line in first)
    return found


def read_shipped(name: str) -> str:
    """The text of one of them, with the folders of backbones that come with it by their place.

    Raises:
        ConfigError: If there is none of that name.
    """
    known = shipped()
    if name not in known:
        raise ConfigError(f"there is no recipe {name}; there are {', '.join(known)}.")
    text = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text.replace("recipes/backbones/", f"{_folder() / 'backbones'}/")


def _folder() -> Path:
    """Inside an installed package; beside `src` where the package runs from its tree."""
    inside = Path(str(files("notetune"))) / "recipes"
    return inside if inside.is_dir() else inside.parents[2] / "recipes"
