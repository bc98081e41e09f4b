"""Text of a note made safe to store and to split into lines, with nothing clinical removed."""

import re
from typing import Final

VERSION: Final = 2
"""Raised when the same note is cleaned to another text, so that notes are prepared again."""

_LINE_BREAKS = re.compile("\r\n|[\r\v\f\u2028\u2029]")
# C0 except tab and line feed, DEL, C1 and byte order marks.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    r"""The note with one kind of line break, no control characters and no space at line ends.

    Nothing that stands apart runs together: a control character becomes a space, or what it means
    in windows-1252, whose dashes, quotes and dots reach notes as U+0080 to U+009F.

    A lone carriage return counts as a line break for many readers: in the published pipeline 200
    notes with one each became 400 lines. Letter case, tabs, blank lines inside the note, `___` and
    the words of de-identification marks stay.

    A lone surrogate, which JSON can carry and UTF-8 cannot, becomes U+FFFD.

    Returns:
        A string that `clean_text` leaves unchanged; empty if nothing visible is left.

    Source:
        Data specification, section 1.2 (scripts/prepare_mimic_iv.py in clinical_peft).

    Example:
        >>> clean_text("Chief Complaint: \r\nchest pain\r")
        'Chief Complaint:\nchest pain'
        >>> clean_text("5\x9610\x00mg") == "5\u201310 mg"
        True
    """
    text = _LINE_BREAKS.sub("\n", text)
    text = _CONTROLS.sub(_meaning, text)
    text = _LONE_SURROGATES.sub("\ufffd", text)
    # Not a regular expression: "[ \t]+$" takes quadratic time on a long run of spaces.
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _meaning(control: re.Match[str]) -> str:
    """A character of windows-1252 that was read as Latin-1, or a space."""
    code = ord(control[0])
    if 0x80 <= code <= 0x9F:
        return bytes([code]).decode("cp1252", errors="replace").replace("\ufffd", " ")
    return " "
