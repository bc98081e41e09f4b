"""Checks of the columns of ids and times that the MIMIC tables share."""

from pathlib import Path
from typing import Final

import polars as pl

from notetune.errors import DataError
from notetune.sources.cohort import stop_if_any

_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


def is_whole_number(cell: str) -> bool:
    """Whether an id is digits only; 142345.0 would silently match nothing."""
    return cell.isascii() and cell.isdigit()


def not_whole(path: Path, line: int, column: str) -> DataError:
    """The error for an id that is not."""
    return DataError(
        f"{path}, line {line}: {column} is not a whole number; write ids as in the original table."
    )


def check_whole_numbers(path: Path, table: pl.DataFrame, column: str) -> None:
    """Stop at an id that is missing or written like 142345.0: it would silently match nothing.

    Args:
        path: The file the table was read from.
        table: Its rows as strings, with the column `line`.
        column: The column to check.

    Raises:
        DataError: With file and line.
    """
    is_odd = ~pl.col(column).str.contains(r"^[0-9]+$").fill_null(value=False)
    rule = f"{column} is not a whole number"
    stop_if_any(path, table, is_odd, rule, "write ids as in the original table")


def with_times(path: Path, table: pl.DataFrame, column: str) -> pl.DataFrame:
    """The table with a column of times as Datetime("us"); an empty cell stays null.

    Raises:
        DataError: With file and line, at a cell that is no time.
    """
    text = pl.col(column)
    time = text.str.to_datetime(_TIME_FORMAT, strict=False, time_unit="us")
    unreadable = time.is_null() & text.is_not_null()
    rule = f"{column} is not a time"
    stop_if_any(path, table, unreadable, rule, "write times as 2164-10-23 21:09:00")
    return table.with_columns(time)
