"""What a reader would see of HTML, XHTML or XML."""

import html
import re
from html.parser import HTMLParser
from typing import Final

from notetune.notes.clean import WHITE

_HIDDEN_TAGS: Final = frozenset(("script", "style", "title"))
_LINE_TAGS: Final = frozenset(
    (
        *("br", "p", "div", "tr", "li", "ul", "ol", "dt", "dd", "table", "pre", "hr"),
        *("section", "article", "h1", "h2", "h3", "h4", "h5", "h6"),
    )
)
_CELL_TAGS: Final = frozenset(
    ("td", "th", "script", "style", "img", "input", "button", "select", "option", "textarea")
)
"""What stands between words as a space does."""
_XML_LINE_TAGS: Final = _LINE_TAGS | {"title", "text", "paragraph", "list", "item", "caption"}
_XML_INLINE_TAGS: Final = frozenset(
    ("content", "sub", "sup", "b", "i", "u", "em", "strong", "span", "a", "linkhtml")
)
_CDATA: Final = "<![CDATA["
_OWN_ENTITIES: Final = re.compile(r"<!DOCTYPE\s[^\[>]*\[[^\]]*\]\s*>", re.IGNORECASE)
_WHITE_RUN: Final = re.compile(f"[{WHITE}]+")


def in_one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return _WHITE_RUN.sub(" ", text)


def visible_text(markup: str, *, is_xml: bool = False) -> str:
    """The text between the tags, a line per block, without blank lines.

    Numbers on both sides of a tag never run together. XML has no tags that are known to stand
    inside a word but those of CDA and HTML: any other parts words, and nothing but a script or a
    style is hidden.
    """
    stripper = _Stripper(is_xml=is_xml)
    stripper.feed(_without_cdata(_OWN_ENTITIES.sub("", markup)) if is_xml else markup)
    stripper.close()
    lines = (line.strip(WHITE) for line in "".join(stripper.parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _without_cdata(markup: str) -> str:
    first, *others = markup.split(_CDATA)
    parts = [first]
    for other in others:
        inside, _, after = other.partition("]]>")
        parts += [html.escape(inside, quote=False), after]
    return "<!---->".join(parts)  # which parts numbers, as tags do


class _Stripper(HTMLParser):
    """Collects what a reader of the page would see, with line breaks where blocks end."""

    def __init__(self, *, is_xml: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._is_xml = is_xml
        self._hidden_tags = _HIDDEN_TAGS - {"title"} if is_xml else _HIDDEN_TAGS
        self.parts: list[str] = []
        self._hidden = 0
        self._kept_space = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)
        self._hidden += tag in self._hidden_tags
        self._kept_space += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._hidden_tags and self._hidden > 0
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
            spaced = in_one_line(data)
            follows_space = bool(self.parts) and self.parts[-1][-1:] in WHITE
            if visible := spaced.lstrip(" ") if follows_space else spaced:
                self.parts.append(visible)

    def _break(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if name in (_XML_LINE_TAGS if self._is_xml else _LINE_TAGS):
            self.parts.append("\n")
        elif name in _CELL_TAGS or (self._is_xml and name not in _XML_INLINE_TAGS):
            self.handle_data(" ")
