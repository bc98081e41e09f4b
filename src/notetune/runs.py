"""Run folders: private files, atomic stages with a checksummed manifest, provenance."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from notetune import __version__, ownership, storage
from notetune.errors import BackboneError, ConfigError, DataError, RunError, Stopped
from notetune.ownership import MANIFEST as MANIFEST

FORMAT = 2  # of what a folder of no stage is made from; files of older ones are still read
_RECORDED_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "polars")


def make_files_private() -> None:
    """Let only the owner read what this process writes: notes and adapters are sensitive."""
    os.umask(0o077)


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
    with new_file(path, replaces=replaces) as file, storage.written(path, len(data)):
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
    with storage.written(path):
        handle, temporary = tempfile.mkstemp(ownership.PART, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if not replaces:
                ownership.refuse_existing(path)
            Path(temporary).replace(path)
            _sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                Path(temporary).unlink()
            raise


@contextlib.contextmanager
def new_folder(folder: Path, inputs: Any) -> Iterator[Path]:
    """Build a folder aside and rename it into place when the block ends without an error.

    `inputs` of a stage hold its number as `format`; a change of the number makes the folder again.

    Yields a temporary sibling. On success it gets a manifest (fingerprint of `inputs`, sha256 of
    every file, provenance), is synced to disk and replaces `folder`; on failure it is removed, and
    whatever stood at `folder` is untouched.

    Raises:
        RunError: As `refuse_foreign`, before the block or after it.
        WriteError: If it cannot be written.
    """
    ownership.refuse_foreign(folder)
    make_folder(folder.parent)
    with storage.written(folder):
        temporary = _part_folder(folder)
        try:
            yield temporary
            seal(temporary, inputs)
            ownership.refuse_foreign(folder)  # something may have come meanwhile
            if folder.exists():
                _replace(folder, temporary)
            else:
                temporary.rename(folder)
            _sync(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def work_folder(folder: Path, inputs: Any) -> Iterator[Path]:
    """Keep half-done work on `folder` beside it, so that a run after this one can go on with it.

    Yields a sibling whose name depends on `inputs`; in it is what a run with the same inputs left
    that was killed, interrupted or failed. Work for other inputs is removed first, and this one's
    when the block ends, or when the input is at fault, since there is nothing to go on with then.

    Raises:
        RunError: As `refuse_foreign` does for `folder`.
        WriteError: If what the block writes cannot be written.
        Stopped: After Ctrl-C or SIGTERM; it says what is saved.
    """
    ownership.refuse_foreign(folder)
    work = ownership.work_of(folder, fingerprint(inputs))
    for other in ownership.works_of(folder):
        if other != work:
            shutil.rmtree(other)
    make_folder(work)
    try:
        with storage.written(folder):
            yield work
    except (BackboneError, ConfigError, DataError):
        shutil.rmtree(work, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, ownership.saved_in(work, folder)) from None
    except Stopped as error:
        raise Stopped(error.signal, error.saved or ownership.saved_in(work, folder)) from None
    shutil.rmtree(work, ignore_errors=True)


def is_finished(folder: Path, inputs: Any) -> bool:
    """Whether `folder` was built from the same inputs and every file still has its sha256.

    Raises:
        RunError: If another version of notetune, with another format, wrote the folder.
    """
    return was_made_from(folder, inputs) and not damaged_files(folder)


def was_made_from(folder: Path, inputs: Any) -> bool:
    """Whether `folder` was built from the same inputs, by its manifest alone.

    Raises:
        RunError: If another version of notetune, with another format, wrote the folder.
    """
    manifest, known = _manifest(folder), _format_of(inputs)
    if manifest is None:
        return False
    if manifest["format"] > known:
        raise RunError(
            f"{folder} has format {manifest['format']}; this version reads up to {known}. "
            "Use the notetune version that wrote it."
        )
    return bool(manifest["format"] == known and manifest["inputs"] == fingerprint(inputs))


def is_older(folder: Path, known: int) -> bool:
    """Whether `folder` has an earlier format than the one that is known: it is made again."""
    manifest = _manifest(folder)
    return manifest is not None and manifest["format"] < known


def made_from(folder: Path) -> str | None:
    """The fingerprint of what `folder` was built from, by its manifest alone; None without one."""
    manifest = _manifest(folder)
    return None if manifest is None else str(manifest["inputs"])


def damaged_files(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """Names of the files, of some or all, that are missing or differ from the manifest of `folder`.

    The manifest itself is named when it is missing or cannot be read.
    """
    manifest = _manifest(folder)
    if manifest is None:
        return [MANIFEST]
    files = manifest["files"]
    return [
        name
        for name in (files if names is None else names)
        if not (folder / name).is_file() or sha256_of_file(folder / name) != files.get(name)
    ]


def refuse_damaged(folder: Path, *names: str) -> None:
    """Refuse to read files of a finished folder that are not as they were written.

    Raises:
        RunError: If one is missing or differs from the manifest.
    """
    if damaged := damaged_files(folder, names):
        raise RunError(
            f"{folder / damaged[0]} is missing or damaged; restore it, or let `notetune study run` "
            "make the folder again."
        )


def provenance() -> dict[str, str]:
    """Versions of notetune, Python and the libraries that decide a result."""
    versions = {"notetune": __version__, "python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder; None if there is none or it differs in any byte."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        is_as_written = text == json_text(manifest)
    except (OSError, ValueError, RecursionError):
        return None
    if not is_as_written or not isinstance(manifest, dict):
        return None
    if not isinstance(manifest.get("files"), dict):
        return None
    if manifest.pop(ownership.DIGEST, None) != fingerprint(manifest):
        return None
    return manifest if isinstance(manifest.get("format"), int) else None


def _format_of(inputs: Any) -> int:
    return int(inputs.get("format", FORMAT)) if isinstance(inputs, Mapping) else FORMAT


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
        with storage.written(each):
            each.mkdir(mode=0o700, exist_ok=True)
            _sync(each.parent)


def _part_folder(folder: Path) -> Path:
    """A new private folder beside `folder`, on the same file system, so that a rename is atomic."""
    return Path(tempfile.mkdtemp(ownership.PART, f".{folder.name}.", folder.parent))


def _replace(folder: Path, temporary: Path) -> None:
    # No rename swaps two full folders, so the old one steps aside, and comes back on an error.
    aside = _part_folder(folder)
    retired = folder.rename(aside / folder.name)
    try:
        temporary.rename(folder)
    except BaseException:
        retired.rename(folder)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def seal(folder: Path, inputs: Any) -> None:
    """Give a folder its manifest, durably.

    Raises:
        RunError: If it holds a file of that name.
    """
    if (folder / MANIFEST).exists():
        raise RunError(f"{folder} already holds {MANIFEST}; that name is kept for the checksums.")
    paths = sorted(folder.rglob("*"))
    digests = {str(p.relative_to(folder)): sha256_of_file(p) for p in paths if p.is_file()}
    for path in paths:
        _sync(path)
    manifest: Mapping[str, Any] = {
        "format": _format_of(inputs),
        "inputs": fingerprint(inputs),
        "files": digests,
        "provenance": provenance(),
    }
    write_json(folder / MANIFEST, {**manifest, ownership.DIGEST: fingerprint(manifest)})
    _sync(folder)


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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
