"""A first recipe for a table of notes: what its columns seem to be, unless one says so."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from notetune.aliases import TaskKind
from notetune.config import as_yaml, parse
from notetune.errors import ConfigError
from notetune.missing_column import MOST_NAME_CHARS
from notetune.notes.outcomes import SPLITS
from notetune.recipe.draft_codes import Codes, task_of_codes, uses_beside
from notetune.recipe.draft_tasks import drafted_tasks, gaps_of
from notetune.recipe.recipe import Recipe
from notetune.sources.splits import ColumnSplit
from notetune.sources.tables.survey import ROWS_READ, Column, Survey

_ID: Final = "(id|nr|no|num|number|key)"
_NAMES: Final = {
    "patient_id": rf"((pat|patient)_)?(patient(en)?|paciente|subject|person|pat|mrn)"
    rf"([_ -]?({_ID}|uuid|nummer))?|pt_?{_ID}",
    "note_id": rf"(note|report|document|doc|case|row)?[_ -]?{_ID}",
    "time": r".*(date|time|datum|zeit|fecha).*",
    "stay_id": rf"(pat_enc_)?(stay|visit|encounter|admission|hadm|csn)([_ -]?{_ID})?",
}
_NEEDED: Final = ("text", "patient id", "split")
_IN_SEVERAL_ROWS: Final = rf"(note|report|document|doc)[_ -]?{_ID}"
_IS_ID: Final = rf".*{_ID}"
_OF_PERSONS: Final = (
    r"(age|alter|edad|leeftijd)([_ -].*)?|"
    r".*(name|nombre|nome|apellido|prénom|prenom|birth|geburt|naiss|nacim|year|jahr).*"
)
"""Columns that tell of persons: ids of notes go into files of scores."""
_OF_NOTES: Final = r".*(note|chart|service|effective|creat|document|report|writ|befund|erstell).*"
_OF_STAYS: Final = r".*(admi|disch|stor|aufnahme|entlass|updat|modif|sign|print).*"
_OF_LIVES: Final = (
    r"geb.*|.*(birth|dob|death|dod|died|expire|geburt|todes|sterbe|geboorte|overlij|naiss|"
    r"d[eé]c[eè]s|nacim|_nac|falleci|defunci|f[oö]dels).*"
)
"""Names of times by whether they are more, less or never likely that of a note."""
_LEAST_STAYS: Final = 10
_LINES_OF_A_NOTE: Final = 1.5
_LEAST_CHARS: Final = 40
_MOST_ID_CHARS: Final = 40
_SEEDS: Final = 3
_DELETION_NOTES: Final = 20
# As few as tell whether adapting to the notes helped, and whether adapting to the task did.
_VARIANTS: Final = ("head-only", "domain-frozen", "domain-frozen+task-lora")


@dataclass(frozen=True)
class Choices:
    """What a user says of the columns; outcomes with their kind or None, the rest is guessed.

    `text_option` is how that of the text is said.
    """

    text: str | None = None
    patient_id: str | None = None
    note_id: str | None = None
    time: str | None = None
    stay_id: str | None = None
    outcomes: Mapping[str, TaskKind | None] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    text_option: str = "--text COLUMN"


@dataclass(frozen=True)
class Draft:
    """A recipe that runs, and what each column became.

    Attributes:
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
        return "\n".join([*lines, as_yaml(self.keys)])


def draft(
    path: Path,
    seen: Survey,
    choices: Choices,
    name: str,
    backbone: str,
    codes: Codes | None = None,
) -> Draft:
    """A recipe for a table: by what its columns hold, what a user says, and a table of codes.

    Raises:
        ConfigError: If a column is not there or named as two things, or no text, outcome or codes
            can be told.
    """
    remarks = _left_out(seen)
    columns = _columns(seen, choices, remarks)
    of_codes = [task_of_codes(seen, codes, remarks)] if codes else []
    split = _split(seen, remarks)
    taken = {*columns.values(), *choices.features, *(task["column"] for task in of_codes)}
    taken |= {split["column"]} if split else set()
    tasks = drafted_tasks(seen, choices.outcomes, taken, remarks, of_codes)
    source: dict[str, Any] = {"kind": "table", "path": str(path), "columns": columns}
    if "time" in columns:
        source |= _order_of_days(seen.column(columns["time"]), remarks)
    if choices.features:
        source["features"] = [seen.column(feature).name for feature in choices.features]
    source |= {"tasks": tasks, **gaps_of(seen, tasks, remarks)}
    prepare = {"source": source, **({"split": split} if split else {})}
    keys = {
        "schema": 1,
        "name": name,
        "backbone": backbone,
        "seeds": _SEEDS,
        "prepare": prepare,
        "pretrain": {"leaked_texts": "drop"},
        "downstream": {"variants": list(_VARIANTS)},
        "evaluate": {"deletion_notes": _DELETION_NOTES},
    }
    uses = _uses(source, split)
    remarks.extend(_of_keys(seen, uses))
    return Draft(keys, uses, tuple(remarks), uses_beside(of_codes))


def _uses(source: dict[str, Any], split: dict[str, Any]) -> dict[str, str]:
    """What each column of the notes is used as."""
    uses = {column: role.replace("_", " ") for role, column in source["columns"].items()}
    uses |= {split["column"]: "split"} if split else {}
    uses |= dict.fromkeys(source.get("features", ()), "feature")
    outcomes = [task for task in source["tasks"] if "codes" not in task]
    return uses | {task["column"]: f"outcome, {task['kind']}" for task in outcomes}


def _of_keys(seen: Survey, uses: Mapping[str, str]) -> Iterator[str]:
    for column in map(seen.column, uses):
        if lacking := seen.rows - column.rows:
            yield (
                f"{column.name}: {lacking:,} of the first {seen.rows:,} objects lack this key and "
                "are rejected; give it in every line, null if none."
            )
        use, without = uses[column.name], column.rows - column.filled
        if without and use in _NEEDED:
            yield (
                f"{column.name}: {without:,} of the first {column.rows:,} rows have no {use}, "
                "which stops the study; fill it in, or set `policy: quarantine` and a "
                "max_rejected_share above their share to leave them out."
            )


def _left_out(seen: Survey) -> list[str]:
    """What of the table was not looked at, in words."""
    remarks = []
    if seen.unread:
        limits = f"1 to {MOST_NAME_CHARS} printable characters"
        remarks.append(f"Columns without a name of {limits} are left out: {len(seen.unread)}.")
    if seen.damaged:
        remarks.append(
            f"{seen.damaged:,} of the first {seen.rows + seen.damaged:,} rows are damaged and left "
            "out here. Mend them, or set `policy: quarantine`, which leaves such rows out, up to "
            "max_rejected_share."
        )
    return remarks


def _columns(seen: Survey, choices: Choices, remarks: list[str]) -> dict[str, str]:
    """The column of each role that there is one for."""
    columns = {"text": _text(seen, choices).name}
    named = _named(columns["text"], choices)
    for role, pattern in _NAMES.items():
        if (given := getattr(choices, role)) is not None:
            columns[role] = seen.column(given).name
            continue
        column = _of_role(seen, role, pattern, columns)
        if not column or column.name in columns.values():
            continue
        if column.name not in named:
            columns[role] = column.name
        elif role == "patient_id":
            raise ConfigError(
                f"column {column.name} seems to name the patient and is named as "
                f"{named[column.name]}, so no patient is known; name the column of the patient as "
                "that, or rename this one."
            )
    remarks.extend(_of_ids(seen, columns))
    return columns


def _named(text: str, choices: Choices) -> dict[str, str]:
    """What each column is that a user names, the text included."""
    said = [(text, "text"), *((getattr(choices, role), role.replace("_", " ")) for role in _NAMES)]
    said += [(name, "outcome") for name in choices.outcomes]
    said += [(name, "feature") for name in dict.fromkeys(choices.features)]
    named: dict[str, str] = {}
    for column, use in said:
        if column in named:
            raise ConfigError(
                f"column {column} cannot be both {named[column]} and {use}; name it as one of them."
            )
        if column is not None:
            named[column] = use
    return named


def _order_of_days(column: Column, remarks: list[str]) -> dict[str, bool]:
    """The key that says how times with slashes are read, where they are."""
    if not column.slashed:
        return {}
    if column.day_first is None:
        remarks.append(f"{column.name}: say by day_first of the source how its times are read.")
        return {}
    first = "day" if column.day_first else "month"
    remarks.append(f"{column.name}: in its times with slashes the {first} stands first.")
    return {"day_first": column.day_first}


def _of_ids(seen: Survey, columns: dict[str, str]) -> Iterator[str]:
    """What to check of the ids."""
    stays = seen.column(columns["stay_id"]) if "stay_id" in columns else None
    if "patient_id" not in columns:
        whose = "stay" if stays else "note"
        yield f"No column names the patient, so each {whose} counts as its own patient's."
    if stays and not stays.is_unique:
        yield (
            f"Several notes share one {stays.name}, {stays.distinct:,} in {stays.filled:,} rows: "
            "prepare.join: by time makes one document of them, evaluate.combine one row of their "
            "scores."
        )
    for one in seen.columns:
        named = one.name == columns.get("note_id") or _is(_IN_SEVERAL_ROWS, one)
        if named and one.filled >= _LINES_OF_A_NOTE * one.distinct > 0:
            yield (
                f"{one.name} names {one.filled / one.distinct:.2g} rows each, and each row is read "
                "as a note: if notes go over several rows, put the text of each into one, in the "
                "order of its lines."
            )


def _split(seen: Survey, remarks: list[str]) -> dict[str, Any]:
    """The split by a column that says which notes are for training and which for the test, if any.

    One more word than those known is that of validation, where none is known and it begins so.
    """
    known = ColumnSplit(kind="column")
    for column in seen.columns:
        words = {level.lower() for level in column.levels or ()}
        train, validation, test = (words & set(getattr(known, name)) for name in SPLITS)
        others = words - train - validation - test
        keys = {"kind": "column", "column": column.name}
        if train and test and not others:
            return keys
        begins_so = [word for word in others if word.startswith(("val", "dev", "tun"))]
        if train and test and others == set(begins_so[:1]) and not validation:
            remarks.append(f"{column.name}: {min(others)} is taken for validation.")
            return {**keys, "validation": list(others)}
    return {}


def _text(seen: Survey, choices: Choices) -> Column:
    if choices.text is not None:
        return seen.column(choices.text)
    texts = [column for column in seen.columns if column.holds == "text"]
    longest = max(texts, key=lambda column: column.mean_chars, default=None)
    if longest is None or longest.mean_chars < _LEAST_CHARS:
        raise ConfigError(f"no column seems to hold notes; name it with {choices.text_option}.")
    return longest


def _of_role(seen: Survey, role: str, pattern: str, columns: dict[str, str]) -> Column | None:
    fitting = [column for column in seen.columns if column.filled and _is(pattern, column)]
    if role == "note_id":
        filled = [one for one in seen.columns if one.is_unique and one.filled == seen.rows]
        unique = [column for column in filled if column.mean_chars <= _MOST_ID_CHARS]
        fitting = [column for column in fitting if column in unique] or _alone(seen, unique)
    elif role == "time":
        times = [one for one in fitting if one.are_sure_times and not _is(_OF_LIVES, one)]
        fitting = sorted(times, key=lambda one: _is(_OF_STAYS, one) - _is(_OF_NOTES, one))
    else:
        undated = [column for column in fitting if column.holds != "times"]
        fitting = [column for column in undated if _is(_IS_ID, column) or not column.words]
    if role == "stay_id":
        patients = seen.column(columns["patient_id"]).distinct if "patient_id" in columns else 0
        fitting = [column for column in fitting if _names_stays(column, seen.rows, patients)]
    return fitting[0] if fitting else None


def _is(pattern: str, column: Column) -> bool:
    """Whether a column has a name of a kind."""
    return re.fullmatch(pattern, column.name, re.IGNORECASE) is not None


def _names_stays(column: Column, rows: int, patients: int) -> bool:
    """Whether a column tells stays apart and not the first of each patient from the second."""
    least = 0 if _is(".*id", column) else _LEAST_STAYS
    if column.filled == rows:  # each patient has one
        least = max(least, patients)
    return column.is_unique or column.distinct >= least


def _alone(seen: Survey, unique: list[Column]) -> list[Column]:
    """The one column, under whatever name, that can be nothing but an id of the notes."""
    are_ids = [one for one in unique if not one.words and not _is(_OF_PERSONS, one)]
    are_codes = [one for one in are_ids if one.whole == one.filled or not one.numbers + one.times]
    return are_codes if len(are_codes) == 1 and seen.rows < ROWS_READ else []
