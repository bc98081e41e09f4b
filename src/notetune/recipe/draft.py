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
_CODED: Final = r"icd|code|diag"
_CODED_SHARE: Final = 0.8
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
class Codes:
    """A table of codes beside the notes, and what a user says of it; the rest is guessed.

    Attributes:
        path: The table.
        seen: What its columns hold.
        id_column: Column of the id that a column of the notes has too.
        code_column: Column of the codes.
        version: icd9, icd10 or as-is.
    """

    path: Path
    seen: Survey
    id_column: str | None = None
    code_column: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Draft:
    """A recipe that runs, and what each column became.

    Attributes:
        keys: The recipe.
        uses: Column to what it is used as.
        remarks: What a user should check, a sentence each.
        beside: Column of the table of codes to what it is used as.
    """

    keys: dict[str, Any]
    uses: dict[str, str]
    remarks: tuple[str, ...]
    beside: dict[str, str]

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


def draft(
    path: Path,
    seen: Survey,
    choices: Choices,
    name: str,
    backbone: str,
    codes: Codes | None = None,
) -> Draft:
    """A recipe for a table.

    Args:
        path: The table.
        seen: What its columns hold.
        choices: What the user says of them.
        name: Of the study.
        backbone: Its folder, or `tiny`.
        codes: A table of codes to predict, if there is one.

    Raises:
        ConfigError: If a column is not there, or no text, outcome or codes can be told.
    """
    remarks: list[str] = []
    columns = _columns(seen, choices, remarks)
    of_codes = [_of_codes(seen, codes, remarks)] if codes else []
    taken = {*columns.values(), *choices.features, *(task["column"] for task in of_codes)}
    tasks = _tasks(seen, choices, taken, remarks, of_codes)
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
    uses |= {task["column"]: f"outcome, {task['kind']}" for task in tasks if "codes" not in task}
    return Draft(keys, uses, tuple(remarks), _uses_beside(of_codes))


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
    seen: Survey,
    choices: Choices,
    taken: set[str],
    remarks: list[str],
    of_codes: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    outcomes = _outcomes(seen, choices, taken, needs_one=not of_codes)
    tasks = [*of_codes] + [_task(column, kind, remarks) for column, kind in outcomes]
    taken |= {column.name for column, _ in outcomes}
    if others := [column.name for column in seen.columns if _could_be(column, taken)]:
        remarks.append(f"--outcome would predict these too: {', '.join(others)}.")
    return tasks


def _of_codes(seen: Survey, codes: Codes, remarks: list[str]) -> dict[str, Any]:
    """The task of a table of codes: its id, and the column of the notes that has it too."""
    named_so = codes.code_column and _column(codes.seen, codes.code_column)
    own = [_column(codes.seen, codes.id_column)] if codes.id_column else codes.seen.columns
    pairs = [
        (one, other)
        for one in own
        for other in seen.columns
        if one is not named_so and (codes.id_column or not _seems_coded(one))
    ]
    own_id, of_notes = max(pairs, key=lambda pair: _fit(*pair), default=(None, None))
    found, total = own_id.found_in(of_notes) if own_id and of_notes else (0, 0)
    if not own_id or not of_notes or not found:
        raise ConfigError(
            f"{codes.path}: no column holds ids that a column of the notes has too; name it with "
            "--codes-id COLUMN, and write the ids alike in both tables."
        )
    code = named_so or _code_column(codes, own_id)
    version = codes.version or _version(code)
    remarks.append(
        f"{codes.path.name}: {found:,} of {total:,} values of {own_id.name} are in column "
        f"{of_notes.name} of the notes, by the first rows; {code.name} is taken for diagnoses, "
        f"{version}."
    )
    beside = {
        "path": str(codes.path),
        "id_column": own_id.name,
        "code_column": code.name,
        "version": version,
    }
    return {"name": "codes", "kind": "multilabel", "column": of_notes.name, "codes": beside}


def _fit(own: Column, of_notes: Column) -> tuple[int, float, bool]:
    """How well a column of the codes names what a column of the notes names, the finer the more."""
    found, total = own.found_in(of_notes)
    return found, found / max(1, total), own.name.lower() == of_notes.name.lower()


def _seems_coded(column: Column) -> bool:
    """Whether a column holds codes, by its name: numbers of patients have the form of ICD-9 too."""
    return re.search(_CODED, column.name, re.IGNORECASE) is not None


def _code_column(codes: Codes, own_id: Column) -> Column:
    others = [column for column in codes.seen.columns if column is not own_id and column.filled]
    fitting = [one for one in others if _seems_coded(one) or _version(one) != "as-is"]
    if not fitting:
        raise ConfigError(
            f"{codes.path}: no column seems to hold codes; name it with --code-column."
        )
    return max(fitting, key=lambda one: (_version(one) != "as-is", _seems_coded(one), _share(one)))


def _share(column: Column) -> float:
    return max(column.diagnoses.values()) / max(1, column.filled)


def _version(column: Column) -> str:
    """Of which version most cells have the form, codes of both forms aside."""
    if _share(column) < _CODED_SHARE:
        return "as-is"
    of_9, of_10 = column.diagnoses["9"], column.diagnoses["10"]
    return "icd9" if of_9 > of_10 else "icd10"


def _uses_beside(of_codes: Sequence[dict[str, Any]]) -> dict[str, str]:
    uses = {}
    for task in of_codes:
        codes = task["codes"]
        uses[codes["id_column"]] = f"id, as {task['column']} of the notes"
        uses[codes["code_column"]] = f"codes, {codes['version']}"
    return uses


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
    seen: Survey, choices: Choices, taken: set[str], *, needs_one: bool
) -> Sequence[tuple[Column, TaskKind | None]]:
    if choices.outcomes:
        return [(_column(seen, name), kind) for name, kind in choices.outcomes.items()]
    free = [column for column in seen.columns if _could_be(column, taken)]
    words = _OUTCOMES.split()
    guessed = [column for column in free if any(word in column.name.lower() for word in words)]
    if needs_one and not guessed:
        could = f" It could be {', '.join(column.name for column in free)}." if free else ""
        raise ConfigError(
            "no column seems to be an outcome; name it with --outcome COLUMN, or a table of codes "
            f"beside the notes with --codes FILE.{could}"
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
