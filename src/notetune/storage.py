"""What cannot be written: where, why, and how much room it takes and there is."""

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from notetune import ownership
from notetune.errors import NotetuneError, WriteError

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
# Only the number is taken of what another library says, as its words may hold a cell of a table.
_NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
_NO_TEMPORARY = "emporary directory"  # of `tempfile`, and of matplotlib's cache
_WAY_OUT = "then run the same command again; what was finished is kept."


@contextlib.contextmanager
def written(path: Path, need: int | None = None) -> Iterator[None]:
    """Say of what the block writes that it cannot be written, and why.

    Args:
        path: A file or a folder; what is written aside for it counts as it.
        need: Bytes that it takes, where that is known.

    Raises:
        WriteError: If the disk is full, read-only or fails, a quota or a limit of file size is
            reached, or `path` itself is not allowed. What else the block raises stays as it is.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number not in _NOT_WRITABLE and not (number in _NOT_ALLOWED and _is_of(error, path)):
            raise
        other = _named(error)
        if other is not None and not _is_of(error, path):  # what is read for it, or a place beside
            raise WriteError(_told(other, number, None)) from None
        raise WriteError(_told(path, number, need)) from None


def refuse_unwritable(path: Path) -> None:
    """Refuse, before any work, a new file or folder that would be refused after it.

    Raises:
        WriteError: If nothing can be written where it is to be.
    """
    place = _place(path.absolute().parent)
    if not place.is_dir():
        raise WriteError(f"{path} cannot be written: {place} is not a folder; name another place.")
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        raise WriteError(_told(path, errno.EROFS if is_read_only else errno.EACCES, None))


def fault_of(error: Exception) -> str | None:
    """What the machine did not let happen, in a sentence with a way out; None for another error."""
    number = _number(error)
    if number is None and not isinstance(error, OSError):
        return None
    if number is None and _NO_TEMPORARY in str(error):
        return f"no temporary folder can be written; name one in TMPDIR, {_WAY_OUT}"
    name = _named(error)
    if number in _NOT_WRITABLE:
        return _told(name, number, None)
    what = ownership.meant(name) if name else "a file"
    why = f" ({os.strerror(number)})" if number else ""  # its own words could hold a note
    return f"{what} cannot be opened{why}; mend the path or allow it, {_WAY_OUT}"


def _number(error: Exception) -> int | None:
    """The number of an error of the machine, whichever library tells it."""
    if isinstance(error, NotetuneError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return None if _NO_TEMPORARY in str(error) else error.errno
    found = _NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else None


def _named(error: Exception, which: str = "filename") -> Path | None:
    """The path that an error names; a library may put a number of a file there."""
    name = getattr(error, which, None)
    return Path(os.fsdecode(name)) if name and isinstance(name, str | bytes) else None


def _is_of(error: Exception, path: Path) -> bool:
    named = (_named(error, which) for which in ("filename", "filename2"))
    paths = (ownership.meant(name.absolute()) for name in named if name)
    return any(found.is_relative_to(path.absolute()) for found in paths)


def _told(path: Path | None, number: int, need: int | None) -> str:
    what = ownership.meant(path) if path else "standard output or a file"
    facts, way_out = [os.strerror(number)], "allow it, or name another place"
    if need and number not in (errno.EROFS, *_NOT_ALLOWED):
        facts.append(f"it takes {_size(need)}")
    if number == errno.EFBIG and (limit := _largest_file()) is not None:
        facts.append(f"`ulimit -f` lets a file have {_size(limit)}")
        way_out = "raise that limit"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        facts += [_room(path)] if path else []
        way_out = "make room"
    done = "read or written" if number == errno.EIO else "written"
    return f"{what} cannot be {done} ({'; '.join(facts)}); {way_out}, {_WAY_OUT}"


def _room(path: Path) -> str:
    found = os.statvfs(_place(path.absolute()))
    if found.f_files and not found.f_favail:
        return "not one more file fits"
    return f"{_size(found.f_bavail * found.f_frsize)} are free"


def _place(path: Path) -> Path:
    """The nearest that exists of a path and the folders around it."""
    return next(each for each in (path, *path.parents) if each.exists())


def _largest_file() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
