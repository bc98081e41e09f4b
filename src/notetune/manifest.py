"""The manifest of a finished folder: what it was made from, its files' digests, provenance."""

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from notetune import __version__, ownership, storage
from notetune.errors import RunError
from notetune.ownership import MANIFEST as MANIFEST

FORMAT = 2  # of what a folder of no stage is made from; files of older ones are still read
_RECORDED_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "polars")


def seal(folder: Path, inputs: Any) -> None:
    """Give a folder its manifest, durably.

    Raises:
        RunError: If it holds a file of that name.
    """
    if (folder / MANIFEST).exists():
        raise RunError(f"{folder} already holds {MANIFEST}; that name is kept for the checksums.")
    paths = sorted(folder.rglob("*"))
    digests = {str(p.relative_to(folder)): storage.sha256_of_file(p) for p in paths if p.is_file()}
    for path in paths:
        storage.sync(path)
    written: Mapping[str, Any] = {
        "format": _format_of(inputs),
        "inputs": storage.fingerprint(inputs),
        "files": digests,
        "provenance": provenance(),
    }
    storage.write_json(
        folder / MANIFEST, {**written, ownership.DIGEST: storage.fingerprint(written)}
    )
    storage.sync(folder)


def files_of(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a finished folder, by its name.

    Raises:
        RunError: If it has no manifest.
    """
    files: dict[str, str] = storage.read_json(folder / MANIFEST)["files"]
    return files


def is_finished(folder: Path, inputs: Any) -> bool:
    """As `was_made_from`, and whether every file still has its sha256."""
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
    return bool(manifest["format"] == known and manifest["inputs"] == storage.fingerprint(inputs))


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
        if not (folder / name).is_file() or storage.sha256_of_file(folder / name) != files.get(name)
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
        is_as_written = text == storage.json_text(manifest)
    except (OSError, ValueError, RecursionError):
        return None
    if not is_as_written or not isinstance(manifest, dict):
        return None
    if not isinstance(manifest.get("files"), dict):
        return None
    if manifest.pop(ownership.DIGEST, None) != storage.fingerprint(manifest):
        return None
    return manifest if isinstance(manifest.get("format"), int) else None


def _format_of(inputs: Any) -> int:
    return int(inputs.get("format", FORMAT)) if isinstance(inputs, Mapping) else FORMAT
