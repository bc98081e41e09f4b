"""One strict CSV reader: whatever is wrong is an error with its file, line and rule, never a guess.

Every value is a string, so that codes keep their leading zeros. No error shows a cell: a cell may
be a clinical note. It is built on the csv module of the standard library and is the only CSV reader
of notetune, so that no faster one can disagree with it.
"""

import codecs
import csv
import gzip
import io
import operator
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import polars as pl

from notetune.errors import DataError
from notetune.missing_column import MissingColumnError, missing_column, seems_header

MAX_CELL_CHARS = 20_000_000
"""Longest cell accepted by default, in characters; the longest real notes are below 1 million."""

_GZIP_MAGIC = b"\x1f\x8b"
# Deflate reaches 1,032 to 1; notes reach about 5, boilerplate about 50. Small files may do more.
_MAX_EXPANSION: Final = 200
_FREE_BYTES: Final = 64 << 20


class Row(NamedTuple):
    """The asked-for cells of one row, and the physical line on which the row starts (from 1)."""

    line: int
    cells: tuple[str, ...]


class _Fault(NamedTuple):
    """What is wrong with one row, and the way out."""

    rule: str
    """Its short name, one of few, for counts."""
    remedy: str
    detail: str = ""

    def error(self, path: Path, line: int) -> DataError:
        return DataError(f"{path}, line {line}: {self.rule}{self.detail}; {self.remedy}.")


_SEPARATORS: Final = ",;\t|"
_QUOTED: Final = re.compile(r'(?:(?<=^)|(?<=[,;\t|]))"(?:[^"]|"")*"?')

_BLANK = _Fault("blank line", "remove it")
_NOT_UTF8 = _Fault("bytes that are not UTF-8", "save the file as UTF-8")
_TWO_SEPARATORS = _Fault(
    "two marks may be what separates the columns", "quote every name that holds one of ; , | or tab"
)
_NAMES_SEPARATOR = _Fault(
    "it says what separates the columns, which only Excel reads", "remove this line"
)
_NUL = _Fault("NUL byte", "save the file as UTF-8", " (UTF-16, or damage)")
_READER_FAULTS: Final = {
    "unexpected end": _Fault("a quote opens here and never closes", "close or double it"),
    "new-line": _Fault("a lone carriage return outside quotes", "end lines with a line feed"),
    "": _Fault("text follows a closing quote", "double every quote inside a cell"),
}
"""By a part of what the csv module says; its words name delimiters only, never a cell."""


def find_csv(folder: Path, name: str) -> Path | None:
    """The file `name`.csv, or else `name`.csv.gz, of `folder` in any letter case; None without.

    Raises:
        DataError: If the folder is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder that holds {name}.csv[.gz].")
    by_name = {path.name.lower(): path for path in sorted(folder.iterdir())}
    return by_name.get(f"{name}.csv".lower()) or by_name.get(f"{name}.csv.gz".lower())


def require_csv(folder: Path, name: str) -> Path:
    """As `find_csv`, but a missing file is an error too."""
    path = find_csv(folder, name)
    if path is None:
        raise DataError(f"{folder} holds no {name}.csv and no {name}.csv.gz; put the table there.")
    return path


def read_table(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """The asked-for columns of a file, so spelled, as strings, an empty cell as null.

    A column `line` has the line on which each row starts, Int64. Errors as `read_rows`.
    """
    rows = [(line, *cells) for line, cells in read_rows(path, columns)]
    schema = {"line": pl.Int64, **dict.fromkeys(columns, pl.String)}
    cell = pl.col(pl.String)
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.when(cell != "").then(cell))


def read_header(path: Path) -> list[str]:
    """The column names of a file, as it spells them; errors as `read_rows`."""
    with open_file(path, ".csv") as file:
        lines = _decoded_lines(path, file, MAX_CELL_CHARS, None)
        header = _header(path, _raw_rows(path, lines, MAX_CELL_CHARS), [])
        return [name.strip() for name in header]


def read_rows(
    path: Path,
    columns: Sequence[str],
    max_chars: int = MAX_CELL_CHARS,
    on_bad_row: Callable[[int, str, str], None] | None = None,
) -> Iterator[Row]:
    """The rows of a file one after another, each with the asked-for cells only.

    Args:
        path: A .csv or .csv.gz file: UTF-8 (a byte order mark is ignored), with a header row. Its
            separator is the comma, semicolon, tab or bar that stands most often in its first line,
            outside quotes. A quoted cell may hold line breaks; they are kept. Blank lines at the
            end are no rows.
        columns: Those to give, in any letter case, since the same public tables come in both.
        max_chars: Longest cell accepted; it bounds the memory that a damaged file can take.
        on_bad_row: Called with line, rule and remedy for a row that is short, long or blank, or
            that holds a NUL byte or bytes that are not UTF-8; the row is left out. Without it such
            a row is an error. A quote out of place is always one: no row after it can be trusted.

    Raises:
        DataError: With file, physical line and rule: a missing, empty, unreadable, damaged or
            changing file, another encoding, a NUL byte, a missing or repeated column, a row that is
            too short or too long, a quote that does not close, a cell over `max_chars`, no row.
    """
    faults: list[_Fault] = []

    def refuse(line: int, fault: _Fault) -> None:
        if on_bad_row is None:
            raise fault.error(path, line)
        on_bad_row(line, fault.rule, fault.remedy)

    with open_file(path, ".csv") as file:
        lines = _decoded_lines(path, file, max_chars, None if on_bad_row is None else faults)
        rows = _raw_rows(path, lines, max_chars)
        header = _header(path, rows, faults)
        project = _projection(path, header, columns)
        blank: list[int] = []  # lines; those at the end of a file are no rows
        has_rows = False
        for start, row in rows:
            if not row and not faults:
                blank.append(start)
                continue
            for line in blank:
                refuse(line, _BLANK)
            blank.clear()
            has_rows = True
            if len(row) != len(header):
                faults.append(_width_fault(len(row), len(header)))
            if max(map(len, row), default=0) > max_chars:
                raise _long_cell(max_chars).error(path, start)
            if not faults:
                yield Row(start, project(row))
            else:
                refuse(start, faults[0])
                faults.clear()
        if not has_rows:
            raise DataError(f"{path} has a header and no rows; is it the complete file?")


def _raw_rows(path: Path, lines: Iterable[str], max_chars: int) -> Iterator[tuple[int, list[str]]]:
    """Every row, the header too, with the line on which it starts."""
    # The limit is the csv module's only one and is global: it is raised and never lowered, so that
    # readers with different limits can run at once. `read_rows` checks the exact one.
    csv.field_size_limit(max(max_chars, csv.field_size_limit()))
    lines = iter(lines)
    first = list(islice(lines, 1))
    separator = _separator(path, "".join(first))
    reader = csv.reader(chain(first, lines), delimiter=separator, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = str(error)
            if "field larger" in reason:
                raise _long_cell(csv.field_size_limit()).error(path, start) from None
            fault = next(fault for part, fault in _READER_FAULTS.items() if part in reason)
            raise fault.error(path, start) from None
        if row is None:
            return
        yield start, row


def _separator(path: Path, line: str) -> str:
    """The one that stands most often in a header, outside quotes; a comma if none does."""
    if re.fullmatch(r'"?sep=.?"?\s*', line, re.IGNORECASE):
        raise _NAMES_SEPARATOR.error(path, 1)
    outside_quotes = _QUOTED.sub("", line)
    counts = sorted(((outside_quotes.count(mark), mark) for mark in _SEPARATORS), reverse=True)
    (most, separator), (other, _) = counts[:2]
    if most == other and most:
        raise _TWO_SEPARATORS.error(path, 1)
    return separator if most else ","


def _header(
    path: Path, rows: Iterator[tuple[int, list[str]]], faults: Sequence[_Fault]
) -> list[str]:
    for _, header in rows:
        if not header:
            raise _BLANK.error(path, 1)
        if faults:
            raise faults[0].error(path, 1)
        return header
    raise DataError(f"{path} is empty; it needs a header and at least one row.")


def _width_fault(found: int, expected: int) -> _Fault:
    rule = "short row" if found < expected else "long row"
    detail = f": {found} cells where the header has {expected}"
    return _Fault(rule, "quote every cell that holds a separator or a line break", detail)


def _long_cell(max_chars: int) -> _Fault:
    rule = f"a cell over {max_chars:,} characters"
    return _Fault(rule, "look for a quote that does not close, or split the note")


def _projection(
    path: Path, header: list[str], columns: Sequence[str]
) -> Callable[[list[str]], tuple[str, ...]]:
    names = [name.strip().lower() for name in header]
    for second, name in enumerate(names):
        if (first := names.index(name)) < second:
            rule = f"columns {first + 1} and {second + 1} have the same name"
            raise _Fault(rule, "rename one of them").error(path, 1)
    if absent := [name for name in columns if name.strip().lower() not in names]:
        raise _missing(path, header, absent[0], columns)
    positions = [names.index(name.strip().lower()) for name in columns]
    if len(positions) == 1:
        only = positions[0]
        return lambda row: (row[only],)
    return operator.itemgetter(*positions)


def _missing(
    path: Path, header: list[str], wanted: str, columns: Sequence[str]
) -> MissingColumnError:
    is_header = seems_header(header, columns)
    rule = missing_column(wanted, header, is_header=is_header)
    remedy = "name one of these"
    if not is_header:
        remedy = "name one that is there; the first line of the file must name its columns"
    return MissingColumnError(f"{path}, line 1: {rule}; {remedy}.", wanted)


@contextmanager
def open_file(path: Path, suffix: str) -> Iterator[BinaryIO]:
    """A regular file named `suffix` or `suffix`.gz, opened for reading and unpacked if so named.

    Raises:
        DataError: If it is missing, is no regular file, cannot be read, has another name or is not
            packed as its name says; while reading, if it expands like a gzip bomb; at the end, if
            it was changed meanwhile.
    """
    name = path.name.lower()
    if path.is_file() and not name.endswith((suffix, f"{suffix}.gz")):
        raise DataError(f"{path} is neither {suffix} nor {suffix}.gz; rename or convert it.")
    with _open_regular(path) as raw:
        before = os.fstat(raw.fileno())
        magic = raw.read(2)
        raw.seek(0)
        if not name.endswith(".gz"):
            if magic == _GZIP_MAGIC:
                raise DataError(f"{path} is compressed by gzip; name it {path.name}.gz.")
            yield raw
        elif magic and magic != _GZIP_MAGIC:
            raise DataError(f"{path} is not compressed by gzip; name it without .gz.")
        else:
            # Reading lines straight from GzipFile runs in Python; the buffer makes it run in C.
            with io.BufferedReader(_Unzipped(path, raw), 1 << 20) as buffered:
                yield buffered
        after = os.fstat(raw.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError(f"{path} was changed while it was read; read it again.")


def _open_regular(path: Path) -> BinaryIO:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file inside it.")
    if not path.exists():
        raise DataError(f"{path} is missing; check the path.")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; copy its contents into one.")
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its rights.") from None


class _Unzipped(io.RawIOBase):
    """The bytes of a gzip file, up to the expansion that real text can have."""

    def __init__(self, path: Path, packed: BinaryIO) -> None:
        self._path = path
        self._packed = packed
        self._unzipped = gzip.GzipFile(fileobj=packed, mode="rb")
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._unzipped.readinto(buffer)
        self._count += count
        if self._count > _FREE_BYTES and self._count > _MAX_EXPANSION * self._packed.tell():
            raise DataError(
                f"{self._path} expands to over {_MAX_EXPANSION} times its size, which text does "
                "not; is it damaged? Unpack it to read it all the same."
            )
        return count


def numbered_lines(path: Path, file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines of an open file with their numbers from 1, without a byte order mark.

    Raises:
        DataError: If the file is damaged, UTF-16, or has a line over `max_bytes`.
    """
    line = 0
    while True:
        line += 1
        try:
            raw = file.readline(max_bytes)
        except (OSError, EOFError, zlib.error):
            fault = _Fault("the compressed file is damaged or cut", "copy it again")
            raise fault.error(path, line) from None
        if not raw:
            return
        if line == 1:
            if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise _Fault("the file is UTF-16", "save it as UTF-8").error(path, 1)
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw) >= max_bytes and not raw.endswith(b"\n"):
            rule = f"a line over {max_bytes:,} bytes"
            remedy = "look for a missing line break, or split the note"
            raise _Fault(rule, remedy).error(path, line)
        yield line, raw


def _decoded_lines(
    path: Path, file: BinaryIO, max_chars: int, faults: list[_Fault] | None
) -> Iterator[str]:
    """The lines as text; bytes that are none go to `faults`, where there is such a list."""
    max_bytes = 4 * max_chars + 4096  # UTF-8 takes up to 4 bytes; a short margin for other cells
    for line, raw in numbered_lines(path, file, max_bytes):
        fault = _NUL if b"\0" in raw else None
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:  # its object attribute holds the line
            fault = fault or _NOT_UTF8
            text = raw.decode("utf-8", "replace")
        if fault is not None:
            if faults is None or line == 1:
                raise fault.error(path, line)
            faults.append(fault)
        yield text


def csv_text(table: pl.DataFrame) -> str:
    """A table as CSV; text that a spreadsheet would compute gets an apostrophe before it."""
    harmless = pl.col(pl.String).str.replace(r"^([=+\-@\t\r])", "'$1")
    return table.with_columns(harmless).write_csv()
