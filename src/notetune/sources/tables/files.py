"""Rows of CSV, JSON lines and Parquet files, one at a time, whatever the format."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from notetune.errors import DataError
from notetune.sources.paths import matching_files
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections, place
from notetune.strict_csv import MAX_CELL_CHARS, numbered_lines, open_file, read_header
from notetune.strict_csv import read_rows as read_csv_rows

TABLE_SUFFIXES: Final = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_PARQUET_ROWS_AT_ONCE: Final = 5_000
_ROW: Final = "row number"

_CSV_REMEDIES: Final = {
    "short row": "quote every cell that holds a comma or a line break",
    "long row": "quote every cell that holds a comma or a line break",
    "blank line": "remove it",
    "NUL byte": "save the file as UTF-8",
    "bytes that are not UTF-8": "save the file as UTF-8",
}


@dataclass(frozen=True, slots=True)
class Record:
    """The asked-for cells of one row, and where it stands."""

    file: Path
    line: int
    """Physical line from 1, or row from 1 in a Parquet file."""
    cells: dict[str, Any]

    @property
    def where(self) -> str:
        """File and line or row, for errors."""
        return place(self.file, self.line)


def table_files(path: Path) -> list[Path]:
    """The files of a table: one file, the Parquet files of a folder, or those of a pattern.

    Raises:
        DataError: If a folder or pattern has none, or a file is of another format.
    """
    files = matching_files(path, (".parquet",))
    for file in files:
        if not file.name.lower().endswith(TABLE_SUFFIXES):
            raise DataError(f"{file} is no {', '.join(TABLE_SUFFIXES)} file; convert it.")
    return files


def names_in(file: Path) -> list[str]:
    """The columns of a table, as it spells them; of JSON lines, the keys of the first object.

    Raises:
        DataError: If the file is missing or faulty, or its first line is no object.
    """
    if is_csv(file):
        return list(read_header(file))
    if not file.is_file():
        raise DataError(f"{file} is not a file; check the path.")
    if file.name.lower().endswith(".parquet"):
        return _parquet_columns(file)
    first = next(read_objects(file, ".jsonl", Rejections(ReadingPolicy()), MAX_CELL_CHARS), None)
    if first is None:
        raise DataError(f"{file} is empty; it needs at least one object.")
    return list(first.cells)


def read_records(
    files: Sequence[Path],
    wanted: Sequence[str],
    rejections: Rejections,
    max_chars: int = MAX_CELL_CHARS,
) -> Iterator[Record]:
    """The rows of some files, one after another; memory holds a few thousand at most.

    Args:
        files: What `table_files` gave.
        wanted: Columns, or keys of the objects; in CSV and Parquet letter case does not matter.
        rejections: Takes the rows that are damaged, and counts all.
        max_chars: Longest cell of a CSV file; bounds the lines of a JSON lines file.

    Yields:
        Records in the order of the files and rows.

    Raises:
        DataError: If a file is missing, faulty or lacks a column, or if `rejections` stops.
    """
    for file in files:
        if is_csv(file):
            yield from _csv_records(file, wanted, rejections, max_chars)
        elif not file.is_file():
            raise DataError(f"{file} is not a file; check the path.")
        elif file.name.lower().endswith(".parquet"):
            yield from parquet_records(file, wanted, rejections)
        else:
            yield from _jsonl_records(file, wanted, rejections, max_chars)


def is_csv(file: Path) -> bool:
    """Whether the name is that of a CSV file."""
    return file.name.lower().endswith((".csv", ".csv.gz"))


def _csv_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    def on_bad_row(line: int, rule: str) -> None:
        rejections.rows_read += 1
        rejections.reject((file, line), Rejected(rule, _CSV_REMEDIES[rule]))

    # In strict mode the reader itself stops, with more detail.
    handler = None if rejections.is_strict else on_bad_row
    for row in read_csv_rows(file, wanted, max_chars, handler):
        rejections.rows_read += 1
        yield Record(file, row.line, dict(zip(wanted, row.cells, strict=True)))


def read_objects(
    file: Path, suffix: str, rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    """The objects of a JSON lines file, each as the cells of a record.

    Args:
        file: A file named `suffix` or `suffix`.gz.
        suffix: Such as ".jsonl".
        rejections: Takes the lines that are no objects, and counts all.
        max_chars: A line may take four bytes for each.

    Raises:
        DataError: If the file is missing or damaged, or if `rejections` stops.
    """
    with open_file(file, suffix) as lines:
        for number, line in numbered_lines(file, lines, 4 * max_chars + 4096):
            rejections.rows_read += 1
            try:
                value = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError):  # both hold the line, so they are not chained
                value = None
            if isinstance(value, dict):
                yield Record(file, number, value)
            else:
                rule = "not a JSON object in UTF-8"
                rejections.reject((file, number), Rejected(rule, "write one object a line"))


def _jsonl_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    for record in read_objects(file, ".jsonl", rejections, max_chars):
        absent = [name for name in wanted if name not in record.cells]
        if absent:
            fault = Rejected(f"no key {absent[0]}", "give it in every line, null if none")
            rejections.reject((file, record.line), fault)
        else:
            cells = {name: record.cells[name] for name in wanted}
            yield Record(file, record.line, cells)


def parquet_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, keep: pl.Expr | None = None
) -> Iterator[Record]:
    """The rows of a Parquet file.

    Args:
        file: The file.
        wanted: Columns, in any letter case.
        rejections: Counts all rows.
        keep: Rows to give, by their wanted columns; the others are left out as "another code".
            All without it.

    Raises:
        DataError: If the file is missing or faulty, or lacks a column.
    """
    by_name = {name.lower(): name for name in _parquet_columns(file)}
    if absent := [name for name in wanted if name.lower() not in by_name]:
        raise DataError(f"{file}: no column {absent[0]}; check the columns of the source.")
    table = pl.scan_parquet(file, glob=False).with_row_index(_ROW, offset=1)
    columns = [pl.col(_ROW), *(pl.col(by_name[name.lower()]).alias(name) for name in wanted)]
    rows, total = _row_numbers(file, table, columns, keep)
    rejections.rows_read += total
    if total > len(rows):
        rejections.leave_out("another code", total - len(rows))
    for start in range(0, len(rows), _PARQUET_ROWS_AT_ONCE):
        some = rows[start : start + _PARQUET_ROWS_AT_ONCE]
        # A slice decodes only its part of the file: less memory than streaming batches take.
        piece = table.slice(some[0] - 1, some[-1] - some[0] + 1).select(columns)
        for cells in _collected(file, piece.filter(_all_or(keep))).iter_rows(named=True):
            yield Record(file, cells.pop(_ROW), cells)


def _row_numbers(
    file: Path, table: pl.LazyFrame, columns: Sequence[pl.Expr], keep: pl.Expr | None
) -> tuple[Sequence[int], int]:
    """The rows to keep, numbered from 1, and the number of all rows."""
    total = int(_collected(file, table.select(pl.len())).item())
    if keep is None:
        return range(1, total + 1), total
    return _collected(file, table.select(columns).filter(keep).select(_ROW))[_ROW].to_list(), total


def _all_or(keep: pl.Expr | None) -> pl.Expr:
    return pl.lit(value=True) if keep is None else keep


def _collected(file: Path, rows: pl.LazyFrame) -> pl.DataFrame:
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, OSError):  # their texts can show cells
        raise _unreadable(file) from None


def _parquet_columns(file: Path) -> list[str]:
    try:
        return list(pl.read_parquet_schema(file))
    except (pl.exceptions.PolarsError, OSError):
        raise _unreadable(file) from None


def _unreadable(file: Path) -> DataError:
    return DataError(f"{file} is not a readable Parquet file; write it again.")
