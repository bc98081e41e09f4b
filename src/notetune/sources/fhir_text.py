"""The text of FHIR documents: of attachments in one or more formats, or of sections."""

import codecs
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from notetune.notes.clean import WHITE
from notetune.sources.fhir_files import Attachments, NotExported
from notetune.sources.fhir_markup import in_one_line, visible_text
from notetune.sources.rejections import Rejected
from notetune.sources.tables.resources import items

_FORMATS: Final = (
    *("text/plain", "text/html", "application/xhtml+xml", "text/xml", "application/xml"),
)
"""Those with text, the preferred first."""
_REFUSED: Final = (
    *("application/rtf", "text/rtf", "application/pdf", "application/msword"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    *("image/jpeg", "image/png", "image/tiff"),
)
"""Those that a message may name."""
_BEGINNINGS: Final = {b"{\\rtf": "application/rtf", b"%PDF-": "application/pdf"}
"""Of bytes that only call themselves text."""
# Python knows more codecs than text has: some run other decoders or escapes.
_CHARSETS: Final = frozenset(
    ("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be")
)
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,200}encoding=["']([\w.-]+)|<meta[^>]{0,200}charset=["']?([\w.-]+)""", re.I
)
_DAMAGED_UTF8 = re.compile(rb"[\xc2-\xf4](?:[\x80-\xbf]|\Z)")
_SAME_SHARE: Final = 0.9
_MOST_NESTED: Final = 50


@dataclass(frozen=True)
class _Read:
    """The text of one attachment, and where it stands among all."""

    position: int
    kind: str
    text: str

    @cached_property
    def words(self) -> Counter[str]:
        return Counter(re.findall(r"\w+", self.text.lower()))

    def repeats(self, other: "_Read") -> bool:
        """Whether both say the same; of two formats, where they share 90 % of the words."""
        if self.kind == other.kind:
            return self.text == other.text
        shared = (self.words & other.words).total()
        return shared >= _SAME_SHARE * max(self.words.total(), other.words.total())


def attachment_text(listed: Sequence[Mapping[str, Any]], places: Attachments, beside: Path) -> str:
    """The text of all attachments of a document, in their order, with a blank line between them.

    What is there in two formats is taken once, as plain text where it can be. An attachment without
    text, or whose bytes are not here, is passed over only where another format has text. `beside`
    is the folder of the NDJSON file.

    Raises:
        Rejected: If there is no attachment of text, or it cannot be found or decoded.
    """
    read: list[_Read] = []
    refused: list[str] = []
    missing: dict[str, NotExported] = {}
    for kind, charset, position in _by_preference(listed):
        try:
            raw = places.raw(listed[position], beside) if kind in _FORMATS else b""
        except NotExported as fault:
            missing.setdefault(kind, fault)
            continue
        beginning = next((of for start, of in _BEGINNINGS.items() if raw.startswith(start)), None)
        if other := (kind or "no type") if kind not in _FORMATS else beginning:
            refused.append(other)
            continue
        found = _Read(position, kind, _text(raw, kind, charset))
        if not any(map(found.repeats, read)):
            read.append(found)
    for kind, absent in missing.items():
        if all(found.kind == kind for found in read):
            raise absent
    if not read:
        raise _without_text(refused)
    read.sort(key=lambda found: found.position)
    return "\n\n".join(found.text for found in read if found.text)


def _by_preference(listed: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Media type, charset and place of each attachment, the preferred formats first."""
    types = [(*_parts(item.get("contentType")), place) for place, item in enumerate(listed)]
    ranks = {kind: rank for rank, kind in enumerate(_FORMATS)}
    return sorted(types, key=lambda of: ranks.get(of[0], len(ranks)))


def _text(raw: bytes, kind: str, charset: str) -> str:
    text = _decoded(raw, charset)
    if kind != "text/plain":
        text = visible_text(text, is_xml=kind in ("text/xml", "application/xml"))
    return text.strip(WHITE)


def section_text(composition: Mapping[str, Any]) -> str:
    """The narratives of the sections of a Composition under their titles, in order.

    Raises:
        Rejected: If no section has text, or sections stand too deep in one another.
    """
    parts = _sections(composition.get("section"), _MOST_NESTED)
    if not parts:
        raise Rejected("no section with text", "export the narratives of its sections")
    return "\n\n".join(parts)


def _sections(listed: Any, depth: int) -> list[str]:
    if depth == 0:
        raise Rejected(f"sections over {_MOST_NESTED} deep", "put them side by side")
    parts = []
    for section in items(listed):
        narrative = section.get("text")
        div = narrative.get("div") if isinstance(narrative, dict) else None
        own = visible_text(div) if isinstance(div, str) else ""
        if not (inside := [*filter(None, [own]), *_sections(section.get("section"), depth - 1)]):
            continue
        title = section.get("title")
        name = in_one_line(title).strip(" ") if isinstance(title, str) else ""
        if name and own.partition("\n")[0].lower() != name.lower():
            inside[0] = f"{name}\n{inside[0]}"
        parts += inside
    return parts


def _without_text(kinds: Sequence[str]) -> Rejected:
    remedy = "export it as text/plain or text/html"
    if named := next((kind for kind in kinds if kind in _REFUSED), None):
        return Rejected(f"attachment of {named} alone", remedy)
    return Rejected("attachment of an unknown type" if kinds else "no attachment of text", remedy)


def _parts(content_type: Any) -> tuple[str, str]:
    """Media type and charset, in lower case; "" where there is none."""
    first, *parameters = (content_type if isinstance(content_type, str) else "").lower().split(";")
    named = dict(part.strip().partition("=")[::2] for part in parameters)
    return first.strip(), named.get("charset", "").strip("\"' ")


def _decoded(raw: bytes, charset: str) -> str:
    """The text of bytes, without a byte order mark, which says more than a charset.

    Without both it is UTF-8, else what the markup declares, else Latin-1. Where that has control
    characters it stands for windows-1252, which is left to the cleaning of the note.
    """
    mark = next((mark for mark in _MARKS if raw.startswith(mark)), None)
    name = _MARKS[mark] if mark else _codec(charset or _undeclared(raw))
    try:
        return raw.decode(name)
    except UnicodeDecodeError:  # its object attribute holds the note
        raise Rejected("attachment is not in its charset", "export it in UTF-8") from None


def _codec(charset: str) -> str:
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        name = ""
    if name not in _CHARSETS:
        raise Rejected("attachment in an unknown charset", "export it in UTF-8")
    return name


def _undeclared(raw: bytes) -> str:
    """The charset of bytes whose type names none."""
    with suppress(UnicodeDecodeError):
        raw.decode("utf-8")
        return "utf-8"
    if declared := _DECLARED.search(raw[:1024]):
        return (declared[1] or declared[2]).decode("ascii", errors="replace")
    return "utf-8" if _DAMAGED_UTF8.search(raw) else "iso8859-1"
