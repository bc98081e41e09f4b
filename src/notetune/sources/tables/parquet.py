"""Rows of Parquet files, one at a time."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl

from notetune.errors import DataError
from notetune.missing_column import MissingColumnError, missing_column
from notetune.sources.rejections import Rejections
from notetune.sources.tables.records import Record

_ROWS_AT_ONCE: Final = 5_000
_ROW: Final = "\0row"  # no column of a file has this name
_ALL: Final = pl.lit(value=True)


def parquet_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, keep: pl.Expr = _ALL
) -> Iterator[Record]:
    """The rows of a Parquet file, all or those to `keep`; others are left out as "another code".

    Raises:
        DataError: If the file is missing or faulty, or lacks a column.
    """
    by_name = parquet_columns(file)
    if absent := [name for name in wanted if name.lower() not in by_name]:
        said = missing_column(absent[0], list(by_name.values()))
        raise MissingColumnError(f"{file}: {said}; name one of these.", absent[0])
    table = pl.scan_parquet(file, glob=False).with_row_index(_ROW, offset=1)
    with _readable(file), _panics_unsaid():
        columns = [pl.col(_ROW), *_cells(table, {name: by_name[name.lower()] for name in wanted})]
        total = int(table.select(pl.len()).collect().item())
        rows = table.select(columns).filter(keep).select(_ROW).collect()[_ROW]
    rejections.rows_read += total
    if total > len(rows):
        rejections.leave_out("another code", total - len(rows))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        # A slice decodes only its part of the file: less memory than streaming batches take.
        piece = table.slice(some[0] - 1, some[-1] - some[0] + 1).select(columns)
        with _readable(file), _panics_unsaid():
            found = piece.filter(keep).collect()
        with _readable(file):
            for cells in found.iter_rows(named=True):
                yield Record(file, cells.pop(_ROW), cells)


def _cells(table: pl.LazyFrame, wanted: Mapping[str, str]) -> list[pl.Expr]:
    """Columns under other names; floats and decimals that are all whole become whole numbers.

    As floats pandas writes whole numbers where one is missing, as decimals databases do.
    """
    types = table.collect_schema()
    cells = {name: pl.col(column) for name, column in wanted.items()}
    are_whole = {}
    for name, cell in cells.items():
        if (kind := types[wanted[name]]).is_decimal():
            are_whole[name] = (cell == cell.floor()).all()
        elif kind.is_float():
            number = cell.fill_nan(None)
            are_whole[name] = ((number == number.floor()) & (number.abs() <= 2**53)).all()
    tests = [one.alias(str(place)) for place, one in enumerate(are_whole.values())]
    found = table.select(tests).collect().row(0) if tests else ()
    for name, is_whole in zip(are_whole, found, strict=True):
        cells[name] = cells[name].cast(pl.Int128 if is_whole else pl.Float64, strict=False)
    return [cell.alias(name) for name, cell in cells.items()]


def parquet_columns(file: Path) -> dict[str, str]:
    """The columns by their names in lower case."""
    by_name: dict[str, str] = {}
    with _readable(file), _panics_unsaid():
        names = pl.scan_parquet(file, glob=False).collect_schema().names()
    for name in names:
        if (other := by_name.setdefault(name.lower(), name)) != name:
            raise DataError(f"{file}: columns {other} and {name} differ by case; rename one.")
    return by_name


@contextmanager
def _panics_unsaid() -> Iterator[None]:
    """Keep off standard error what polars itself writes there of a damaged file: it may hold cells.

    It is written by no Python code, so that the stream itself must lead elsewhere.
    """
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        # Their texts can show cells.
        raise DataError(f"{file} is not a readable Parquet file; write it again.") from None
    except (OverflowError, ValueError):
        raise DataError(f"{file} holds a time outside of the years 1 to 9999; mend it.") from None
