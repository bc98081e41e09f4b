"""Text of a note made safe to store and to split into lines, with nothing clinical removed."""

import re

_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# C0 except tab and line feed, DEL and C1, byte order marks; x85 is a line break, handled before.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_MARK_ENDS = re.compile(r"\[\*\*|\*\*\]")


def clean_text(text: str, *, open_marks: bool = False) -> str:
    r"""The note with one kind of line break, no control characters and no space at line ends.

    A lone carriage return counts as a line break for many readers: in the published pipeline 200
    notes with one each became 400 lines. Letter case, tabs, blank lines inside the note, `___` and
    the words of de-identification marks stay.

    Args:
        text: Any string, including one with lone surrogates (JSON can carry them; UTF-8 cannot,
            so each becomes U+FFFD).
        open_marks: Replace `[**` and `**]` by a space, as the published pipeline does.

    Returns:
        A string that `clean_text` leaves unchanged; empty if nothing visible is left.

    Source:
        Data specification, section 1.2 (scripts/prepare_mimic_iv.py in clinical_peft).

    Example:
        >>> clean_text("Chief Complaint: \r\nchest pain\r")
        'Chief Complaint:\nchest pain'
    """
    text = _LINE_BREAKS.sub("\n", text)
    text = _CONTROLS.sub("", text)
    text = _LONE_SURROGATES.sub("\ufffd", text)
    if open_marks:
        text = _MARK_ENDS.sub(" ", text)
    # Not a regular expression: "[ \t]+$" takes quadratic time on a long run of spaces.
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()
