"""What the columns of a table hold, by its first rows; nothing of a note's text leaves here."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from notetune.errors import ConfigError, DataError
from notetune.missing_column import MOST_NAME_CHARS, are_names, nearest
from notetune.notes.icd import has_form
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import is_csv, names_in, read_objects, read_records, table_files
from notetune.sources.tables.records import NO_BREAK, Record
from notetune.sources.tables.times import is_slashed
from notetune.strict_csv import MAX_CELL_CHARS

ROWS_READ: Final = 20_000
MOST_LEVELS: Final = 100
ARRAYS: Final = "arrays in braces"
_MOST_LEVEL_CHARS: Final = 40
_SEPARATORS: Final = ";|,"
_MISSING: Final = frozenset(ReadingPolicy().missing)
_VERSIONS: Final = ("9", "10")
_NO_NAMES: Final = ("yes", "true", "false", "ja", "nein")
"""Cells that name no column, as `no`, `y` and `t` may."""


@dataclass
class Column:
    """A column, by the cells that were read.

    Attributes:
        name: As the file spells it.
        rows: Rows that have it; an object of JSON lines may not.
        filled: Cells that are not empty.
        whole: Cells that are digits alone.
        words: Cells that hold a space or no digit, unlike most ids.
        braced: Cells such as {I10,E11}, as Postgres prints arrays.
        missing: Cells that are a word for nothing known, such as NULL, by word.
        separated: Cells that hold a separator, by separator.
        slashed: Times with slashes that can be read so, by whether the day stands first.
        diagnoses: Cells that have the form of an ICD diagnosis, by version, "9" or "10".
        levels: Different values and how many cells have each, up to `MOST_LEVELS` short ones; None
            where there are more, or longer ones.
    """

    name: str
    rows: int = 0
    filled: int = 0
    chars: int = 0
    numbers: int = 0
    whole: int = 0
    words: int = 0
    times: int = 0
    bracketed: int = 0
    braced: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    separated: Counter[str] = field(default_factory=Counter)
    slashed: Counter[bool] = field(default_factory=Counter)
    diagnoses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_VERSIONS, 0))
    levels: dict[str, int] | None = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set, repr=False)

    def add(self, record: Record) -> None:
        """Take the cell of another row into account."""
        self.rows += 1
        cell = record.cells[self.name]
        if isinstance(cell, bool) or (isinstance(cell, float) and cell.is_integer()):
            cell = int(cell)  # as labels are read
        text = "" if cell is None or cell != cell else str(cell).strip()  # NaN is unlike itself
        text = unicodedata.normalize("NFC", text.translate(NO_BREAK)).strip()
        if text in _MISSING:
            self.missing[text] += 1
        if not text or text in _MISSING:
            return
        self.filled += 1
        if text.startswith("[") and text.endswith("]"):  # one, or printed like one
            self.bracketed += 1
            self.levels = None
            return
        self.chars += len(text)
        self._seen.add(hash(text))
        self.numbers += _is_number(text)
        self.whole += text.isdecimal()
        self.words += len(text.split(None, 1)) > 1 or not any(map(str.isdecimal, text))
        self.braced += re.fullmatch(r"\{[^:{}\\]*\}", text) is not None
        self.times += self._is_time(record)
        for day_first in (True, False) if is_slashed(text) else ():
            self.slashed[day_first] += self._is_time(replace(record, day_first=day_first))
        for mark in _SEPARATORS:
            self.separated[mark] += mark in text
        for version in _VERSIONS:
            self.diagnoses[version] += has_form(text, "diagnoses", version)
        self._count_level(text)

    def found_in(self, other: "Column") -> tuple[int, int]:
        """How many different values another column has too, and how many there are."""
        return len(self._seen & other._seen), len(self._seen)

    def names_itself(self, rows: int) -> bool:
        """Whether its name is one of its values too, in more than a box that is ticked."""
        is_box = len(self._seen) == 1 and self.filled < rows
        return hash(self.name.strip()) in self._seen and not is_box

    def _is_time(self, record: Record) -> bool:
        try:
            return record.time(self.name) is not None
        except Rejected:
            return False

    @property
    def day_first(self) -> bool | None:
        """How its times with slashes are read; None where there are none, or both ways are open."""
        if self.slashed[True] == self.slashed[False]:
            return None
        return self.slashed[True] > self.slashed[False]

    @property
    def are_times(self) -> bool:
        """Whether all its cells are times."""
        return self.filled == self.times + max(self.slashed.values(), default=0)

    @property
    def are_sure_times(self) -> bool:
        """Whether they are, and can be read in one way alone."""
        return self.are_times and (not self.slashed or self.day_first is not None)

    def _count_level(self, text: str) -> None:
        if self.levels is not None:
            self.levels[text] = self.levels.get(text, 0) + 1
            if len(self.levels) > MOST_LEVELS or len(text) > _MOST_LEVEL_CHARS:
                self.levels = None

    @property
    def are_lists(self) -> bool:
        """Whether its cells are lists; some of another column may stand in brackets: [REDACTED]."""
        return 0 < self.filled <= 2 * self.bracketed

    @property
    def distinct(self) -> int:
        """How many different values its cells have, lists aside."""
        return len(self._seen)

    @property
    def is_unique(self) -> bool:
        """Whether no two cells are alike; lists are not looked at, so they never are."""
        return self.distinct == self.filled

    @property
    def mean_chars(self) -> float:
        """Characters of a cell that is not empty."""
        return self.chars / max(1, self.filled)

    @property
    def separator(self) -> str | None:
        """What stands between the values of at least a tenth of the cells, if anything."""
        mark = max(_SEPARATORS, key=lambda mark: self.separated[mark])
        return mark if self.separated[mark] > 0.1 * self.filled else None

    @property
    def joins_labels(self) -> bool:
        """Whether the levels are labels with a separator between: each is in several, or a code."""
        mark = self.separator
        if not mark or not self.levels:
            return False
        labels_of = [{label.strip() for label in level.split(mark)} for level in self.levels]
        count = Counter(label for labels in labels_of for label in labels if label)
        joined = {label for labels in labels_of if len(labels) > 1 for label in labels if label}
        are_coded = all(has_form(label, "diagnoses", "10") for label in joined)
        is_decimal = mark == "," and all(map(_is_number, joined))
        repeated = sum(count[label] > 1 for label in joined)
        return bool(joined) and not is_decimal and (are_coded or 2 * repeated > len(joined))

    @property
    def holds(self) -> str:
        """What it holds in a word or two."""
        if not self.filled:
            return "nothing"
        if self.are_lists:
            return "lists"
        if self.braced == self.filled:
            return ARRAYS
        if self.are_times:
            return "times"
        if self.levels is not None and not self.is_unique:
            return f"{len(self.levels)} values"
        if self.numbers == self.filled:
            return "numbers"
        return "text"


@dataclass(frozen=True)
class Survey:
    """A table by its first rows.

    Attributes:
        rows: How many were read.
        columns: Those with a name that can be shown.
        unread: The names of the others.
        damaged: How many rows among those were left out.
    """

    rows: int
    columns: tuple[Column, ...]
    unread: tuple[str, ...] = ()
    damaged: int = 0

    def column(self, name: str) -> Column:
        """The column of a name.

        Raises:
            ConfigError: If there is none, with the nearest, or it is not read.
        """
        known = {one.name: one for one in self.columns}
        if name in self.unread:
            raise ConfigError(
                f"the name of column {name[:MOST_NAME_CHARS]!r} has {len(name)} characters; a name "
                f"has 1 to {MOST_NAME_CHARS}, all printable: rename the column."
            )
        if name not in known:
            near = nearest(name, list(known))
            hint = f" Did you mean {near}?" if near else ""
            raise ConfigError(
                f"there is no column {name}; the columns are {', '.join(known)}.{hint}"
            )
        return known[name]


def survey(path: Path) -> Survey:
    """Look at the first `ROWS_READ` rows of a table, in any format that a recipe may name.

    Raises:
        DataError: If it is missing, faulty, of another format, or a CSV file without a header.
    """
    files = table_files(path)
    names = names_in(files[0])
    columns = {name: Column(name) for name in names if name.strip()}
    if not columns:
        raise DataError(f"{files[0]} names no column; give each column a name.")
    rejections = Rejections(ReadingPolicy(policy="quarantine", max_rejected_share=1, missing=()))
    rows = 0
    for record in islice(_rows(files, list(columns), rejections), ROWS_READ):
        rows += 1
        for name in filter(str.strip, record.cells):
            columns.setdefault(name, Column(name)).add(record)
    if is_csv(files[0]) and _are_cells(list(columns.values()), rows):
        raise DataError(
            f"{files[0]}, line 1: these seem to be cells: numbers, times, answers, a long text, or "
            "what rows below hold too; give one first line of names, with a letter in each."
        )
    # Keys of few objects may be cells, which are not shown.
    usual = [one for one in columns.values() if one.name in names or 10 * one.rows >= rows]
    shown = tuple(column for column in usual if are_names([column.name]))
    known = {column.name for column in shown}
    unread = tuple(name for name in {**dict.fromkeys(names), **columns} if name not in known)
    return Survey(rows, shown, unread, sum(rejections.counts().values()))


def _rows(files: Sequence[Path], names: Sequence[str], rejections: Rejections) -> Iterator[Record]:
    """The rows of some files; an object of JSON lines has the keys that it has, not all `names`."""
    for file in files:
        if not file.name.lower().endswith((".jsonl", ".jsonl.gz")):
            yield from read_records([file], names, rejections)
        else:
            yield from read_objects(file, ".jsonl", rejections, MAX_CELL_CHARS)


def _are_cells(columns: Sequence[Column], rows: int) -> bool:
    """Whether the first line of a CSV file is a row, so that no name of a column may be shown."""
    numbers = [one for one in columns if re.fullmatch(r"[\W_]*\d[\W\d_]*", one.name)]  # 18-64
    return (
        2 * len(numbers) >= len(columns)
        or any(column.names_itself(rows) for column in numbers)
        or sum(column.names_itself(rows) for column in columns) > 1
        or any(_is_cell(column) for column in columns)
    )


def _is_cell(column: Column) -> bool:
    """Whether the name of a column is an answer, a time, or long where the cells are too."""
    name = column.name.strip().lower()
    is_time = re.search(r"\d{4}-\d\d-\d\d|\d:\d\d", name)
    is_long = min(len(name), column.mean_chars) > MOST_NAME_CHARS
    return name in _NO_NAMES or bool(is_time) or is_long


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
