"""CSV files in the two dialects of MIMIC, written row by row."""

import contextlib
import datetime as dt
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from notetune.hospital.texts import read_yaml
from notetune.hospital.truth import Hospital

CsvValue = str | int | float | dt.datetime | dt.date | None


@dataclass(frozen=True)
class Records:
    """What one part keeps of its patients.

    Attributes:
        tables: Name of each table -> its columns, parted by spaces.
        person: What may stand in each cell about the person, most likely ones several times.
        elective: The type of a planned admission, and `urgent` those of the others.
    """

    tables: dict[str, str]
    units: dict[str, str]
    person: tuple[tuple[str | None, ...], ...]
    elective: str
    urgent: tuple[str, ...]


RECORDS: dict[str, Records] = {
    hospital: Records(**values) for hospital, values in read_yaml("tables.yaml").items()
}


class CsvTable:
    """A CSV file with a header and numbered rows.

    MIMIC-III: plain, upper-case header, strings always in quotes; a first column ROW_ID is filled
    by itself. MIMIC-IV: gzip, lower-case header, quotes only where needed. Both: UTF-8, LF, empty
    for null, quotes doubled.
    """

    def __init__(self, path: Path, columns: Sequence[str], dialect: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._raw = path.open("wb")
        self._file: IO[bytes] = self._raw
        if dialect == 4:
            # No file name and no time in the gzip header: the bytes depend on the rows alone.
            self._file = gzip.GzipFile("", "wb", compresslevel=6, fileobj=self._raw, mtime=0)  # type: ignore[assignment]
        self._quotes_all, self._is_numbered = dialect == 3, columns[0] == "ROW_ID"
        self._width, self._rows = len(columns), 0
        self._write([name.upper() if dialect == 3 else name.lower() for name in columns])

    def append(self, *cells: CsvValue) -> int:
        """Write one row and return its number, counted from 1."""
        self._rows += 1
        if self._is_numbered:
            cells = (self._rows, *cells)
        assert len(cells) == self._width, f"{len(cells)} cells for {self._width} columns"
        self._write(cells)
        return self._rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._raw.close()

    def _write(self, cells: Sequence[CsvValue]) -> None:
        self._file.write(f"{','.join(map(self._cell, cells))}\n".encode())

    def _cell(self, cell: CsvValue) -> str:
        match cell:
            case None:
                return ""
            case str() if self._quotes_all or any(mark in cell for mark in ',"\n\r'):
                return '"' + cell.replace('"', '""') + '"'
            case dt.datetime():
                return cell.strftime("%Y-%m-%d %H:%M:%S")
            case float():
                return f"{cell:.4f}"
        return str(cell)


Tables = dict[str, CsvTable]


@contextlib.contextmanager
def open_tables(folder: Path, hospital: Hospital) -> Iterator[Tables]:
    """All tables of one part, open."""
    ending, dialect = (".csv", 3) if hospital == "mimic3" else (".csv.gz", 4)
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(CsvTable(folder / (name + ending), names.split(), dialect))
            for name, names in RECORDS[hospital].tables.items()
        }
