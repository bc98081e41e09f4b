"""Checks of the columns of ids and times that the MIMIC tables share."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from notetune.errors import DataError
from notetune.sources.cohort import stop_if_any
from notetune.strict_csv import Row, read_rows

_ID_REMEDY: Final = "write ids as in the original table"
_WHOLE: Final = r"^[0-9]{1,18}$"
"""What 64 bits hold."""


def is_whole_number(text: str) -> bool:
    """Whether a cell is digits alone, and at most 18."""
    return re.fullmatch(_WHOLE, text) is not None


def rows_with_id(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table whose first asked-for column is an id, as `read_rows`.

    Raises:
        DataError: If the table is faulty, or at an id that is no whole number.
    """
    for row in read_rows(path, columns):
        if not is_whole_number(row.cells[0]):
            rule = f"{columns[0]} is not a whole number"
            raise DataError(f"{path}, line {row.line}: {rule}; {_ID_REMEDY}.")
        yield row


def check_whole_numbers(path: Path, table: pl.DataFrame, *columns: str) -> None:
    """Stop at an id that is missing or written like 142345.0: it would silently match nothing.

    Raises:
        DataError: As `stop_if_any`.
    """
    for column in columns:
        is_odd = ~pl.col(column).str.contains(_WHOLE).fill_null(value=False)
        stop_if_any(path, table, is_odd, f"{column} is not a whole number", _ID_REMEDY)


def with_times(path: Path, table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The table with columns of times as Datetime("us"); an empty cell stays null.

    Raises:
        DataError: As `stop_if_any`, at a cell that is no time.
    """
    for column in columns:
        text = pl.col(column)
        time = text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
        unreadable = time.is_null() & text.is_not_null()
        remedy = "write times as 2164-10-23 21:09:00"
        stop_if_any(path, table, unreadable, f"{column} is not a time", remedy)
        table = table.with_columns(time)
    return table
