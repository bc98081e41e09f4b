"""What was tried: one line per event, appended durably, each with a checksum.

A process that is killed leaves at most a torn last line, which counts for nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from notetune.errors import RunError
from notetune.journal import Journal
from notetune.search.space import Point

FORMAT = 1


@dataclass(frozen=True)
class Proposed:
    """A trial begins, proposed `by` such as `gp`."""

    n: int
    point: Point
    by: str


@dataclass(frozen=True)
class Finished:
    """A trial has its score, a finite number, after so many seconds."""

    n: int
    score: float
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A trial failed; `code` is the class of its error, never the text, which may quote a note.

    Raises:
        RunError: If the code is no name.
    """

    n: int
    code: str

    def __post_init__(self) -> None:
        if not self.code.isidentifier():
            raise RunError(
                f"the code of the failure of trial {self.n} is {len(self.code)} characters that "
                "make no name; give the class of the error, such as TrainingError."
            )


Event: TypeAlias = Proposed | Finished | Failed
_EVENTS: dict[str, type[Event]] = {
    kind.__name__.lower(): kind for kind in (Proposed, Finished, Failed)
}


@dataclass(frozen=True)
class Trial:
    """Where a trial stands; it has a score, after so many seconds, once it is finished."""

    n: int
    point: Point
    state: Literal["running", "finished", "failed"] = "running"
    score: float | None = None
    seconds: float | None = None


class Ledger:
    """The events of one search, in a file that several processes may append to."""

    def __init__(self, path: Path, study: str) -> None:
        """Nothing is read or written yet; the file need not be there.

        `study` is the fingerprint of the search, in hex: of all that makes scores comparable.
        """
        self.path = path
        self._journal = Journal(path, {"format": FORMAT, "search": study}, _WAY_OUT)

    def trials(self) -> list[Trial]:
        """All trials by their number; those that were under way when a process died run still.

        Raises:
            RunError: If a line is damaged, or the file belongs to another search or version.
        """
        return _trials(self._read(self._journal.events()))

    def append(self, *events: Event) -> list[Trial]:
        """Record events durably, all in one write, and return the trials as `trials` does.

        Raises:
            RunError: As `trials`; if a number is proposed twice (another process was faster), an
                event has no trial or no finite number, or the file cannot be written. Nothing is
                recorded then.
        """

        def in_view_of(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
            _trials([*self._read(before), *events])  # refuses what does not follow
            return [{"event": type(e).__name__.lower(), **asdict(e)} for e in events]

        return _trials(self._read(self._journal.append(in_view_of)))

    def _read(self, lines: list[dict[str, Any]]) -> Iterator[Event]:
        for number, line in enumerate(lines, start=2):
            try:
                values = dict(line)
                yield _EVENTS[values.pop("event")](**values)
            except (KeyError, TypeError):
                self._journal.refuse_line(number)


_WAY_OUT = "put back a copy of the file, or move it away to search anew."


def _trials(events: Iterable[Event]) -> list[Trial]:
    trials: dict[int, Trial] = {}
    for event in events:
        trial = trials.get(event.n)
        match event:
            case Proposed() if trial is None:
                trials[event.n] = Trial(event.n, event.point)
            case Proposed():
                raise RunError(
                    f"trial {event.n} is proposed already; read the trials again and take the "
                    "next number."
                )
            case _ if trial is None:
                raise RunError(f"trial {event.n} ends, but was never proposed; propose it first.")
            case Finished() if trial.state != "finished":
                trials[event.n] = replace(
                    trial, state="finished", score=event.score, seconds=event.seconds
                )
            case Failed() if trial.state == "running":
                trials[event.n] = replace(trial, state="failed")
    return [trials[n] for n in sorted(trials)]
