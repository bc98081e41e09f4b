"""The outcomes of a first recipe, each with what its column seems to say."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from notetune.aliases import TaskKind
from notetune.config import as_name
from notetune.errors import ConfigError
from notetune.sources.rejections import ReadingPolicy
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
    *("true", "t", "yes", "y", "ja", "oui", "si", "sí", "sim", "died", "dead", "deceased"),
    *("positive", "pos", "positiv", "positif", "positivo"),
)
"""Of other pairs, what is more likely the positive value than the rarer one."""
_UNKNOWN: Final = (
    *("unknown", "unk", "u", "unclear", "missing", "n/a", "nk", "?", "-", ".", "not known"),
    *("not recorded", "not documented", "not available", "unbekannt", "nicht bekannt", "unklar"),
    *("k.a.", "k. a.", "keine angabe", "inconnu", "desconocido", "desconhecido", "onbekend"),
    *("okänt", "ukjent", "sconosciuto", "nieznane"),
)
"""Beside yes and no, what is no answer."""
_UNKNOWN_NUMBERS: Final = {"9", "99", "999", "-1", "-9", "-99"}
"""Beside 1 and 0, what may be none: as a word for it, it would be one in columns of ids too."""
_IF_A_CLASS: Final = "where that is a class, leave it out of `missing` of the source"
_TO_BINARY: Final = (
    "For a binary task, empty the cells that are no answer, or name them in `missing` of the "
    "source, which is for all columns; or write `negative: null` for all that are not `positive`."
)


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


def gaps_of(seen: Survey, tasks: Sequence[dict[str, Any]], remarks: list[str]) -> dict[str, Any]:
    """Keys of the source for notes that have no label of a task, if there are any."""
    outcomes = [(seen.column(task["column"]), task) for task in tasks if "codes" not in task]
    binary = [column for column, task in outcomes if task["kind"] == "binary"]
    words = {word for column in binary for word in _answers(column, is_binary=True)[1]}
    keys: dict[str, Any] = {"missing": [*ReadingPolicy().missing, *sorted(words)]} if words else {}
    for column, _ in outcomes:
        levels = column.levels or {}
        without = seen.rows - column.filled + sum(levels.get(word, 0) for word in words)
        if without:
            keys["policy"] = "quarantine"
            said = _listed([*column.missing, *sorted(words & levels.keys())])
            among = f", {said} among them; {_IF_A_CLASS}" if said else ""
            remarks.append(
                f"{column.name}: {without:,} of the first {seen.rows:,} notes have no value{among}"
                ". `policy: quarantine` leaves them out of the task and keeps them for step 1; it "
                "also leaves out damaged rows, up to max_rejected_share."
            )
    return keys


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
    if column.are_lists or column.joins_labels:
        return "multilabel"
    if len(answers := _answers(column)[0]) > 1:
        return "binary" if len(answers) == 2 else "multiclass"
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
    if kind == "multilabel" and not column.are_lists and column.separator:
        task["separator"] = column.separator
        remarks.append(f"{column.name}: labels are taken to stand between {column.separator!r}.")
    elif kind != "multilabel" and column.separator and not given:
        remarks.append(
            f"{column.name}: each cell is taken for one class. If {column.separator!r} stands "
            "between labels, make it multilabel with that `separator`."
        )
    if kind == "multiclass" and not given:
        remarks.extend(_of_classes(column))
    return task


def _of_classes(column: Column) -> Iterator[str]:
    """What to check of classes that are guessed."""
    answers = _answers(column)[0]
    if len(answers) < len(column.levels or ()):
        yield f"{column.name}: some classes differ by letter case alone; write each in one way."
    rests = [answers.keys() - pair for pair in _PLAIN if answers.keys() > set(pair)]
    if any("0" not in answers or rest <= _UNKNOWN_NUMBERS for rest in rests):
        yield f"{column.name}: two of its {len(answers)} values say yes and no. {_TO_BINARY}"


def _answers(column: Column, *, is_binary: bool = False) -> tuple[dict[str, list[str]], list[str]]:
    """The spellings of each level, by its lower case, and words that are no answer.

    These stand beside yes and no: words such as unknown, or in a column that `is_binary` any one.
    """
    levels = column.levels or {}
    spellings: dict[str, list[str]] = {}
    for level in sorted(levels, key=lambda level: -levels[level]):
        spellings.setdefault(level.lower(), []).append(level)
    plain = next((set(pair) for pair in _PLAIN if spellings.keys() > set(pair)), None)
    others = sorted(spellings.keys() - plain) if plain else []
    is_word = is_binary and len(others) == 1 and not re.search(r"\d", others[0])
    if is_word or all(other in _UNKNOWN for other in others):
        return spellings, [word for other in others for word in spellings.pop(other)]
    return spellings, []


def _values(column: Column, remarks: list[str]) -> dict[str, Any]:
    """Which value of a binary column is the positive one."""
    levels, (answers, _) = column.levels or {}, _answers(column, is_binary=True)
    if len(answers) == 1 and column.filled < column.rows:
        raise ConfigError(
            f"column {column.name} holds one value and empty cells, which are missing labels; "
            "write another value, such as N, into the empty cells if they say no."
        )
    if len(answers) != 2:
        raise ConfigError(
            f"column {column.name} holds {column.holds}; a binary outcome has two. {_TO_BINARY}"
        )
    plain = [one for one in answers for two in answers if (one, two) in _PLAIN]
    known = plain or [answer for answer in answers if answer in _POSITIVE]
    rarer = min(answers, key=lambda answer: sum(levels[one] for one in answers[answer]))
    positive = answers.pop(known[0] if len(known) == 1 else rarer)
    (negative,) = answers.values()
    if (positive, negative) == (["1"], ["0"]):
        return {}
    values: dict[str, Any] = {
        "positive": positive[0] if len(positive) == 1 else positive,
        "negative": negative[0] if len(negative) == 1 else None,
    }
    said = f"{column.name}: {_listed(positive)} counts as positive, {_listed(negative)} as negative"
    if len(negative) > 1:
        said += ", as any other cell does (`negative: null`)"
    if not plain:
        values["classes"] = [positive[0]]
        said += (
            ". To turn it, swap `positive` and `negative` of the task and name the other in "
            "`classes`, or write 1 and 0 into the column"
        )
    if not plain or len(positive) + len(negative) > 2:
        remarks.append(f"{said}.")
    return values


def _listed(words: Sequence[str]) -> str:
    return " or ".join(map(repr, words))
