"""Times as tables write them."""

import re
from datetime import datetime
from typing import Final

_DAY_WITH_ZONE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:Z|[+-]\d\d:\d\d)")
_DAY: Final = re.compile(r"(?:\d{4}-\d\d-\d\d|\d{8})(?=$|[Tt ]\d\d)")


def time_of(text: str) -> datetime:
    """A time of ISO 8601, of BigQuery (its zone is a word) or as 23.10.2164 21:09.

    A day is its midnight without a zone, also where XML gives it one. Before the hours stands T or
    a space: Python would take any character, and 20241105103 for three o'clock.

    Raises:
        ValueError: If it is none of these.
    """
    if of_days := re.match(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?=$|[ T]\d)", text):
        day, month, year = map(int, of_days.groups())
        text = f"{year:04}-{month:02}-{day:02}{text[of_days.end() :]}"
    text = re.sub(r" UTC$", "+00:00", text)
    if of_day := _DAY_WITH_ZONE.fullmatch(text):
        text = of_day[1]
    if not _DAY.match(text):
        raise ValueError
    return datetime.fromisoformat(text)
