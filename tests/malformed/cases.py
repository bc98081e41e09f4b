"""What a case of a malformed input is, and the ways in which a valid file is spoilt."""

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from notetune import manifest, storage

Make = Callable[[Path], object]
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        name: What is wrong.
        make: Spoils a folder of valid inputs.
        said: A part of what the command says: of the one line of an error, or of its output.
        command: What is run.
        status: 2 to mend a fault; 0 where the input can be read.
        notes: Notes that preparing gives other than the valid ones; None for those left out.
        most_file_bytes: Longest file that the command may write.
    """

    name: str
    make: Make
    said: str = ""
    command: str = ""
    status: int = 2
    notes: Mapping[str, Row | None] = field(default_factory=dict)
    most_file_bytes: int | None = None


def put(name: str, content: bytes | str) -> Make:
    """The file with other content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def swapped(name: str, old: bytes | str, new: bytes | str, count: int = 1) -> Make:
    """The file with a part replaced by another, so many times from its beginning; -1 everywhere."""
    old, new = (part.encode() if isinstance(part, str) else part for part in (old, new))

    def make(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data, f"{name} has no {old!r}"
        (folder / name).write_bytes(data.replace(old, new, count))

    return make


def turned(name: str, into: Callable[[bytes], bytes]) -> Make:
    """The file with what a function makes of its content."""
    return lambda folder: (folder / name).write_bytes(into((folder / name).read_bytes()))


def cut(name: str, part: float) -> Make:
    """The first part of a file alone."""
    return turned(name, lambda data: data[: int(part * len(data))])


def added(name: str, more: bytes | str) -> Make:
    """The file with something after its end."""
    data = more.encode() if isinstance(more, str) else more
    return turned(name, lambda content: content + data)


def zipped(name: str, into: Callable[[bytes], bytes] = lambda data: data) -> Make:
    """A packed copy of a file, with what a function makes of its bytes."""
    return lambda folder: (folder / f"{name}.gz").write_bytes(
        into(gzip.compress((folder / name).read_bytes()))
    )


def frame(name: str, into: Callable[[pl.DataFrame], pl.DataFrame], **options: Any) -> Make:
    """A Parquet file with what a function makes of its rows."""
    return lambda folder: into(pl.read_parquet(folder / name)).write_parquet(
        folder / name, **options
    )


def line(name: str, number: int, into: Callable[[Any], Any]) -> Make:
    """A file of JSON lines with what a function makes of the value in one of them."""

    def make(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        lines[number] = json.dumps(into(json.loads(lines[number])))
        (folder / name).write_text("\n".join(lines) + "\n")

    return make


def json_of(name: str, into: Callable[[Any], Any]) -> Make:
    """A JSON file with what a function makes of its value."""
    return lambda folder: (folder / name).write_text(
        json.dumps(into(json.loads((folder / name).read_text())), indent=1)
    )


def without(name: str) -> Make:
    """Without a file or folder."""

    def make(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make


def sealed(bundle: str) -> Make:
    """A folder with a manifest that fits what is in it now."""

    def make(folder: Path) -> None:
        (folder / bundle / manifest.MANIFEST).unlink(missing_ok=True)
        manifest.seal(folder / bundle, "valid")

    return make


def of_format(folder: str, number: int) -> Make:
    """A folder with the manifest of another version of notetune."""

    def make(place: Path) -> None:
        path = place / folder / manifest.MANIFEST
        written = json.loads(path.read_text()) | {"format": number}
        del written["digest"]
        storage.write_json(path, {**written, "digest": storage.fingerprint(written)})

    return make


def all_of(*makes: Make) -> Make:
    """One thing after another."""

    def make(folder: Path) -> None:
        for each in makes:
            each(folder)

    return make


def nothing(_: Path) -> None:
    """The valid inputs as they are."""
