"""A file of events: one line each, checksummed, appended durably by any number of processes.

A process that is killed leaves at most a torn last line, which counts for nothing.
"""

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from notetune import claims, storage
from notetune.errors import RunError

Event: TypeAlias = dict[str, Any]

_DIGEST = "digest"  # of the rest of the line


class Journal:
    """The events of one thing.

    Args:
        path: The file, which need not be there; nothing is read or written yet.
        about: What its first line says, its `format` first; a file that says something else is
            refused.
        way_out: What to do about a damaged file, as errors say it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], way_out: str) -> None:
        self.path = path
        self._about = dict(about)
        self._way_out = way_out

    def events(self) -> list[Event]:
        """All events in order.

        Raises:
            RunError: If a line is damaged, or the file is about something else.
        """
        return self._read()[0]

    def append(self, choose: Callable[[list[Event]], Sequence[Event]]) -> list[Event]:
        """Record what `choose` makes of all events before; the events with those appended.

        No other process appends meanwhile, and where it raises an error, nothing is appended.

        Raises:
            RunError: As `events`.
            WriteError: If the file cannot be written; it is as before then.
        """
        try:
            with storage.written(self.path), claims.one_at_a_time(self.path):
                before, size = self._read()
                new = choose(before)
                self._write("".join(_line(event) for event in new), size)
        except ValueError:
            raise RunError(
                f"{self.path}: an event has a number that is not finite; nothing was recorded."
            ) from None
        return [*before, *new]

    def _write(self, lines: str, size: int) -> None:
        if size == 0:
            storage.write_text(self.path, _line(self._about) + lines)
            return
        with self.path.open("r+b", buffering=0) as file:
            file.truncate(size)
            file.seek(size)
            try:
                if file.write(lines.encode()) < len(lines.encode()):
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
        if not lines and _line(self._about).encode().startswith(torn):
            return [], 0
        payloads = [_payload(line) for line in lines or [torn]]
        about, *events = (self._whole(payload, n) for n, payload in enumerate(payloads, start=1))
        self._refuse_other(about)
        return events, len(data) - len(torn)

    def _whole(self, payload: Event | None, number: int) -> Event:
        if payload is None or (number == 1 and payload.keys() != self._about.keys()):
            self.refuse_line(number)
        return payload or {}

    def refuse_line(self, number: int) -> NoReturn:
        """Refuse the file for a line that says nothing that we would write, by a RunError."""
        raise RunError(f"{self.path} line {number} is damaged or not ours; {self._way_out}")

    def _refuse_other(self, about: Event) -> None:
        if about["format"] != self._about["format"]:
            raise RunError(
                f"{self.path} has format {about['format']}; this version reads format "
                f"{self._about['format']}. Use the notetune version that wrote it."
            )
        for key, expected in self._about.items():
            if about[key] != expected:
                raise RunError(
                    f"{self.path} is of {key} {about[key]}, and this is {key} {expected}: the "
                    "recipe or the notes have changed; name another place, or move it away."
                )


def _line(event: Mapping[str, Any]) -> str:
    whole = {**event, _DIGEST: storage.fingerprint(event)}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n"


def _payload(line: bytes) -> Event | None:
    """What a line says; None if it differs in any byte from how it was written."""
    try:
        payload: Event = json.loads(line)
        del payload[_DIGEST]
        is_as_written = _line(payload).encode() == line + b"\n"
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return payload if is_as_written else None
