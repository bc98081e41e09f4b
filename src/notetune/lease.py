"""Who makes a folder: a file beside it that its maker touches while it works, on any machine.

A lease saves work that two would do; what is true is the finished folder. A maker that stood still
for too long has lost its lease, and finds that out before it goes on.
"""

import contextlib
import json
import os
import platform
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from notetune import __version__, ownership
from notetune.progress import Track

BEAT_SECONDS = 20.0
_MISSED_BEATS = 3
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")


class LeaseLostError(Exception):
    """Another process has taken over what this one was making."""


@dataclass(frozen=True)
class Holder:
    """Who makes a folder.

    Attributes:
        token: Of this lease alone.
        boot: Of the machine and the container in it, since process ids begin anew with each.
        since: When it began, in seconds since 1970 by its own clock.
    """

    token: str
    host: str
    boot: str
    process: int
    version: str
    since: float

    @property
    def name(self) -> str:
        """How errors and tables call it."""
        return f"process {self.process} on {self.host}"

    @property
    def has_ended(self) -> bool:
        """Whether it was a process of this machine that is gone."""
        me = this_process()
        return (self.host, self.boot) == (me.host, me.boot) and not _runs(self.process)


def this_process() -> Holder:
    """A lease that this process may take."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    if _PROCESSES.is_symlink():
        boot += f" {_PROCESSES.readlink()}"
    token = secrets.token_hex(8)
    return Holder(token, platform.node(), boot, os.getpid(), __version__, time.time())


def holder_of(folder: Path) -> Holder | None:
    """Who makes a folder now; None if nobody does, or whoever did is dead."""
    path = ownership.lease_of(folder)
    holder = _read(path)
    return None if _is_dead(path) else holder


def holders_below(root: Path) -> list[Holder]:
    """Who makes something below a folder now, other than this process."""
    found = [(path, _read(path)) for path in sorted(root.rglob(f".*{ownership.LEASE}"))]
    alive = [holder for path, holder in found if holder and not _is_dead(path)]
    me = this_process()
    return [h for h in alive if (h.host, h.boot, h.process) != (me.host, me.boot, me.process)]


class Lease:
    """The right to make a folder, as this process may get it; the one around it must be there."""

    def __init__(self, folder: Path) -> None:
        self._path = ownership.lease_of(folder)
        self._holder = this_process()
        self._last_beat = 0.0

    def take(self) -> bool:
        """Take it if it is free or its holder is dead; whether that worked.

        Raises:
            RunError: If something that is no lease stands in its place.
        """
        ownership.refuse_foreign_lease(self._path)
        if self._create():
            return True
        if not _is_dead(self._path):
            return False
        lock = self._path.with_name(f"{self._path.name}.lock")
        ownership.refuse_full_lock(lock)
        with filelock.FileLock(lock):
            if _is_dead(self._path):  # else another process was faster
                self._path.unlink(missing_ok=True)
        return self._create()

    def give_back(self) -> None:
        """Let another process take it, unless one has."""
        with contextlib.suppress(OSError):  # one that stays is seen to be dead
            if not self.is_lost:
                self._path.unlink()

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Touch it now and then until the block ends."""
        ends = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(ends,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken it over."""
        return _read(self._path) != self._holder

    def watched(self, track: Track) -> Track:
        """The same track, which refuses to go on with a step where the lease is lost.

        Only a process that stood still can lose it, so it is read where beats were missed.
        """

        def tracked(*about: Any, **more: Any) -> Iterator[Any]:
            for step in track(*about, **more):
                stood_still = time.monotonic() - self._last_beat > BEAT_SECONDS * 1.5
                if stood_still and self.is_lost:
                    raise LeaseLostError(f"{self._path} was taken over by another process.")
                yield step

        return tracked

    def _create(self) -> bool:
        """Create the file, if none is there."""
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(self._holder), file)
        except OSError:
            self._path.unlink()
            raise
        self._last_beat = time.monotonic()
        return True

    def _beat_until(self, ends: threading.Event) -> None:
        while not ends.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # as if it had not beaten
                if not self.is_lost:
                    os.utime(self._path)
                    self._last_beat = time.monotonic()


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_dead(path: Path) -> bool:
    """Whether its holder is gone from this machine, or has missed its beats by the disk's clock."""
    holder = _read(path)
    if holder is not None and holder.has_ended:
        return True
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            os.utime(probe.fileno())
            now = os.fstat(probe.fileno()).st_mtime
        return now - path.stat().st_mtime > BEAT_SECONDS * _MISSED_BEATS
    except OSError:
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # it is another user's
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] != "Z"  # killed, and not yet waited for
    return True
