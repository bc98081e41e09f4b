"""The outcomes of a first recipe, each with what its column seems to say."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from notetune.aliases import TaskKind
from notetune.config import as_name
from notetune.errors import ConfigError
from notetune.sources.tables.survey import ARRAYS, MOST_LEVELS, Column, Survey

_OUTCOMES: Final = (
    "died death dead mortality expire readmi outcome label target diagnos procedure icd codes"
)
_PLAIN: Final = (
    *(("1", "0"), ("1.0", "0.0"), ("true", "false"), ("t", "f"), ("yes", "no"), ("y", "n")),
    *(("ja", "nein"), ("ja", "nee"), ("ja", "nej"), ("ja", "nei"), ("j", "n"), ("oui", "non")),
    *(("o", "n"), ("si", "no"), ("sí", "no"), ("sì", "no"), ("s", "n"), ("sim", "não")),
    *(("sim", "nao"), ("tak", "nie")),
)
"""The positive and the negative value of outcomes that say yes or no."""
_POSITIVE: Final = (
    *("true", "t", "yes", "y", "ja", "oui", "si", "sí", "sim", "died", "dead"),
    *("positive", "pos", "positiv", "positif", "positivo"),
)
"""Of other pairs, what is more likely the positive value than the rarer one."""


def drafted_tasks(
    seen: Survey,
    named: Mapping[str, TaskKind | None],
    taken: set[str],
    remarks: list[str],
    of_codes: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The tasks of the columns that are named or guessed, after those of a table of codes.

    Raises:
        ConfigError: If a column can be no outcome, or none can be told.
    """
    outcomes = _outcomes(seen, named, taken, needs_one=not of_codes)
    tasks = [*of_codes]
    for column, kind in outcomes:
        task = _task(column, kind, remarks)
        name = as_name(column.name, "outcome", "_", [other["name"] for other in tasks])
        tasks.append({"name": name, **task})
    taken |= {column.name for column, _ in outcomes}
    if others := [column.name for column in seen.columns if _could_be(column, taken)]:
        remarks.append(f"These could be outcomes too: {', '.join(others)}.")
    remarks.extend(_of_arrays(column) for column in seen.columns if column.holds == ARRAYS)
    return tasks


def policy_for(seen: Survey, tasks: Sequence[dict[str, Any]], remarks: list[str]) -> dict[str, str]:
    """What leaves out of a task the notes that have no label of it, if there are any."""
    outcomes = [seen.column(task["column"]) for task in tasks if "codes" not in task]
    lacking = [column for column in outcomes if column.filled < seen.rows]
    for column in lacking:
        without = seen.rows - column.filled
        remarks.append(
            f"{column.name}: {without:,} of the first {seen.rows:,} notes have no value. "
            "`policy: quarantine` leaves them out of the task and keeps them for step 1; it also "
            "leaves out damaged rows, up to max_rejected_share."
        )
    return {"policy": "quarantine"} if lacking else {}


def _outcomes(
    seen: Survey, named: Mapping[str, TaskKind | None], taken: set[str], *, needs_one: bool
) -> Sequence[tuple[Column, TaskKind | None]]:
    if named:
        return [(seen.column(name), kind) for name, kind in named.items()]
    free = [column for column in seen.columns if _could_be(column, taken)]
    words = _OUTCOMES.split()
    guessed = [column for column in free if any(word in column.name.lower() for word in words)]
    if needs_one and not guessed:
        could = f" It could be {', '.join(column.name for column in free)}." if free else ""
        could += "".join(f" {_of_arrays(one)}" for one in seen.columns if one.holds == ARRAYS)
        raise ConfigError(
            "no column seems to be an outcome; name it with --outcome COLUMN, or a table of codes "
            f"beside the notes with --codes FILE.{could}"
        )
    return [(column, None) for column in guessed]


def _could_be(column: Column, taken: set[str]) -> bool:
    return column.name not in taken and _kind(column) is not None


def _kind(column: Column) -> TaskKind | None:
    """What an outcome in this column would be; None if it can be none."""
    if column.holds in (ARRAYS, "times"):
        return None
    if column.lists or column.joins_labels:
        return "multilabel"
    if column.levels is not None and len(column.levels) > 1:
        return "binary" if len(column.levels) == 2 else "multiclass"
    return "multilabel" if column.filled and column.separator and not column.numbers else None


def _of_arrays(column: Column) -> str:
    return (
        f"{column.name}: arrays in braces, as Postgres prints them, are not read; export the "
        f"column with array_to_string({column.name}, ';')."
    )


def _task(column: Column, given: TaskKind | None, remarks: list[str]) -> dict[str, Any]:
    kind = given or _kind(column)
    if column.holds == ARRAYS:
        raise ConfigError(_of_arrays(column))
    if kind not in get_args(TaskKind):
        raise ConfigError(
            f"column {column.name} holds {column.holds}; an outcome has 2 to {MOST_LEVELS} short "
            "values, or lists of labels. Make classes of its values, or say its kind: "
            "COLUMN=binary, multiclass or multilabel."
        )
    task: dict[str, Any] = {"kind": kind, "column": column.name}
    if kind == "binary":
        task |= _values(column, remarks)
    if kind == "multilabel" and not column.lists and column.separator:
        task["separator"] = column.separator
        remarks.append(f"{column.name}: labels are taken to stand between {column.separator!r}.")
    elif kind != "multilabel" and column.separator:
        remarks.append(
            f"{column.name}: each cell is taken for one class. If {column.separator!r} stands "
            "between labels, make it multilabel with that `separator`."
        )
    return task


def _values(column: Column, remarks: list[str]) -> dict[str, Any]:
    """Which value of a binary column is the positive one."""
    levels = column.levels or {}
    if len(levels) != 2:
        raise ConfigError(f"column {column.name} holds {column.holds}; a binary outcome has two.")
    plain = [one for one in levels for two in levels if (one.lower(), two.lower()) in _PLAIN]
    known = plain or [level for level in levels if level.lower() in _POSITIVE]
    positive = known[0] if len(known) == 1 else min(levels, key=lambda level: levels[level])
    negative = next(level for level in levels if level != positive)
    if (positive, negative) == ("1", "0"):
        return {}
    values: dict[str, Any] = {"positive": positive, "negative": negative}
    if not plain:
        values["classes"] = [positive]
        remarks.append(
            f"{column.name}: {positive!r} counts as positive, {negative!r} as negative. To turn "
            "it, swap `positive` and `negative` of the task and name the other in `classes`, or "
            "write 1 and 0 into the column."
        )
    return values
