"""Which process makes which folder, and what a killed one left half-written there."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from notetune import manifest, ownership, storage
from notetune.lease import Lease, holder_of

_SECONDS_TO_WRITE = 60


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Lease | None]:
    """Claim the making of `folder`, and clear what a killed process left half-written beside it.

    Yields:
        The lease; None if another process makes it.

    Raises:
        RunError: If something that is no lease stands in its place.
        WriteError: If none can be written.
    """
    storage.make_folder(folder.parent)
    lease = Lease(folder)
    with storage.written(ownership.lease_of(folder)):
        is_ours = lease.take()
    if not is_ours:
        yield None
        return
    try:
        with lease.beating():
            clear_parts_of(folder)
            yield lease
    finally:
        lease.give_back()


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let processes that want the same stage folder in turn: the first makes it, others find it.

    A killed process lets go of it.
    """
    storage.make_folder(folder.parent)
    with contextlib.ExitStack() as stack:
        with storage.written(_lock_of(folder)):
            stack.enter_context(_lock(folder))
        clear_parts_of(folder)
        yield


def is_being_made(folder: Path) -> bool:
    """Whether another process makes a folder one at a time."""
    if not _lock_of(folder).exists():
        return False
    try:
        with _lock(folder, timeout=0):
            return False
    except filelock.Timeout:
        return True


def clear_parts(root: Path) -> None:
    """Clear what killed processes left half-written below `root` a while ago."""
    for part in sorted(root.rglob(f".*{ownership.PART}")):
        if _of(part) and part.exists() and _is_left(part):
            _remove(part)


def clear_parts_of(folder: Path) -> None:
    """Clear what a killed process left half-written of `folder`, for who alone makes it now."""
    works = ownership.works_of(folder)
    made = manifest.made_from(folder)
    if made and (finished := ownership.work_of(folder, made)) in works:
        shutil.rmtree(finished)  # killed after the last rename
        works.remove(finished)
    beside = folder.parent.glob(f".*{ownership.PART}")
    of_folder = [p for p in beside if _of(p) == folder.name]
    for part in [*of_folder, *(p for work in works for p in work.rglob(f".*{ownership.PART}"))]:
        if _of(part):
            _remove(part)


def _of(part: Path) -> str | None:
    name = ownership.PART_NAME.fullmatch(part.name)
    return name["of"] if name else None


def _is_left(part: Path) -> bool:
    """Whether nobody works on a half-written part, or has of late."""
    folder = part.parent / str(_of(part))
    for work in part.parents:
        if name := ownership.WORK_NAME.fullmatch(work.name):
            folder = work.parent / name["of"]
    is_worked_on = holder_of(folder) is not None or is_being_made(folder)
    return not is_worked_on and time.time() - part.stat().st_mtime > _SECONDS_TO_WRITE


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _lock(folder: Path, timeout: float = -1) -> filelock.BaseFileLock:
    path = _lock_of(folder)
    ownership.refuse_full_lock(path)
    return filelock.FileLock(path, timeout=timeout)


def _lock_of(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lock"
