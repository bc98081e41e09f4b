"""Run folders: private files, atomic stages with a checksummed manifest, a lock, provenance."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from notetune import __version__
from notetune.errors import RunError

MANIFEST = "manifest.json"
FORMAT = 1
_RECORDED_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "polars")


def make_files_private() -> None:
    """Let only the owner read what this process writes: notes and adapters are sensitive."""
    os.umask(0o077)


def fingerprint(value: Any) -> str:
    """A short, stable name for a JSON-like value: the first 16 hex digits of its sha256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
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
    except FileNotFoundError:
        raise RunError(f"{path} is missing; is {path.parent} a finished folder?") from None
    except ValueError:
        raise RunError(f"{path} is not JSON; it was damaged or is not ours.") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one step: a reader sees the old file or the new one."""
    text = json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one step, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_folder(folder: Path, inputs: Any) -> Iterator[Path]:
    """Build a folder aside and rename it into place when the block ends without an error.

    Yields a temporary sibling. On success it gets a manifest (fingerprint of `inputs`, sha256 of
    every file, provenance), is synced to disk and replaces `folder`; on failure it is removed, and
    whatever stood at `folder` is untouched.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        _seal(temporary, inputs)
        if folder.exists():
            retired = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            folder.rename(retired / folder.name)
            temporary.rename(folder)
            shutil.rmtree(retired)
        else:
            temporary.rename(folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def is_finished(folder: Path, inputs: Any) -> bool:
    """Whether `folder` was built from the same inputs and every file still has its sha256."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT or manifest.get("inputs") != fingerprint(inputs):
        return False
    return not damaged_files(folder)


def damaged_files(folder: Path) -> list[str]:
    """Names of the files that are missing from `folder` or differ from its manifest.

    Raises:
        RunError: If the folder has no manifest or one of a newer format.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise RunError(
            f"{folder} has format {found}; this version reads format {FORMAT}. "
            "Use the notetune version that wrote it."
        )
    return [
        name
        for name, digest in manifest["files"].items()
        if not (folder / name).is_file() or sha256_of_file(folder / name) != digest
    ]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process.

    Raises:
        RunError: At once, if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = (folder / ".holder").read_text() if (folder / ".holder").exists() else "unknown"
        raise RunError(
            f"{folder} is in use by process {holder}; wait for it, or use another run folder."
        ) from None
    try:
        (folder / ".holder").write_text(f"{os.getpid()} on {platform.node()}")
        yield
    finally:
        (folder / ".holder").unlink(missing_ok=True)
        lock.release()


def provenance() -> dict[str, str]:
    """Versions of notetune, Python and the libraries that decide a result."""
    versions = {"notetune": __version__, "python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _seal(folder: Path, inputs: Any) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {str(path.relative_to(folder)): sha256_of_file(path) for path in files}
    for path in files:
        _sync(path)
    manifest: Mapping[str, Any] = {
        "format": FORMAT,
        "inputs": fingerprint(inputs),
        "files": digests,
        "provenance": provenance(),
    }
    write_json(folder / MANIFEST, manifest)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
