"""Notes in the form in which leak checks compare them."""

import hashlib
import re
from collections.abc import Iterable

# The bounds keep both patterns linear on text with many marks that open and never close.
_MARKS = re.compile(r"\[\*\*.{0,200}?\*\*\]|_{3,}", re.DOTALL)


def normalised_text(text: str) -> str:
    r"""Lower case, de-identification marks removed, every run of white space one space.

    Example:
        >>> normalised_text("Seen by [**Last Name 7**]\n at  ___ Clinic")
        'seen by at clinic'
    """
    return " ".join(_MARKS.sub(" ", text).casefold().split())


def text_hashes(texts: Iterable[str]) -> list[bytes]:
    """A 16-byte hash per text, equal when only letter case, white space or marks differ."""
    return [text_digest(normalised_text(text)) for text in texts]


def text_digest(text: str) -> bytes:
    """16 bytes that two texts share only if they are equal."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
