"""CSV files in the two dialects of MIMIC, written row by row."""

import datetime as dt
import gzip
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

CsvValue = str | int | float | dt.datetime | dt.date | None


class CsvTable:
    """A CSV file with a header and numbered rows.

    MIMIC-III: plain, upper-case header, strings always in quotes. MIMIC-IV: gzip, lower-case
    header, quotes only where needed. Both: UTF-8, LF, empty for null, quotes doubled.
    """

    def __init__(self, path: Path, columns: Sequence[str], dialect: Literal[3, 4]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._raw = path.open("wb")
        self._file: IO[bytes] = self._raw
        if dialect == 4:
            # No file name and no time in the gzip header: the bytes depend on the rows alone.
            self._file = gzip.GzipFile("", "wb", compresslevel=6, fileobj=self._raw, mtime=0)  # type: ignore[assignment]
        self._cell = _quoted_cell if dialect == 3 else _plain_cell
        self._width = len(columns)
        self.rows = 0
        self._write([name.upper() if dialect == 3 else name.lower() for name in columns])

    def append(self, *cells: CsvValue) -> int:
        """Write one row and return its number, counted from 1."""
        assert len(cells) == self._width, f"{len(cells)} cells for {self._width} columns"
        self._write(cells)
        self.rows += 1
        return self.rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._raw.close()

    def _write(self, cells: Sequence[CsvValue]) -> None:
        line = ",".join(self._cell(cell) for cell in cells)
        self._file.write(f"{line}\n".encode())


def _quoted_cell(cell: CsvValue) -> str:
    if isinstance(cell, str):
        return '"' + cell.replace('"', '""') + '"'
    return _bare(cell)


def _plain_cell(cell: CsvValue) -> str:
    if isinstance(cell, str) and any(mark in cell for mark in ',"\n\r'):
        return '"' + cell.replace('"', '""') + '"'
    return cell if isinstance(cell, str) else _bare(cell)


def _bare(cell: CsvValue) -> str:
    if cell is None:
        return ""
    if isinstance(cell, dt.datetime):
        return cell.strftime("%Y-%m-%d %H:%M:%S")
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)
