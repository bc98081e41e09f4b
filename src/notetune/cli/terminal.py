"""What a person sees and asks: progress, tables, one-line errors, SIGTERM. Never note text."""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from notetune.errors import RunWarning, Stopped

if TYPE_CHECKING:
    from notetune.report.table import Table as ReportTable

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 15
_GAP = 3  # between two columns of a table
_WIDTH_OF_A_FILE = 140  # rich would take 80, too narrow for its tables

# Names and paths of a user's may hold what rich would take for a style or an emoji.
_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
out = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, **_AS_IT_IS)
err = Console(stderr=True, **_AS_IT_IS)


def track(
    label: str, steps: Iterable[T], total: int, describe: Callable[[T], str], done: int = 0
) -> Iterator[T]:
    """Show progress on standard error: a bar on a terminal, a line now and then elsewhere."""
    if err.is_terminal:
        yield from _with_bar(label, steps, total, describe, done)
    else:
        yield from _with_lines(label, steps, total, describe, done)


def say(message: str) -> None:
    """A line of progress on standard error."""
    with suppress(OSError):  # a log on a full disk stops no training
        err.print(_printable(message), style="dim", soft_wrap=True)


def tell(message: str) -> None:
    """Lines of text on standard output."""
    out.print(_printable(message), soft_wrap=True)


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of numbers on standard output, its first column left and the others right."""
    _show(title, columns, rows, "right")


def show_report_table(table: "ReportTable") -> None:
    """A table of the report, with its marks, digits and notes."""
    rows = [[f"{cell.text}\n{cell.detail}".strip() for cell in row] for row in table.rows]
    _show(table.caption, table.columns, rows, "right", table.text_columns)
    for note in table.notes:
        tell(note)


def show_texts(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of texts on standard output, all columns left."""
    _show(title, columns, rows, "left")


def _show(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    justify: Literal["left", "right"],
    lefts: int = 1,
) -> None:
    texts = [[_printable(text) for text in row] for row in (columns, *rows)]
    widths = _widths(list(zip(*texts, strict=True)), out.width)
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for number, width in enumerate(widths):
        side: Literal["left", "right"] = "left" if number < lefts else justify
        table.add_column(texts[0][number], justify=side, width=width)
    for row in texts[1:]:
        table.add_row(*row[: len(widths)])
    out.print(table)
    if left_out := texts[0][len(widths) :]:
        tell(f"{out.width} characters have no room for: {', '.join(left_out)}.")


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Of as many columns as there is room for with nothing cut within a word.

    The first never breaks; the others have what else is left, whoever lacks most.
    """
    lines = [max(map(cell_len, "\n".join(cells).split("\n"))) for cells in columns]
    words = [max(map(cell_len, " ".join(cells).split()), default=1) for cells in columns]
    widths = [lines[0]]
    for word in words[1:]:
        if sum(widths) + word + _GAP * (len(widths) + 1) > room:
            break
        widths.append(word)
    for _ in range(room - sum(widths) - _GAP * len(widths)):
        lacking = [line - width for line, width in zip(lines, widths, strict=False)]
        if max(lacking) > 0:
            widths[lacking.index(max(lacking))] += 1
    return widths


def show_warnings() -> None:
    """From now on show each of our warnings as one line on standard error."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where its cache is
    shown_by_python = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, RunWarning):
            _marked("warning:", "yellow", str(message))
        else:
            shown_by_python(message, category, *args, **kwargs)

    warnings.showwarning = show
    warnings.simplefilter("always", RunWarning)


def flush() -> None:
    """Write out what was shown; what cannot be is left, so that Python does not try again.

    Raises:
        OSError: If it cannot all be written.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise


@contextmanager
def sigterm_raised() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that nothing half-written stays; again: kill."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(message: str) -> None:
    """A one-line error on standard error."""
    _marked("error:", "bold red", " ".join(message.split()))


def _marked(mark: str, style: str, message: str) -> None:
    with suppress(OSError):
        err.print(Text.assemble((mark, style), " ", _printable(message)), soft_wrap=True)


def report_bug(error: BaseException) -> None:
    """Where an unexpected error happened. Its message is left out: it could quote a note."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-6:]]
    fail(
        f"unexpected {type(error).__name__} at {' > '.join(places)}. This is a bug of notetune; "
        "please report this line. (The error's own text is not shown: it could hold note text.)"
    )


def _with_bar(
    label: str, steps: Iterable[T], total: int, describe: Callable[[T], str], done: int
) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False),
    )
    with Progress(*columns, console=err) as progress:
        bar = progress.add_task(label, total=total, completed=done, figures="")
        for step in steps:
            progress.update(bar, advance=1, figures=describe(step))
            yield step


def _with_lines(
    label: str, steps: Iterable[T], total: int, describe: Callable[[T], str], done: int
) -> Iterator[T]:
    say(f"{label} {done}/{total}")
    started = last_line = time.monotonic()
    for number, step in enumerate(steps, start=done + 1):
        now = time.monotonic()
        if number == total or now - last_line > _SECONDS_BETWEEN_LINES:
            left = (now - started) / (number - done) * (total - number)
            say(f"{label} {number}/{total} · {describe(step)} · {left:,.0f} s left")
            last_line = now
        yield step


def _printable(text: str) -> str:
    """Text in which nothing but a line break moves the cursor or changes a colour."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
