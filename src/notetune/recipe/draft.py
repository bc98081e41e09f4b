"""A first recipe for a table of notes: what its columns seem to be, unless one says so."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from notetune.aliases import TaskKind
from notetune.config import parse
from notetune.errors import ConfigError
from notetune.notes.outcomes import SPLITS
from notetune.recipe.recipe import Recipe
from notetune.sources.splits import ColumnSplit
from notetune.sources.tables.survey import MOST_LEVELS, Column, Survey

_NAMES: Final = {
    "patient_id": r"(patient|subject|person|pat|mrn)([_ -]?(id|nr|no|number|key))?",
    "note_id": r"(note|report|document|doc|case|row)?[_ -]?(id|nr|no|number)",
    "time": r".*(date|time).*",
}
_OUTCOMES: Final = (
    "died death dead mortality expire readmi outcome label target diagnos procedure icd codes"
)
_POSITIVE: Final = ("1", "true", "yes", "y", "t", "positive", "pos", "died", "dead")
_LEAST_CHARS: Final = 40
_SEEDS: Final = 3
# As few as tell whether adapting to the notes helped, and whether adapting to the task did.
_VARIANTS: Final = ("head-only", "domain-frozen", "domain-frozen+task-lora")


@dataclass(frozen=True)
class Choices:
    """What a user says of the columns; the rest is guessed.

    Attributes:
        text: Column of the text.
        patient_id: Column of the patient id.
        note_id: Column of the note id.
        time: Column of the time.
        outcomes: Columns to predict, each with its kind or None.
        features: Columns beside the text.
    """

    text: str | None = None
    patient_id: str | None = None
    note_id: str | None = None
    time: str | None = None
    outcomes: Mapping[str, TaskKind | None] = field(default_factory=dict)
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A recipe that runs, and what each column became.

    Attributes:
        keys: The recipe.
        uses: Column to what it is used as.
        remarks: What a user should check, a sentence each.
    """

    keys: dict[str, Any]
    uses: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe, validated."""
        return parse(Recipe, self.keys, "the recipe drafted")

    @property
    def text(self) -> str:
        """The recipe as YAML, with the remarks in front."""
        lines = [f"# {remark}" for remark in self.remarks]
        written = yaml.safe_dump(self.keys, sort_keys=False, allow_unicode=True)
        return "\n".join([*lines, written])


def draft(path: Path, seen: Survey, choices: Choices, name: str, backbone: str) -> Draft:
    """A recipe for a table.

    Args:
        path: The table.
        seen: What its columns hold.
        choices: What the user says of them.
        name: Of the study.
        backbone: Its folder, or `tiny`.

    Raises:
        ConfigError: If a column is not there, or no text or outcome can be told.
    """
    remarks: list[str] = []
    columns = _columns(seen, choices, remarks)
    tasks = _tasks(seen, choices, {*columns.values(), *choices.features}, remarks)
    source: dict[str, Any] = {"kind": "table", "path": str(path), "columns": columns}
    if choices.features:
        source["features"] = [_column(seen, feature).name for feature in choices.features]
    source["tasks"] = tasks
    prepare: dict[str, Any] = {"source": source}
    split = _split(seen) if {"patient_id", "note_id"} & columns.keys() else None
    if split:
        prepare["split"] = {"kind": "column", "column": split.name}
    keys = {
        "name": name,
        "backbone": backbone,
        "seeds": _SEEDS,
        "prepare": prepare,
        "pretrain": {"leaked_texts": "drop"},
        "downstream": {"variants": list(_VARIANTS)},
    }
    uses = {column: role.replace("_", " ") for role, column in columns.items()}
    uses |= {split.name: "split"} if split else {}
    uses |= dict.fromkeys(source.get("features", ()), "feature")
    uses |= {task["column"]: f"outcome, {task['kind']}" for task in tasks}
    return Draft(keys, uses, tuple(remarks))


def _columns(seen: Survey, choices: Choices, remarks: list[str]) -> dict[str, str]:
    """The column of each role that there is one for."""
    columns = {"text": _text(seen, choices.text).name}
    for role, pattern in _NAMES.items():
        column = _of_role(seen, role, pattern, getattr(choices, role))
        if column and column.name not in columns.values():
            columns[role] = column.name
    if "patient_id" not in columns:
        remarks.append("No column names the patient, so each note counts as its own patient's.")
    return columns


def _tasks(
    seen: Survey, choices: Choices, taken: set[str], remarks: list[str]
) -> list[dict[str, Any]]:
    outcomes = _outcomes(seen, choices, taken)
    tasks = [_task(column, kind, remarks) for column, kind in outcomes]
    taken |= {column.name for column, _ in outcomes}
    if others := [column.name for column in seen.columns if _could_be(column, taken)]:
        remarks.append(f"--outcome would predict these too: {', '.join(others)}.")
    return tasks


def _split(seen: Survey) -> Column | None:
    """The column that says which notes are for training and which for the test, if one does."""
    known = ColumnSplit(kind="column")
    for column in seen.columns:
        words = {level.lower() for level in column.levels or ()}
        parts = [words & set(getattr(known, name)) for name in SPLITS]
        train, _, test = parts
        if train and test and words == set().union(*parts):
            return column
    return None


def _column(seen: Survey, name: str) -> Column:
    known = {one.name: one for one in seen.columns}
    if name not in known:
        lowered = {one.lower(): one for one in known}
        near = difflib.get_close_matches(name.lower(), lowered, n=1)
        hint = f" Did you mean {lowered[near[0]]}?" if near else ""
        raise ConfigError(f"there is no column {name}; the columns are {', '.join(known)}.{hint}")
    return known[name]


def _text(seen: Survey, given: str | None) -> Column:
    if given is not None:
        return _column(seen, given)
    texts = [column for column in seen.columns if column.holds == "text"]
    longest = max(texts, key=lambda column: column.mean_chars, default=None)
    if longest is None or longest.mean_chars < _LEAST_CHARS:
        raise ConfigError("no column seems to hold notes; name it with --text COLUMN.")
    return longest


def _of_role(seen: Survey, role: str, pattern: str, given: str | None) -> Column | None:
    if given is not None:
        return _column(seen, given)
    fitting = [c for c in seen.columns if c.filled and re.fullmatch(pattern, c.name, re.IGNORECASE)]
    if role == "note_id":
        fitting = [column for column in fitting if column.is_unique and column.filled == seen.rows]
    if role == "time":
        fitting = [column for column in fitting if column.times == column.filled]
    return fitting[0] if fitting else None


def _outcomes(
    seen: Survey, choices: Choices, taken: set[str]
) -> Sequence[tuple[Column, TaskKind | None]]:
    if choices.outcomes:
        return [(_column(seen, name), kind) for name, kind in choices.outcomes.items()]
    free = [column for column in seen.columns if _could_be(column, taken)]
    words = _OUTCOMES.split()
    guessed = [column for column in free if any(word in column.name.lower() for word in words)]
    if not guessed:
        could = f" It could be {', '.join(column.name for column in free)}." if free else ""
        raise ConfigError(
            f"no column seems to be an outcome; name it with --outcome COLUMN.{could}"
        )
    return [(column, None) for column in guessed]


def _could_be(column: Column, taken: set[str]) -> bool:
    return column.name not in taken and _kind(column) is not None


def _kind(column: Column) -> TaskKind | None:
    """What an outcome in this column would be; None if it can be none."""
    if column.lists:
        return "multilabel"
    if column.levels is not None and len(column.levels) > 1:
        return "binary" if len(column.levels) == 2 else "multiclass"
    return "multilabel" if column.filled and column.separator and not column.numbers else None


def _task(column: Column, given: TaskKind | None, remarks: list[str]) -> dict[str, Any]:
    kind = given or _kind(column)
    if kind not in get_args(TaskKind):
        raise ConfigError(
            f"column {column.name} holds {column.holds}; an outcome has 2 to {MOST_LEVELS} short "
            "values, or lists of labels. Say which kind with --outcome COLUMN=binary, multiclass "
            "or multilabel, or make classes of its values."
        )
    name = re.sub(r"[^a-z0-9._-]+", "_", column.name.lower()).strip("._-") or "outcome"
    task: dict[str, Any] = {"name": name[:64], "kind": kind, "column": column.name}
    if kind == "binary":
        task |= _values(column, remarks)
    if kind == "multilabel" and not column.lists and column.separator:
        task["separator"] = column.separator
        remarks.append(f"{column.name}: labels are taken to stand between {column.separator!r}.")
    return task


def _values(column: Column, remarks: list[str]) -> dict[str, Any]:
    """Which value of a binary column is the positive one."""
    levels = column.levels or {}
    if len(levels) != 2:
        raise ConfigError(f"column {column.name} holds {column.holds}; a binary outcome has two.")
    known = [level for level in levels if level.lower() in _POSITIVE]
    positive = known[0] if len(known) == 1 else min(levels, key=lambda level: levels[level])
    negative = next(level for level in levels if level != positive)
    if (positive, negative) == ("1", "0"):
        return {}
    values: dict[str, Any] = {"positive": positive, "negative": negative}
    if len(known) != 1:
        remarks.append(f"{column.name}: the rarer value, {positive!r}, is taken for the positive.")
        values["classes"] = [positive]
    return values
