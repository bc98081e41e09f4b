"""Times as tables write them."""

import re
from datetime import datetime
from typing import Final

_DAY_WITH_ZONE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:Z|[+-]\d\d:\d\d)")
_SLASHED: Final = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4})(?:[T ](\d{1,2}):(\d\d(?::\d\d(?:\.\d+)?)?) ?([AP]M)?)?",
    re.IGNORECASE,
)
_DAY: Final = re.compile(r"(?:\d{4}-\d\d-\d\d|\d{8})(?=$|[Tt ]\d\d)")


def is_slashed(text: str) -> bool:
    """Whether a time is written as 10/23/2164 9:09 PM, with or without the hours."""
    return _SLASHED.fullmatch(text.strip()) is not None


def time_of(text: str, *, day_first: bool | None = None) -> datetime:
    """A time of ISO 8601, of BigQuery (its zone is a word), as 23.10.2164 21:09, or with slashes.

    A day is its midnight without a zone, also where XML gives it one. Before the hours stands T or
    a space: Python would take any character, and 20241105103 for three o'clock.

    Args:
        text: The time.
        day_first: Whether the first number before a slash is the day; None knows no such time.

    Raises:
        ValueError: If it is none of these.
    """
    if of_days := re.match(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?=$|[ T]\d)", text):
        day, month, year = map(int, of_days.groups())
        text = f"{year:04}-{month:02}-{day:02}{text[of_days.end() :]}"
    if day_first is not None and (slashed := _SLASHED.fullmatch(text)):
        text = _unslashed(slashed, day_first=day_first)
    text = re.sub(r" UTC$", "+00:00", text)
    if of_day := _DAY_WITH_ZONE.fullmatch(text):
        text = of_day[1]
    if not _DAY.match(text):
        raise ValueError
    return datetime.fromisoformat(text)


def _unslashed(time: re.Match[str], *, day_first: bool) -> str:
    """A slashed time in ISO 8601; ValueError if there is no such hour with AM or PM."""
    first, second, year, hour, rest, half = time.groups()
    day, month = (first, second) if day_first else (second, first)
    text = f"{year}-{month:0>2}-{day:0>2}"
    if hour is None:
        return text
    if half and not 1 <= int(hour) <= 12:
        raise ValueError
    of_day = int(hour) % 12 + 12 * (half.upper() == "PM") if half else int(hour)
    return f"{text} {of_day:02}:{rest}"
