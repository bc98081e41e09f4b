"""Text of a note made safe to store and to split into lines, with nothing clinical removed.

A source reads text as it stands, and cleans it here alone. What is changed is a table, `_CHANGES`;
not normal form NFKC, which makes 109 of 10⁹.
"""

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from notetune.audit import IN_ALL

VERSION: Final = 3
"""Raised when the same note is cleaned to another text, so that notes are prepared again."""

WHITE: Final = f"{string.whitespace}\u00a0"
"""What a source may strip or collapse before a text is cleaned. `str.strip()` also takes U+0085,
the dots of windows-1252."""


class Cleaned(NamedTuple):
    """A clean text, and the kinds of change that its characters took.

    They are to be counted note by note; `IN_ALL` comes before them, if there are some.
    """

    text: str
    changes: tuple[str, ...] = ()


class _Change(NamedTuple):
    name: str
    """As the flow shows it."""
    pattern: str
    """A set in brackets: of a character, or with + of a run."""
    becomes: str | Callable[[re.Match[str]], str]
    """What stands in its place."""


_MEANING: Final = dict.fromkeys((*range(0x20), 0x7F), " ") | {
    code: bytes([code]).decode("cp1252", errors="replace").replace("\ufffd", " ")
    for code in range(0x80, 0xA0)
}
_FULL_WIDTH: Final = 0xFEE0
_JOINERS_OF_SCRIPTS: Final = "\u200c\u200d"


def _within_a_word(run: re.Match[str]) -> str:
    """Nothing between two letters, else a space: a hyphen could be taken for a minus.

    Persian and the scripts of India write with joiners, which stay there.
    """
    before = run.string[max(run.start() - 1, 0) : run.start()]
    after = run.string[run.end() : run.end() + 1]
    if not (_is_letter(before) and _is_letter(after)):
        return " "
    if max(before, after) < "\u0600":
        return ""
    return "".join(joiner for joiner in run[0] if joiner in _JOINERS_OF_SCRIPTS)


def _is_letter(character: str) -> bool:
    """Whether it belongs to a word and is no number, as 三 is."""
    return (
        character != "" and unicodedata.category(character)[0] in "LM" and not character.isnumeric()
    )


_CHANGES: Final = (
    _Change("unusual line breaks made plain", "[\r\v\f\u2028\u2029]", "\n"),
    _Change(
        "control characters replaced",
        "[\0-\x08\x0e-\x1f\x7f-\x9f]",
        lambda one: one[0].translate(_MEANING),
    ),
    _Change("halves of characters replaced", "[\ud800-\udfff]", "\ufffd"),
    _Change(
        "full-width characters narrowed",
        "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]",
        lambda one: chr(ord(one[0]) - _FULL_WIDTH),
    ),
    _Change("unusual spaces made plain", "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]", " "),
    _Change("byte order marks and zero-width spaces made plain", "[\u200b\ufeff]", " "),
    _Change(  # last, for it looks at what stands beside
        "soft hyphens and joiners taken out",
        "[\u00ad\u200c\u200d\u2060-\u2064]+",
        _within_a_word,
    ),
)
# One set: alternatives take seven times as long.
_ANY: Final = re.compile(f"[{''.join(change.pattern.strip('[]+') for change in _CHANGES)}]")


def clean_text(text: str) -> str:
    """The text of `cleaned`."""
    return cleaned(text).text


def cleaned(text: str) -> Cleaned:
    r"""The note with one kind of line break, no control characters and no space at line ends.

    Nothing that stands apart runs together: what goes leaves a space, but for invisible marks
    between two letters of a word. A control character of windows-1252 becomes what it means there,
    since its dashes, quotes and dots reach notes as U+0080 to U+009F. Full-width digits and letters
    become ASCII, not full-width signs: a full stop may end a sentence between two numbers.

    A lone carriage return counts as a line break for many readers: in the published pipeline 200
    notes with one each became 400 lines. Letter case, tabs, blank lines inside the note, `___` and
    the words of de-identification marks stay, and so do marks of direction.

    A lone surrogate, which JSON can carry and UTF-8 cannot, becomes U+FFFD.

    Returns:
        A text that this leaves unchanged, empty if nothing visible is left; and the changes of
        characters. Line breaks of Windows and space at the ends of lines are no changes.

    Source:
        Data specification, section 1.2 (scripts/prepare_mimic_iv.py in clinical_peft).

    Example:
        >>> clean_text("Chief Complaint: \r\nchest pain\r")
        'Chief Complaint:\nchest pain'
        >>> cleaned("5\x9610\x00mg").changes
        ('in all', 'control characters replaced')
    """
    plain, changes = _changed(text.replace("\r\n", "\n"), _CHANGES)
    # Not a regular expression: "[ \t]+$" takes quadratic time on a long run of spaces.
    return Cleaned("\n".join(line.rstrip() for line in plain.split("\n")).strip(), changes)


def with_plain_characters(text: str) -> str:
    """As `clean_text`, with line breaks and the space at ends of lines as they are."""
    return _changed(text, _CHANGES[1:]).text


def _changed(text: str, kinds: Sequence[_Change]) -> Cleaned:
    if not (found := "".join(set(_ANY.findall(text)))):
        return Cleaned(text)
    names = []
    for kind in kinds:
        if re.search(kind.pattern, found):
            before, text = text, re.sub(kind.pattern, kind.becomes, text)
            if text != before:
                names.append(kind.name)
    return Cleaned(text, (IN_ALL, *names) if names else ())
