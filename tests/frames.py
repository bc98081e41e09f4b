"""Frames of notes, and what `notetune.fit` makes of them before it trains."""

import pandas as pd

from notetune import dataframe


def columns_of(notes):
    return dataframe._readable(notes, ())[0]


def of_pandas(**columns):
    rows = range(40)
    texts = [f"note {row} of chest pain" for row in rows]
    values = {"text": texts, "pid": [f"p{row // 2}" for row in rows], "y": [r % 2 for r in rows]}
    return pd.DataFrame(values | columns)


def recipe_of(notes, place, **named):
    given = {"text": "text", "patient": "pid", "outcomes": "y"} | named
    return dataframe._recipe(notes, given.pop("outcomes"), place, place, **given)
