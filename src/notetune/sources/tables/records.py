"""One row of a table, whatever its format, and how its cells are read."""

import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self

from notetune.config import MAX_SHOWN_CHARS
from notetune.errors import DataError
from notetune.sources.rejections import ReadingPolicy, Rejected, place
from notetune.sources.tables.times import time_of

# Ids appear in messages and reports: a wrongly named column must not put text there.
_MAX_ID_CHARS: Final = 200
_ROUNDED: Final = re.compile(r"\d([.,]\d+)?[Ee]\+\d+")
NO_BREAK: Final = str.maketrans(dict.fromkeys("\u00a0\u2007\u202f", " "))


@dataclass(frozen=True, slots=True)
class Record:
    """The asked-for cells of one row, and where it stands.

    What reads a cell raises `Rejected` where the row cannot be used, and `DataError` where the
    column cannot be the one that was meant.
    """

    file: Path
    line: int
    """Physical line from 1, or row from 1 in a Parquet file."""
    cells: dict[str, Any]
    day_first: bool | None = None
    missing: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """File and line or row, for errors."""
        return place(self.file, self.line)

    def read_by(self, policy: ReadingPolicy) -> Self:
        """The same record, a cell None where it is NaN or a word of `missing` of the policy."""
        longest = 2 * max(map(len, policy.missing), default=0)  # no text is stripped to see it
        for name, cell in self.cells.items():
            is_short = isinstance(cell, str) and len(cell) <= longest
            if (is_short and cell.strip() in policy.missing) or cell != cell:  # unlike itself
                self.cells[name] = None
        return type(self)(self.file, self.line, self.cells, policy.day_first, policy.missing)

    def text(self, column: str) -> str:
        """A cell as `text_of` gives it."""
        return self.text_of(column, self.cells[column])

    def text_of(self, column: str, value: Any) -> str:
        """An id or label in one form, without space around it; "" where it is missing.

        Raises:
            Rejected: If it holds control characters or halves of characters.
            DataError: If it is a decimal number or a structure; 7.0 is 7.
        """
        match value:
            case None:
                return ""
            case str():
                text = unicodedata.normalize("NFC", value.translate(NO_BREAK).strip())
            case int():
                return str(int(value))
            case float() if value.is_integer() and abs(value) <= 2**53:  # beside gaps
                return str(int(value))
            case _:
                raise DataError(
                    f"{self.where}: column {column} holds a {type(value).__name__}; "
                    "store ids and labels as text or whole numbers."
                )
        if not text.isprintable():
            raise Rejected(f"control characters in column {column}", "remove them")
        return text

    def name(self, column: str) -> str:
        """An id or "" where it is missing, as `text_of`; no number that a spreadsheet rounded."""
        return self._unrounded(column, self.text(column))

    def stay(self, column: str) -> str | None:
        """The id of a stay as `feature`, so that 7.0 and 7 are one; as `name`."""
        return self._unrounded(column, self.feature(column) or "") or None

    def _unrounded(self, column: str, name: str) -> str:
        if _ROUNDED.fullmatch(name):
            raise DataError(
                f"{self.where}: column {column} holds a number with an exponent, as spreadsheets "
                "round long ones; export its ids as text."
            )
        return name

    def id(self, column: str, what: str) -> str:
        """The id of a `what`: as `name`, not missing, and at most 200 characters."""
        name = self.name(column)
        if not name:
            raise Rejected(f"missing {what} id", f"name the {what}")
        if len(name) > _MAX_ID_CHARS:
            raise DataError(
                f"{self.where}: the {what} id in column {column} has {len(name)} characters; an id "
                f"is one line of at most {_MAX_ID_CHARS}. Name the id column."
            )
        return name

    def feature(self, column: str) -> str | None:
        """A cell beside the text as `text_of`, a number in one spelling; None where it is empty."""
        value = self.cells[column]
        if isinstance(value, float):
            if math.isnan(value):
                return None
            value = str(int(value)) if value.is_integer() else repr(value)
        text = self.text_of(column, value)
        if len(text) > MAX_SHOWN_CHARS:
            raise DataError(
                f"{self.where}: column {column} holds {len(text)} characters; beside the "
                f"text stand ids, numbers and levels of at most {MAX_SHOWN_CHARS}. Name another "
                "column."
            )
        return text or None

    def time(self, column: str) -> datetime | None:
        """A time, in UTC where it has a zone; a day is its midnight."""
        value = self.cells[column]
        if value is None or value == "":
            return None
        try:
            if isinstance(value, str):
                value = time_of(value.strip(), day_first=self.day_first)
            if isinstance(value, datetime):
                return value.astimezone(UTC) if value.tzinfo else value
        except (ValueError, OverflowError):  # of a zone at the first or last hour of all years
            value = None
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day)  # noqa: DTZ001 (none has a zone)
        remedy = f"write times as 2164-10-23 21:09:00 in column {column}, or give day_first"
        raise Rejected("unreadable time", remedy)
