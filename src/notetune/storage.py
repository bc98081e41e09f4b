"""Files and JSON, fingerprints of values; what cannot be written, and why."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from notetune import ownership
from notetune.errors import NotetuneError, RunError, WriteError

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
# Only the number is taken of what another library says, as its words may hold a cell of a table.
_NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
_NO_TEMPORARY = "emporary directory"  # of `tempfile`, and of matplotlib's cache
_WAY_OUT = "then run the same command again; what was finished is kept."


@contextlib.contextmanager
def written(path: Path, need: int | None = None) -> Iterator[None]:
    """Say of what the block writes that it cannot be written, and why.

    What is written aside for the `path` counts as it; `need` is the bytes that it takes, if known.

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


def fingerprint(value: Any) -> str:
    """A short, stable name for a JSON-like value: the first 16 hex digits of its sha256.

    A class may have fields that an earlier release did not: its `AS_BEFORE` says for each which
    value does what was done without it, and with this value the field changes no fingerprint.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_identity)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        RunError: If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RunError(f"{path} is missing; is {path.parent} a finished folder?") from None
    except (ValueError, RecursionError):
        raise RunError(f"{path} is not JSON; restore it, or move it away.") from None


def json_text(value: Any) -> str:
    """A JSON-like value, of models and frozen dataclasses too, as this package writes JSON."""
    return json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file of a folder of ours in one step: a reader sees the old or the new one."""
    write_text(path, json_text(value))


def refuse_foreign_json(path: Path, is_ours: Callable[[dict[str, Any]], bool]) -> None:
    """Refuse to replace a file that is not ours, by what is in it: its folder may be a user's.

    Raises:
        RunError: If what stands there is no mapping of ours in the form in which we write JSON.
    """
    fits = False
    with contextlib.suppress(RunError):
        old = read_json(path)
        fits = isinstance(old, dict) and is_ours(old)
        fits = fits and path.read_text(encoding="utf-8") == json_text(old)
    if not fits or path.is_symlink():
        ownership.refuse_existing(path)


def write_text(path: Path, text: str, *, replaces: bool = True) -> None:
    """Write a UTF-8 text file in one step, durably; `replaces` as in `new_file`."""
    data = text.encode()
    with new_file(path, replaces=replaces) as file, written(path, len(data)):
        file.write(data)


def write_array(path: Path, array: Any) -> None:
    """Write an array as `.npy`, and have any error of that: `np.save` into a file has not all."""
    import numpy as np  # here, so that `notetune --help` is instant

    with path.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)  # noqa: TID251


@contextlib.contextmanager
def new_file(path: Path, *, replaces: bool = False) -> Iterator[BinaryIO]:
    """A file to write aside, which takes its place durably when the block ends without an error.

    Raises:
        RunError: If something stands there, unless it `replaces`, as in a folder of ours.
        WriteError: If it cannot be written.
    """
    if not replaces:
        ownership.refuse_existing(path)
    make_folder(path.parent)
    with written(path):
        handle, temporary = tempfile.mkstemp(ownership.PART, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if not replaces:
                ownership.refuse_existing(path)
            Path(temporary).replace(path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                Path(temporary).unlink()
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, private and durably, unless they are there.

    Raises:
        RunError: If one of them is no folder.
        WriteError: If one cannot be made.
    """
    for each in (folder, *folder.parents):
        if os.path.lexists(each) and not each.is_dir():
            raise RunError(f"{each} is not a folder, and one is needed there; name another place.")
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with written(each):
            each.mkdir(mode=0o700, exist_ok=True)
            sync(each.parent)


def sync(path: Path) -> None:
    """Have what was written of a file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    """A JSON form of what `json` does not know; unknown objects fail, as their text may vary."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for converter in ("isoformat", "tolist"):  # dates, and numpy's scalars and arrays
        if hasattr(value, converter):
            return getattr(value, converter)()
    raise TypeError(f"a {type(value).__name__} has no JSON form; give its plain fields.")


def _identity(value: Any) -> Any:
    """As `_plain`, without the fields that are as before they came."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", context={"fingerprint": True})
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return _plain(value)
    before = getattr(value, "AS_BEFORE", {})
    values = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {k: v for k, v in values.items() if k not in before or v != before[k]}


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
        facts.append(f"it takes {size(need)}")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if number == errno.EFBIG and limit != resource.RLIM_INFINITY:
        facts.append(f"`ulimit -f` lets a file have {size(limit)}")
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
    return f"{size(found.f_bavail * found.f_frsize)} are free"


def _place(path: Path) -> Path:
    """The nearest that exists of a path and the folders around it."""
    return next(each for each in (path, *path.parents) if each.exists())


def size(count: int) -> str:
    """A number of bytes as people read it."""
    powers = {"KiB": 10, "MiB": 20, "GiB": 30}
    unit = next((name for name, power in powers.items() if count < 2 ** (power + 10)), "GiB")
    return f"{count / 2 ** powers[unit]:,.1f} {unit}"
