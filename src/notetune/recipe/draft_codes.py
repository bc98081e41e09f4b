"""The task of a first recipe that predicts the codes of a table beside the notes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from notetune.errors import ConfigError
from notetune.sources.tables.survey import ROWS_READ, Column, Survey

_CODED: Final = r"icd|code|diag"
_CODED_SHARE: Final = 0.5
_MOST_KINDS: Final = 10
_LIKELY: Final = 0.5  # of the best share


@dataclass(frozen=True)
class Codes:
    """A table of codes beside the notes, and what a user says of it; the rest is guessed.

    `seen` is what its columns hold; `id_column` has an id that a column of the notes has too.
    """

    path: Path
    seen: Survey
    id_column: str | None = None
    code_column: str | None = None
    version: str | None = None


def task_of_codes(seen: Survey, codes: Codes, remarks: list[str]) -> dict[str, Any]:
    """The task of a table of codes: its id, and the column of the notes that has it too.

    Raises:
        ConfigError: If no column of one table holds ids of the other, or none seems to hold codes.
    """
    named_so = codes.code_column and codes.seen.column(codes.code_column)
    own = [codes.seen.column(codes.id_column)] if codes.id_column else codes.seen.columns
    pairs = [
        (one, other)
        for one in own
        for other in seen.columns
        if one is not named_so and (codes.id_column or not _seems_coded(one))
    ]
    # Of a column in both tables the first rows may hold few ids that both have.
    alike = [pair for pair in pairs if pair[0].name.lower() == pair[1].name.lower()]
    pairs = [pair for pair in alike if codes.id_column or pair[0].found_in(pair[1])[0]] or pairs
    best = max((_share_found(*pair) for pair in pairs), default=0.0)
    likely = [pair for pair in pairs if _share_found(*pair) >= _LIKELY * best]
    own_id, of_notes = max(likely, key=lambda pair: _fit(*pair), default=(None, None))
    found, total = own_id.found_in(of_notes) if own_id and of_notes else (0, 0)
    is_named = codes.id_column and (own_id, of_notes) in alike
    if not own_id or not of_notes or not (found or is_named):
        raise ConfigError(
            f"{codes.path}: no column holds ids that a column of the notes has too, by the first "
            f"{ROWS_READ:,} rows of each; name it with --codes-id COLUMN if both tables call it "
            "so, and write the ids alike."
        )
    code = named_so or _code_column(codes, own_id)
    versions = None if codes.version else _version_column(codes)
    version = codes.version or (f"version by {versions.name}" if versions else _version(code))
    remarks.append(
        f"{codes.path.name}: {found:,} of {total:,} values of {own_id.name} are in column "
        f"{of_notes.name} of the notes, by the first rows; {code.name} is taken for diagnoses, "
        f"{version}."
    )
    remarks.extend(_of_other_kinds(codes, code, version))
    beside = {"path": str(codes.path), "id_column": own_id.name, "code_column": code.name}
    beside |= {"version_column": versions.name} if versions else {"version": version}
    is_taken = any(column.name.lower() == "codes" for column in seen.columns)
    name = "codes-beside" if is_taken else "codes"
    return {"name": name, "kind": "multilabel", "column": of_notes.name, "codes": beside}


def _of_other_kinds(codes: Codes, code: Column, version: str) -> Iterator[str]:
    """What to do where a table of diagnoses seems to hold other codes too."""
    others = code.filled - code.diagnoses.get(version.removeprefix("icd"), code.filled)
    if others:
        kinds = [one for one in codes.seen.columns if one is not code]
        few = [one for one in kinds if 1 < len(one.levels or ()) <= _MOST_KINDS]
        names = " or ".join(one.name for one in few) or "a column that says what a code is of"
        yield (
            f"{others:,} of the first {code.filled:,} cells of {code.name} do not look like "
            f"diagnoses, {version}. If the table has codes of several kinds, `where` in its "
            f"`codes` picks rows, by {names}."
        )


def _share_found(own: Column, of_notes: Column) -> float:
    """How much of a column of the codes a column of the notes has; of a mere count, little."""
    found, total = own.found_in(of_notes)
    return found / max(1, total)


def _fit(own: Column, of_notes: Column) -> tuple[bool, int]:
    """How well a column of the codes names what a column of the notes names, the finer the more."""
    return own.name.lower() == of_notes.name.lower(), own.found_in(of_notes)[0]


def _seems_coded(column: Column) -> bool:
    """Whether a column holds codes, by its name: numbers of patients have the form of ICD-9 too."""
    return re.search(_CODED, column.name, re.IGNORECASE) is not None


def _code_column(codes: Codes, own_id: Column) -> Column:
    others = [column for column in codes.seen.columns if column is not own_id and column.filled]
    fitting = [one for one in others if _seems_coded(one) or _version(one) != "as-is"]
    if not fitting:
        raise ConfigError(
            f"{codes.path}: no column seems to hold codes; name it with --code-column. There are "
            f"{', '.join(one.name for one in others)}."
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


def _version_column(codes: Codes) -> Column | None:
    """The column that says of each code whether it is of ICD-9 or ICD-10, if there is one."""
    named = [one for one in codes.seen.columns if "version" in one.name.lower()]
    return next((one for one in named if one.levels and one.levels.keys() <= {"9", "10"}), None)


def uses_beside(of_codes: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What the columns of the table of codes are used as."""
    uses = {}
    for task in of_codes:
        codes = task["codes"]
        uses[codes["id_column"]] = f"id, as {task['column']} of the notes"
        uses[codes["code_column"]] = f"codes, {codes.get('version', 'each with its version')}"
        if "version_column" in codes:
            uses[codes["version_column"]] = "version of the codes"
    return uses
