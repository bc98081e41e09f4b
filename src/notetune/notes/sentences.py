"""Where the sentences of a note are."""

import re
from itertools import groupby
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
"""First character, and the one after the last."""
# A line break, or the space behind a full stop, question or exclamation mark that ends no title;
# no space need follow a full stop of Chinese, Japanese or Hindi.
_END = re.compile(
    r"(?<!\b(?:Dr|Mr|Ms|St|Pt|vs)\.)(?<!\bMrs\.)(?<=[.!?])[ \t]+|(?<=[。！？।])[ \t]*|\n+"  # noqa: RUF001
)
# Two letters, or one with the sign of a vowel, as in Hindi.
_WORD = re.compile(r"\w[\w\u0590-\u0963\u0966-\u0dff]")


def sentences(text: str, most: int) -> list[Span]:
    """Spans that together are the whole text, in order.

    Each has a word: what has none, such as the number of a list, belongs to what follows it, and
    at the end to what precedes. Where there are more than `most`, neighbours stand together, so
    that a long note has about `most` spans of like length.
    """
    found, start = [], 0
    for end in (*(match.end() for match in _END.finditer(text)), len(text)):
        if _WORD.search(text, start, end):
            found.append((start, end))
            start = end
    if not found:
        return [(0, len(text))]
    found[-1] = (found[-1][0], len(text))
    if len(found) <= most:
        return found
    together = (list(some) for _, some in groupby(found, lambda span: span[0] * most // len(text)))
    return [(some[0][0], some[-1][1]) for some in together]
