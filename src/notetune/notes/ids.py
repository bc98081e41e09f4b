"""Ids in different spellings of one number."""

import re
from collections.abc import Iterable
from typing import Final

_NUMBER: Final = re.compile(r"0*(\d+?)(?:\.0+)?")


def bare_id(name: str) -> str:
    """An id without zeros before it or ".0" behind it, as other programs write a number.

    Example:
        >>> bare_id("007.0"), bare_id("MRN-007")
        ('7', 'MRN-007')
    """
    number = _NUMBER.fullmatch(name)
    return number[1] if number else name


def nearly_among(names: Iterable[str], known: Iterable[str]) -> int:
    """How many of the names are not known, but in another spelling of the same number."""
    exact = set(known)
    bare = set(map(bare_id, exact))
    return sum(name not in exact and bare_id(name) in bare for name in names)
