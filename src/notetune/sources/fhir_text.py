"""The text of FHIR attachments: inline or in a local Binary, plain or HTML."""

import base64
import binascii
import codecs
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

from notetune.errors import DataError
from notetune.sources.paths import matching_files
from notetune.sources.rejections import Rejected
from notetune.strict_csv import numbered_lines, open_file

_REFERENCE = re.compile(
    r"(?:.*/)?(?P<type>[A-Za-z]+)/(?P<id>[A-Za-z0-9.\-]{1,64})(?:/_history/.*)?"
)
# Python knows more codecs than text has: some run other decoders or escapes.
_CHARSETS: Final = frozenset(
    ("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be")
)
_FORMATS: Final = ("text/plain", "text/html")
_HIDDEN_TAGS: Final = frozenset(("script", "style", "title"))
_LINE_TAGS: Final = (
    *("br", "p", "div", "tr", "li", "ul", "ol", "dt", "dd", "table", "pre", "hr"),
    *("section", "article", "h1", "h2", "h3", "h4", "h5", "h6"),
)
_CELL_TAGS: Final = (
    *("td", "th", "script", "style", "img", "input", "button", "select", "option", "textarea"),
)
"""What stands between words as a space does."""

Binaries = Callable[[str], dict[str, Any] | None]
"""From the id of a Binary to the resource; None if there is none."""


def attachment_text(content: Any, binaries: Binaries) -> str:
    """The text in the `content` of a DocumentReference: one document in one or more formats.

    Raises:
        Rejected: If there is no attachment of text, or it cannot be found or decoded.
    """
    items = (
        [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    )
    attachments = [item["attachment"] for item in items if isinstance(item.get("attachment"), dict)]
    by_format = {_parts(item.get("contentType"))[0]: item for item in reversed(attachments)}
    kind = next((kind for kind in _FORMATS if kind in by_format), None)
    if kind is None:
        raise Rejected("no attachment of text", "export it as text/plain or text/html")
    attachment = by_format[kind]
    data = attachment.get("data") or _binary_data(attachment.get("url"), binaries)
    text = _decoded(data, attachment["contentType"])
    if kind != "text/html":
        return text
    stripper = _Stripper()
    stripper.feed(text)
    stripper.close()
    lines = (line.strip() for line in "".join(stripper.parts).split("\n"))
    return "\n".join(line for line in lines if line)


def referred_id(reference: Any, kind: str) -> str | None:
    """The id in the address of a resource of that kind; None if it is none."""
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    return found["id"] if found and found["type"] == kind else None


def open_binaries(path: Path | None, max_chars: int) -> Binaries:
    """A way to the Binary resources of `FhirSource.binaries`; only their places are held in memory.

    Raises:
        DataError: If a file is missing, packed or no NDJSON.
    """
    if path is None:
        return lambda _: None
    if path.is_dir() and not any(path.glob("**/*.ndjson*")):
        return lambda name: _read_object(path / f"{name}.json")
    places: dict[str, tuple[Path, int]] = {}
    for file in matching_files(path, (".ndjson", ".ndjson.gz")):
        places.update(_places(file, 8 * max_chars + 4096))
    return lambda name: _read_at(*places[name]) if name in places else None


def _places(file: Path, max_bytes: int) -> dict[str, tuple[Path, int]]:
    if file.name.lower().endswith(".gz"):
        raise DataError(f"{file} is packed, so that no Binary in it can be found; unpack it.")
    places = {}
    start = 0
    with open_file(file, ".ndjson") as lines:
        for number, line in numbered_lines(file, lines, max_bytes):
            resource = _object(line)
            if resource is None:
                raise DataError(f"{file}, line {number}: not a JSON object in UTF-8; mend it.")
            if resource.get("resourceType") == "Binary" and isinstance(resource.get("id"), str):
                places[resource["id"]] = (file, start)
            start = lines.tell()
    return places


def _read_object(file: Path) -> dict[str, Any] | None:
    return _object(file.read_bytes()) if file.is_file() else None


def _read_at(file: Path, start: int) -> dict[str, Any] | None:
    with file.open("rb") as lines:
        lines.seek(start)
        return _object(lines.readline())


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _binary_data(url: Any, binaries: Binaries) -> Any:
    name = referred_id(url, "Binary")
    if name is None:
        raise Rejected("attachment without data or url to a Binary", "export the data inline")
    if (resource := binaries(name)) is None:
        raise Rejected("no such Binary", "set binaries to the file or folder that holds it")
    return resource.get("data")


def _parts(content_type: Any) -> tuple[str, str]:
    """Media type and charset, in lower case; UTF-8 where there is none."""
    first, *parameters = (content_type if isinstance(content_type, str) else "").lower().split(";")
    named = dict(part.strip().partition("=")[::2] for part in parameters)
    return first.strip(), named.get("charset", "utf-8").strip("\"' ")


def _decoded(data: Any, content_type: str) -> str:
    if not isinstance(data, str):
        raise Rejected("attachment without data", "export the data inline")
    try:
        raw = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("attachment is not base64", "export it again") from None
    try:
        charset = codecs.lookup(_parts(content_type)[1]).name
    except (LookupError, ValueError):
        charset = ""
    if charset not in _CHARSETS:
        raise Rejected("attachment in an unknown charset", "export it in UTF-8")
    try:
        return raw.decode(charset)
    except UnicodeDecodeError:  # its object attribute holds the note
        raise Rejected("attachment is not in its charset", "export it in UTF-8") from None


class _Stripper(HTMLParser):
    """Collects what a reader of the page would see, with line breaks where blocks end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0
        self._kept_space = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)
        self._hidden += tag in _HIDDEN_TAGS
        self._kept_space += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _HIDDEN_TAGS and self._hidden > 0
        self._kept_space -= tag == "pre" and self._kept_space > 0
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self.parts and self.parts[-1][-1:].isdigit() and data[:1].isdigit():
            self.parts.append(" ")  # 10<sup>9</sup> is not 109
        if self._kept_space:
            self.parts.append(data)
        else:
            # Every run of white space is one space, also where it spans two parts.
            spaced = re.sub(r"\s+", " ", data)
            follows_space = bool(self.parts) and self.parts[-1][-1:].isspace()
            if visible := spaced.lstrip() if follows_space else spaced:
                self.parts.append(visible)

    def _break(self, tag: str) -> None:
        if tag in _LINE_TAGS:
            self.parts.append("\n")
        elif tag in _CELL_TAGS:
            self.handle_data(" ")
