"""A column that a table does not have, in words: the nearest one, and those that there are."""

import difflib
from collections.abc import Sequence
from typing import Final

from notetune.errors import DataError

MOST_NAME_CHARS: Final = 60
"""Longest column name; what is longer is no name but a note, in a file without a header."""
_NAMES_SHOWN: Final = 12
_CHARS_SHOWN: Final = 40
_NEAR: Final = 0.6
_FEW: Final = 2
_VERY_NEAR: Final = 0.8


class MissingColumnError(DataError):
    """A table lacks a column."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


def are_names(names: Sequence[str]) -> bool:
    """Whether the first line of a table can be one of names: each short and printable."""
    return all(len(name.strip()) <= MOST_NAME_CHARS and name.isprintable() for name in names)


def seems_header(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the first line of a CSV file names columns, rather than being a row of cells.

    It does if it could be names, none of them is a number, and two of the wanted columns are there,
    or one of at most two so spelt: nothing else tells names from cells, which must not be shown.
    """
    plain = [name.strip().lower() for name in names]
    holds_number = any(name.replace(".", "").replace("-", "").isdigit() for name in plain)
    present = sum(name.strip().lower() in plain for name in dict.fromkeys(wanted))
    exact = any(name in names for name in wanted) and len(wanted) <= _FEW
    return are_names(names) and not holds_number and (present > 1 or exact)


def missing_column(wanted: str, names: Sequence[str], *, is_header: bool = True) -> str:
    """That a column is missing, with the nearest one, and the first 12 where they are names.

    Where what stands there is no header, all but one that is very near may be cells, and are not
    shown.
    """
    near = nearest(wanted, names, _NEAR if is_header else _VERY_NEAR)
    found = "" if near is None else f"; the nearest is {_short(near)!r}"
    if is_header and are_names(names):
        shown = names[:_NAMES_SHOWN]
        listed = ", ".join(_short(name) for name in shown if name.strip())
        more = len(names) - len(shown)
        found += f"; there are {listed}" + (f" and {more} more" if more > 0 else "")
    return f"no column {wanted!r} among {len(names)}{found}"


def nearest(wanted: str, names: Sequence[str], cutoff: float = _NEAR) -> str | None:
    """The name that is spelt most alike, whatever the letter case; None if none is alike."""
    by_plain = {name.strip().lower(): name.strip() for name in names}
    near = difflib.get_close_matches(wanted.strip().lower(), by_plain, n=1, cutoff=cutoff)
    return by_plain[near[0]] if near else None


def _short(name: str) -> str:
    name = name.strip()
    return name if len(name) <= _CHARS_SHOWN else f"{name[: _CHARS_SHOWN - 1]}…"
