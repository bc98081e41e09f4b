"""What was tried: one line per event, appended durably, each with a checksum.

A process that is killed leaves at most a torn last line, which counts for nothing.
"""

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from notetune import runs
from notetune.errors import RunError
from notetune.search.space import Point

FORMAT = 1


@dataclass(frozen=True)
class Proposed:
    """A trial begins.

    Attributes:
        n: Its number, from 0.
        point: What it tries.
        by: What proposed it, such as `gp`.
    """

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
    """A trial failed.

    Attributes:
        n: Its number.
        code: The class of its error; never the text, which may quote a note.

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
    """Where a trial stands; it has a score once it is finished."""

    n: int
    point: Point
    state: Literal["running", "finished", "failed"] = "running"
    score: float | None = None


class Ledger:
    """The events of one search, in a file that several processes may append to."""

    def __init__(self, path: Path, study: str) -> None:
        """Nothing is read or written yet.

        Args:
            path: The file, which need not be there.
            study: Fingerprint of the search, in hex: of all that makes scores comparable.
        """
        self.path = path
        self._header = {"format": FORMAT, "study": study}

    def trials(self) -> list[Trial]:
        """All trials by their number; those that were under way when a process died run still.

        Raises:
            RunError: If a line is damaged, or the file belongs to another search or version.
        """
        return _trials(self._read()[0])

    def append(self, *events: Event) -> list[Trial]:
        """Record events durably, all in one write, and return the trials as `trials` does.

        Raises:
            RunError: As `trials`; if a number is proposed twice (another process was faster), an
                event has no trial or no finite number, or the file cannot be written. Nothing is
                recorded then.
        """
        try:
            with runs.one_at_a_time(self.path):
                old, size = self._read()
                trials = _trials([*old, *events])
                self._write("".join(self._line_of(event) for event in events), size)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error.strerror}); nothing was recorded. Make "
                "room or allow it, then run the same command again."
            ) from None
        return trials

    def _line_of(self, event: Event) -> str:
        try:
            return _line({"event": type(event).__name__.lower(), **asdict(event)})
        except ValueError:
            raise RunError(
                f"{self.path}: trial {event.n} has a number that is not finite; record it as "
                "failed."
            ) from None

    def _write(self, lines: str, size: int) -> None:
        if size == 0:
            runs.write_text(self.path, _line(self._header) + lines)
            return
        with self.path.open("r+b", buffering=0) as file:
            file.truncate(size)
            file.seek(size)
            try:
                if file.write(lines.encode()) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise

    def _read(self) -> tuple[list[Event], int]:
        """The events, and the bytes of all whole lines."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be read ({error.strerror}); name another place, or allow it."
            ) from None
        *lines, torn = data.split(b"\n")
        if not lines and _line(self._header).encode().startswith(torn):
            return [], 0
        self._check_header(_payload(lines[0]) if lines else None)
        events = [self._event(line, number) for number, line in enumerate(lines[1:], start=2)]
        return events, len(data) - len(torn)

    def _check_header(self, header: dict[str, Any] | None) -> None:
        if header is None or header.keys() != self._header.keys():
            raise RunError(f"{self.path} line 1 is damaged or not ours; {_WAY_OUT}")
        if header["format"] != FORMAT:
            raise RunError(
                f"{self.path} has format {header['format']}; this version reads format {FORMAT}. "
                "Use the notetune version that wrote it."
            )
        if header != self._header:
            raise RunError(
                f"{self.path} records search {header['study']}, and this is search "
                f"{self._header['study']}: the recipe or the notes have changed; name another "
                "place, or move it away."
            )

    def _event(self, line: bytes, number: int) -> Event:
        try:
            payload = _payload(line) or {}
            return _EVENTS[payload.pop("event")](**payload)
        except (KeyError, TypeError):
            raise RunError(f"{self.path} line {number} is damaged; {_WAY_OUT}") from None


_WAY_OUT = "put back a copy of the file, or move it away to search anew."
_DIGEST = "digest"  # of the rest of the line


def _line(payload: dict[str, Any]) -> str:
    whole = {**payload, _DIGEST: runs.fingerprint(payload)}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n"


def _payload(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it differs in any byte from how it was written."""
    try:
        payload: dict[str, Any] = json.loads(line)
        del payload[_DIGEST]
        is_as_written = _line(payload).encode() == line + b"\n"
    except (ValueError, TypeError, KeyError):
        return None
    return payload if is_as_written else None


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
                trials[event.n] = replace(trial, state="finished", score=event.score)
            case Failed() if trial.state == "running":
                trials[event.n] = replace(trial, state="failed")
    return [trials[n] for n in sorted(trials)]
