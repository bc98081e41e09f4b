"""A table as a value, rendered the same way in HTML and in Markdown."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from notetune.metrics.bootstrap import Estimate
from notetune.report.numbers import NOT_AVAILABLE, count, interval, number

# What begins a tag, emphasis, code or the place that a link leads to.
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|[*`]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller detail under it, and how it sorts and looks."""

    text: str
    detail: str = ""
    sort: float | None = None
    is_strong: bool = False

    @property
    def plain(self) -> str:
        """Text and detail on one line."""
        return f"{self.text} {self.detail}".strip()


Value: TypeAlias = Cell | str | int | float | None
NOT_RUN = Cell(NOT_AVAILABLE, "(not run)")


@dataclass(frozen=True)
class Table:
    """A table; the first `text_columns` columns hold words, the others numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    notes: tuple[str, ...] = ()
    is_sortable: bool = False
    is_collapsed: bool = False
    kind: str = "table"


def in_cells(rows: Iterable[Iterable[Value]]) -> tuple[tuple[Cell, ...], ...]:
    """Rows of values as cells: a whole number is a count, another one has three decimals."""
    return tuple(tuple(map(_cell, row)) for row in rows)


def _cell(value: Value) -> Cell:
    match value:
        case Cell():
            return value
        case str():
            return Cell(value)
        case int():
            return Cell(count(value), sort=value)
    return number_cell(value)


def number_cell(value: float | None, digits: int = 3) -> Cell:
    """A number that sorts as one, or n/a."""
    return Cell(number(value, digits), sort=value)


def estimate_cell(
    estimate: Estimate | None, reason: str | None = None, form: Callable[[float], str] = number
) -> Cell:
    """A value with its interval, or n/a with the reason."""
    if estimate is None:
        return Cell(NOT_AVAILABLE, f"({reason})" if reason else "")
    return Cell(form(estimate.value), interval(estimate, form), estimate.value)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no cell border, no line break."""
    one_line = " ".join(text.split("\n")).replace("\\", "\\\\").replace("|", "\\|")
    return _MARKUP.sub(r"\\\g<0>", one_line)


def markdown(table: Table) -> str:
    """The table as a Markdown pipe table with its caption and notes."""
    dashes = ["---" if i < table.text_columns else "---:" for i in range(len(table.columns))]
    rows = [[markdown_text(column) for column in table.columns], dashes]
    rows += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"*{markdown_text(table.caption)}*", "", *lines, "", *table.notes]).rstrip()


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.plain)
    return f"**{text}**" if cell.is_strong else text
