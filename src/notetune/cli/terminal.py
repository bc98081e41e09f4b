"""What a person sees and asks: progress, tables, one-line errors, SIGTERM. Never note text."""

import logging
import select
import signal
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from notetune import storage
from notetune.errors import RunWarning, Stopped

if TYPE_CHECKING:
    from notetune.report.table import Table as ReportTable

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 15
_WIDTH_OF_A_BAR = 24
_TIMES = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
_SHORT = 14  # an interval such as [0.123, 0.456]
_STDOUT = 1
_GAP = 3  # between two columns of a table
_WIDTH_OF_A_FILE = 140  # rich would take 80, too narrow for its tables

# Names and paths of a user's may hold what rich would take for a style or an emoji.
_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


class _Console(Console):
    """One that leaves it to the caller what a closed output means; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Go on with the error that is being handled."""
        raise BrokenPipeError


out = _Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, **_AS_IT_IS)
err = _Console(stderr=True, **_AS_IT_IS)


def track(
    label: str, steps: Iterable[T], total: int, describe: Callable[[T], str], done: int = 0
) -> Iterator[T]:
    """Show progress on standard error: a bar on a terminal, a line now and then elsewhere."""
    return (_with_bar if err.is_terminal else _with_lines)(label, steps, total, describe, done)


def busy(what: str = "loading PyTorch and other libraries") -> AbstractContextManager[object]:
    """Say on a terminal what takes a while and has no steps, as long as it lasts."""
    return err.status(what)


def say(message: str) -> None:
    """A line of progress on standard error."""
    with suppress(OSError):  # a log on a full disk stops no training
        _print(err, message, "dim")


def tell(message: str) -> None:
    """Lines of text on standard output."""
    _print(out, message)


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(storage.json_text(value))


def show_report_table(table: "ReportTable") -> None:
    """A table of the report, with its marks, digits and notes."""
    rows = [[f"{cell.text}\n{cell.detail}".strip() for cell in row] for row in table.rows]
    show_table(table.caption, table.columns, rows, table.text_columns)
    for note in table.notes:
        tell(note)


def show_entries(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts or, where it has no room for its last column, that under each row."""
    if len(_widths(list(zip(columns, *rows, strict=True)), out.width)) == len(columns):
        return show_table(title, columns, rows, len(columns))
    _print(out, title, "bold")
    for *cells, last in rows:
        tell("   ".join(filter(None, cells)) + (f"\n    {last}" if last else ""))
    return None


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], lefts: int = 1
) -> None:
    """A table whose first columns are left and the others right; empty columns are left out."""
    cells = zip(columns, *rows, strict=True)
    filled = [column for column in cells if len(column) == 1 or any(column[1:])]
    texts = [[_printable(text) for text in row] for row in zip(*filled, strict=True)]
    widths = _widths(list(zip(*texts, strict=True)), out.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, width in enumerate(widths):
        is_left = number < lefts
        table.add_column(texts[0][number], justify="left" if is_left else "right", width=width)
    for row in texts[1:]:
        table.add_row(*row[: len(widths)])
    _print(out, title, "bold")
    out.print(table)
    if left_out := texts[0][len(widths) :]:
        tell(f"{out.width} characters have no room for: {', '.join(left_out)}.")


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Of as many columns as there is room for with nothing cut within a word.

    The first never breaks; the others have what else is left, whoever lacks most.
    """
    lines = [max(map(cell_len, "\n".join(cells).split("\n"))) for cells in columns]
    words = [max(map(cell_len, _whole(cells)), default=1) for cells in columns]
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


def _whole(cells: Sequence[str]) -> list[str]:
    """What is not broken: words, and in cells also short lines, such as a figure with its unit."""
    lines = "\n".join(cells[1:]).split("\n")
    longer = [line for line in lines if cell_len(line) > _SHORT]
    return [*" ".join((cells[0], *longer)).split(), *(set(lines) - set(longer))]


def show_warnings() -> None:
    """From now on show each of our warnings as one line on standard error."""
    if warnings.showwarning.__module__ == __name__:  # a command ran in this process before
        return
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where its cache is
    shown_by_python = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, RunWarning):
            _marked("warning:", "yellow", str(message))
        else:
            shown_by_python(message, category, *args, **kwargs)

    warnings.showwarning = show
    warnings.simplefilter("always", RunWarning)


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


def finish() -> None:
    """Write what waits for standard output, and nothing more if it cannot be written.

    Raises:
        OSError: If it cannot.
    """
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = None  # or Python would try again when it ends
        raise


def nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has gone; nothing more is written then."""
    output = select.poll()
    output.register(_STDOUT, 0)  # errors are told whatever one asks for
    has_gone = any(event & select.POLLERR for _, event in output.poll(0))
    if has_gone:
        sys.stdout = None  # or Python would try again when it ends
    return has_gone


def fail(message: str) -> None:
    """A one-line error on standard error."""
    _marked("error:", "bold red", " ".join(message.split()))


def _marked(mark: str, style: str, message: str) -> None:
    with suppress(OSError):
        _print(err, f"{mark} {message}", mark=(mark, style))


def report_bug(error: BaseException) -> None:
    """Where an unexpected error happened. Its message is left out: it could quote a note."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-6:]]
    fail(
        f"unexpected {type(error).__name__} at {' > '.join(places)}. This is a bug of notetune; "
        "please report this line. (The error's own text is not shown: it could hold note text.)"
    )


def _print(
    console: Console, message: str, style: str = "", mark: tuple[str, str] = ("", "")
) -> None:
    """Break lines between words on a terminal; a path that is longer than a line stays whole."""
    text, (first, style_of_first) = _printable(message), mark
    if console.is_terminal:
        text = "\n".join(_between_words(line, console.width) for line in text.split("\n"))
    shown = Text(text, style)
    shown.stylize(style_of_first, 0, len(first))
    console.print(shown, soft_wrap=True)


def _between_words(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


class _Bar(Progress):
    """A bar and figures where there is room for them on one line; else no bar, or two lines."""

    def get_renderables(self) -> Iterator[Text]:
        """Of each task one text, which breaks between words."""
        for task in self.tasks:
            label = Text(task.description)
            times = Text(" ").join(column.render(task) for column in _TIMES)
            figures = Text(task.fields["figures"], style="dim")
            room = err.width - label.cell_len - times.cell_len - 1
            parts = [label, _bar(task.percentage / 100), times]
            if room <= _WIDTH_OF_A_BAR:
                del parts[1]
            line = Text(" ").join(parts)
            has_room = line.cell_len + figures.cell_len < err.width
            yield Text(" " if has_room else "\n  ").join([line, figures] if figures else [line])


def _bar(share: float) -> Text:
    done = round(share * _WIDTH_OF_A_BAR)
    marks = ("━" * done, "bar.complete"), ("━" * (_WIDTH_OF_A_BAR - done), "bar.back")
    return Text.assemble(*marks)


def _with_bar(
    label: str, steps: Iterable[T], total: int, describe: Callable[[T], str], done: int
) -> Iterator[T]:
    with _Bar(console=err) as progress:
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
            told = (f"{label} {number}/{total}", describe(step), f"{left:,.0f} s left")
            say(" · ".join(filter(None, told)))
            last_line = now
        yield step


def _printable(text: str) -> str:
    """Text in which nothing but a line break moves the cursor or changes a colour."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """A time as it is read."""
    minutes = seconds / 60
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.1f} min"
