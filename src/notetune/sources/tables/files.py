"""Rows of CSV, JSON lines and Parquet files, one at a time, whatever the format."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from notetune.config import Config
from notetune.errors import DataError
from notetune.missing_column import MissingColumnError, missing_column
from notetune.sources.paths import matching_files
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.parquet import parquet_columns, parquet_records
from notetune.sources.tables.records import Record
from notetune.strict_csv import MAX_CELL_CHARS, numbered_lines, open_file, read_header
from notetune.strict_csv import read_rows as read_csv_rows

TABLE_SUFFIXES: Final = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")


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
        return list(parquet_columns(file).values())
    lenient = ReadingPolicy(policy="quarantine", max_rejected_share=1)
    for policy in (lenient, ReadingPolicy()):  # damaged lines stop where there is nothing else
        objects = read_objects(file, ".jsonl", Rejections(policy), MAX_CELL_CHARS)
        if (first := next(objects, None)) is not None:
            return list(first.cells)
    raise DataError(f"{file} is empty; it needs at least one object.")


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
    for file in files:
        if is_csv(file):
            records = _csv_records(file, wanted, rejections, max_chars)
        elif not file.is_file():
            raise DataError(f"{file} is not a file; check the path.")
        elif file.name.lower().endswith(".parquet"):
            records = parquet_records(file, wanted, rejections)
        else:
            records = _jsonl_records(file, wanted, rejections, max_chars)
        for record in records:
            yield record.read_by(rejections.policy)


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
