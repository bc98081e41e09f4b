"""The bytes of FHIR attachments: inline, in a local Binary, or in a file of a local folder."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from notetune.errors import DataError
from notetune.sources.paths import matching_files
from notetune.sources.rejections import Rejected
from notetune.sources.tables.files import json_object
from notetune.sources.tables.resources import NDJSON, referred_id
from notetune.strict_csv import numbered_lines, open_file

FOLDER: Final = "attachments"
"""Beside a file of the export, the only folder in which its attachments are looked for."""


class NotExported(Rejected):
    """An attachment whose bytes are not here; the document may have another form that is."""


class Attachments:
    """Where the bytes of attachments are; nothing is ever fetched from a network.

    Args:
        binaries: As `FhirSource.binaries`; only the places of these resources are held in memory.
        max_chars: Longest text of an attachment; its file may take four bytes for each character.

    Raises:
        DataError: If a file of Binary resources is missing, packed or no NDJSON.
    """

    def __init__(self, binaries: Path | None, max_chars: int) -> None:
        self._max_bytes = 4 * max_chars + 4096
        self._folder: Path | None = None
        self._places: dict[str, tuple[Path, int]] = {}
        if binaries and binaries.is_dir() and not any(binaries.glob("**/*.ndjson*")):
            self._folder = binaries
        elif binaries:
            for file in matching_files(binaries, NDJSON):
                self._places |= _places(file, 8 * max_chars + 4096)

    def raw(self, attachment: Mapping[str, Any], beside: Path) -> bytes:
        """The bytes of one attachment; `beside` is the folder of its export.

        Raises:
            NotExported: If they are not here.
            Rejected: If they are damaged, or a url leads out of `attachments` or through a link.
        """
        data, url = attachment.get("data"), attachment.get("url")
        if not data and isinstance(url, str) and (parts := _parts(url)):
            raw = self._in_file(parts, beside)
        else:
            raw = _unpacked(data or self._of_binary(url))
        size = attachment.get("size")
        if isinstance(size, int) and len(raw) < size != len(data or ""):  # some count the base64
            raise Rejected("attachment is shorter than its size", "export it again")
        return raw

    def _of_binary(self, url: Any) -> Any:
        name = referred_id(url, "Binary")
        if name is None:
            rule = "attachment without data or url to a Binary or file"
            raise NotExported(rule, f"export the data inline, or as a file in {FOLDER}/")
        raw = b""
        if self._folder and (file := self._folder / f"{name}.json").is_file():
            raw = file.read_bytes()
        elif name in self._places:
            file, start = self._places[name]
            with file.open("rb") as lines:
                lines.seek(start)
                raw = lines.readline()
        if (resource := json_object(raw)) is None:
            raise NotExported("no such Binary", "set binaries to the file or folder that holds it")
        return resource.get("data")

    def _in_file(self, parts: list[str], beside: Path) -> bytes:
        path = beside / FOLDER
        try:
            for part in ("", *parts):
                path = path / part
                if path.is_symlink():
                    raise Rejected("attachment behind a link", f"copy its file into {FOLDER}/")
            if not path.is_file():
                raise FileNotFoundError
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                raw = file.read(self._max_bytes + 1)
        except OSError:  # its words hold the url
            remedy = f"put it into {FOLDER}/ beside the file of the export"
            raise NotExported("no such attachment file", remedy) from None
        if len(raw) > self._max_bytes:
            rule = f"attachment over {self._max_bytes:,} bytes"
            raise Rejected(rule, "split it, or raise max_note_chars")
        return raw


def _parts(url: str) -> list[str]:
    """The names on the way to a file inside the folder; none if the url leads to no such file."""
    if not url.startswith(f"{FOLDER}/") and referred_id(url, "Binary") is not None:
        return []
    try:
        if urlsplit(url).scheme or url.startswith("//"):
            return []
    except ValueError:
        return []
    parts = [part for part in unquote(url).split("/") if part != "."]
    named = parts[1:] if parts[0] == FOLDER else parts
    if not named or any(
        part in ("", "..") or "\\" in part or not part.isprintable() for part in named
    ):
        raise Rejected(f"attachment url that leads to no file in {FOLDER}/", "mend the url")
    return named


def _unpacked(data: Any) -> bytes:
    if not isinstance(data, str):
        raise NotExported("attachment without data", "export the data inline")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except ValueError:
        raise Rejected("attachment is not base64", "export it again") from None


def _places(file: Path, max_bytes: int) -> dict[str, tuple[Path, int]]:
    """Where the Binary of each id stands in a file."""
    if file.name.lower().endswith(".gz"):
        raise DataError(f"{file} is packed, so that no Binary in it can be found; unpack it.")
    places = {}
    start = 0
    with open_file(file, ".ndjson") as lines:
        for number, line in numbered_lines(file, lines, max_bytes):
            resource = json_object(line)
            if resource is None:
                raise DataError(f"{file}, line {number}: not a JSON object in UTF-8; mend it.")
            if resource.get("resourceType") == "Binary" and isinstance(resource.get("id"), str):
                places[resource["id"]] = (file, start)
            start = lines.tell()
    return places
