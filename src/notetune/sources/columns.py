"""Checks of the columns of ids and times that the MIMIC tables share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from notetune.errors import DataError
from notetune.sources.cohort import stop_if_any
from notetune.strict_csv import Row, read_rows

_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


def check_whole_number(path: Path, line: int, column: str, cell: str) -> None:
    """Stop at an id that is not digits only; 142345.0 would silently match nothing.

    Raises:
        DataError: With file and line.
    """
    if not (cell.isascii() and cell.isdigit()):
        raise DataError(
            f"{path}, line {line}: {column} is not a whole number; write ids as in the original "
            "table."
        )


def rows_with_id(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table whose first asked-for column is an id, as `read_rows`.

    Raises:
        DataError: If the table is faulty, or at an id that is no whole number.
    """
    for row in read_rows(path, columns):
        check_whole_number(path, row.line, columns[0], row.cells[0])
        yield row


def check_whole_numbers(path: Path, table: pl.DataFrame, *columns: str) -> None:
    """Stop at an id that is missing or written like 142345.0: it would silently match nothing.

    Args:
        path: The file the table was read from.
        table: Its rows as strings, with the column `line`.
        columns: The columns to check.

    Raises:
        DataError: With file and line.
    """
    for column in columns:
        is_odd = ~pl.col(column).str.contains(r"^[0-9]+$").fill_null(value=False)
        rule = f"{column} is not a whole number"
        stop_if_any(path, table, is_odd, rule, "write ids as in the original table")


def with_times(path: Path, table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The table with columns of times as Datetime("us"); an empty cell stays null.

    Raises:
        DataError: With file and line, at a cell that is no time.
    """
    for column in columns:
        text = pl.col(column)
        time = text.str.to_datetime(_TIME_FORMAT, strict=False, time_unit="us")
        unreadable = time.is_null() & text.is_not_null()
        rule = f"{column} is not a time"
        stop_if_any(path, table, unreadable, rule, "write times as 2164-10-23 21:09:00")
        table = table.with_columns(time)
    return table
