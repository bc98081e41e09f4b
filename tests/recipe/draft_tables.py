"""Small tables, and recipes that are drafted for them."""

import polars as pl

from notetune.recipe.draft import Choices, draft
from notetune.sources.tables.survey import survey

LONG = "Admitted with chest pain radiating to the left arm since the morning."
DAYS = [f"2150-01-{1 + row % 28:02}" for row in range(40)]


def alternating(first, second):
    return [first if row % 4 == 0 else second for row in range(40)]


def drafts_in(folder):
    """What drafts a recipe for a table with these columns beside its texts."""

    def made(choices=None, **columns):
        path = folder / "notes.parquet"
        texts = [f"{LONG} {row}" for row in range(40)]
        pl.DataFrame({"body": texts, **columns}).write_parquet(path)
        return draft(path, survey(path), choices or Choices(), "ours", "tiny")

    return made
