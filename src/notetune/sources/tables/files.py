"""Rows of CSV, JSON lines and Parquet files, one at a time, whatever the format."""

import json
import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from notetune.config import MAX_SHOWN_CHARS, Config
from notetune.errors import DataError
from notetune.missing_column import MissingColumnError, missing_column
from notetune.sources.paths import matching_files
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections, place
from notetune.sources.tables.times import time_of
from notetune.strict_csv import MAX_CELL_CHARS, numbered_lines, open_file, read_header
from notetune.strict_csv import read_rows as read_csv_rows

TABLE_SUFFIXES: Final = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
# Ids appear in messages and reports: a wrongly named column must not put text there.
_MAX_ID_CHARS: Final = 200
_PARQUET_ROWS_AT_ONCE: Final = 5_000
_ROUNDED: Final = re.compile(r"\d([.,]\d+)?[Ee]\+\d+")
NO_BREAK: Final = str.maketrans(dict.fromkeys("\u00a0\u2007\u202f", " "))
_ROW: Final = "\0row"  # no column of a file has this name


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

    @property
    def where(self) -> str:
        """File and line or row, for errors."""
        return place(self.file, self.line)

    def without(self, missing: Collection[str]) -> Self:
        """The same record, a cell None where it is one of some words for nothing known, or NaN."""
        longest = 2 * max(map(len, missing), default=0)  # no text is stripped to see what it is
        for name, cell in self.cells.items():
            is_short = isinstance(cell, str) and len(cell) <= longest
            if (is_short and cell.strip() in missing) or cell != cell:  # NaN is unlike itself
                self.cells[name] = None
        return self

    def text(self, column: str) -> str:
        """A cell as `text_of` gives it."""
        return self.text_of(column, self.cells[column])

    def text_of(self, column: str, value: Any) -> str:
        """An id or label in one form, without space around it; "" where it is missing.

        Raises:
            Rejected: If it holds control characters or halves of characters.
            DataError: If it is a decimal number or a structure.
        """
        match value:
            case None:
                return ""
            case str():
                text = unicodedata.normalize("NFC", value.translate(NO_BREAK).strip())
            case int():
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
                value = time_of(value.strip())
            if isinstance(value, datetime):
                return value.astimezone(UTC) if value.tzinfo else value
        except (ValueError, OverflowError):  # of a zone at the first or last hour of all years
            value = None
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day)  # noqa: DTZ001 (none has a zone)
        raise Rejected("unreadable time", f"write times as 2164-10-23 21:09:00 in column {column}")


def table_files(path: Path) -> list[Path]:
    """The files of a table: one file, the Parquet files of a folder, or those of a pattern.

    Raises:
        DataError: If a folder or pattern has none, or a file is of another format.
    """
    files = matching_files(path, (".parquet",))
    for file in files:
        if file.exists() and not file.name.lower().endswith(TABLE_SUFFIXES):
            raise DataError(f"{file} is no {', '.join(TABLE_SUFFIXES)} file; convert it.")
    return files


def names_in(file: Path) -> list[str]:
    """The columns of a table, as it spells them; of JSON lines, the keys of the first object.

    Raises:
        DataError: If the file is missing or faulty, or its first line is no object.
    """
    if is_csv(file):
        return read_header(file)
    if not file.is_file():
        raise DataError(f"{file} is not a file; check the path.")
    if file.name.lower().endswith(".parquet"):
        return list(_parquet_columns(file).values())
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
        rejections: Takes the rows that are damaged, counts all, and knows what a cell holds where
            nothing is known: such a cell is None.
        max_chars: Longest cell; a line of JSON may take four bytes for each.

    Raises:
        DataError: If a file is missing, faulty or lacks a column, or if `rejections` stops.
    """
    missing = rejections.missing
    for file in files:
        for record in _records(file, wanted, rejections, max_chars):
            yield record.without(missing)


def _records(
    file: Path, wanted: Sequence[str], rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    if is_csv(file):
        return _csv_records(file, wanted, rejections, max_chars)
    if not file.is_file():
        raise DataError(f"{file} is not a file; check the path.")
    if file.name.lower().endswith(".parquet"):
        return parquet_records(file, wanted, rejections)
    return _jsonl_records(file, wanted, rejections, max_chars)


def is_csv(file: Path) -> bool:
    """Whether a file is CSV, by its name."""
    return file.name.lower().endswith((".csv", ".csv.gz"))


def _csv_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    def on_bad_row(line: int, rule: str, remedy: str) -> None:
        rejections.rows_read += 1
        rejections.reject(file, line, Rejected(rule, remedy))

    # In strict mode the reader itself stops, with more detail.
    handler = None if rejections.is_strict else on_bad_row
    for row in read_csv_rows(file, wanted, max_chars, handler):
        rejections.rows_read += 1
        yield Record(file, row.line, dict(zip(wanted, row.cells, strict=True)))


@contextmanager
def of_recipe(sections: Mapping[str, Config]) -> Iterator[None]:
    """Name the key of the recipe, in one of some sections by their places, that asks for a column.

    Raises:
        MissingColumnError: In place of one without the key.
    """
    try:
        yield
    except MissingColumnError as error:
        keys = [
            f"{place}.{name}"
            for place, section in sections.items()
            for name, value in section
            if name not in ("name", "kind") and _asks_for(error.column, value)
        ]
        if not keys:
            raise
        raise MissingColumnError(f"{keys[0]}: {error}", error.column) from None


def _asks_for(column: str, value: Any) -> bool:
    return column in value if isinstance(value, tuple | dict) else column == value


def read_objects(
    file: Path, suffix: str, rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    """The objects of a file of JSON lines named `suffix`[.gz], each as the cells of a record.

    Raises:
        DataError: If the file is missing or damaged, or if `rejections` stops.
    """
    with open_file(file, suffix) as lines:
        for number, line in numbered_lines(file, lines, 4 * max_chars + 4096):
            yield from object_in(file, number, line, rejections)


def json_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in some bytes; None if there is none."""
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # both hold the text, so they are not chained
        return None
    return value if isinstance(value, dict) else None


def object_in(file: Path, line: int, raw: bytes, rejections: Rejections) -> Iterator[Record]:
    """The JSON object in some bytes as a record; if there is none, the row is rejected.

    Raises:
        DataError: If `rejections` stops.
    """
    rejections.rows_read += 1
    if (value := json_object(raw)) is not None:
        yield Record(file, line, value)
    else:
        fault = Rejected("not a JSON object in UTF-8", "write one object a line")
        rejections.reject(file, line, fault)


def _jsonl_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, max_chars: int
) -> Iterator[Record]:
    for record in read_objects(file, ".jsonl", rejections, max_chars):
        if absent := [name for name in wanted if name not in record.cells]:
            remedy = "give it in every line, null if none"
            if rejections.is_strict:  # otherwise nobody reads it, and there may be many
                remedy += f" ({missing_column(absent[0], list(record.cells))})"
            rejections.reject(file, record.line, Rejected(f"no key {absent[0]}", remedy))
        else:
            yield Record(file, record.line, {name: record.cells[name] for name in wanted})


def parquet_records(
    file: Path, wanted: Sequence[str], rejections: Rejections, keep: pl.Expr | None = None
) -> Iterator[Record]:
    """The rows of a Parquet file, all or those to `keep`; others are left out as "another code".

    Raises:
        DataError: If the file is missing or faulty, or lacks a column.
    """
    by_name = _parquet_columns(file)
    if absent := [name for name in wanted if name.lower() not in by_name]:
        said = missing_column(absent[0], list(by_name.values()))
        raise MissingColumnError(f"{file}: {said}; name one of these.", absent[0])
    table = pl.scan_parquet(file, glob=False).with_row_index(_ROW, offset=1)
    is_kept = pl.lit(value=True) if keep is None else keep
    with _readable(file), _panics_unsaid():
        columns = [pl.col(_ROW), *_cells(table, {name: by_name[name.lower()] for name in wanted})]
        total = int(table.select(pl.len()).collect().item())
        rows: Sequence[int] = range(1, total + 1)
        if keep is not None:
            rows = table.select(columns).filter(keep).select(_ROW).collect()[_ROW].to_list()
    rejections.rows_read += total
    if total > len(rows):
        rejections.leave_out("another code", total - len(rows))
    for start in range(0, len(rows), _PARQUET_ROWS_AT_ONCE):
        some = rows[start : start + _PARQUET_ROWS_AT_ONCE]
        # A slice decodes only its part of the file: less memory than streaming batches take.
        piece = table.slice(some[0] - 1, some[-1] - some[0] + 1).select(columns)
        with _readable(file), _panics_unsaid():
            found = piece.filter(is_kept).collect()
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


def _parquet_columns(file: Path) -> dict[str, str]:
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
