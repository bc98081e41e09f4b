"""Drafts of small tables."""

import polars as pl
import pytest
from draft_tables import LONG

from notetune.recipe.draft import Choices, draft
from notetune.sources.tables.survey import survey


@pytest.fixture
def drafted(tmp_path):
    """Drafts of a table with these columns beside its texts."""

    def made(choices=None, **columns):
        path = tmp_path / "notes.parquet"
        texts = [f"{LONG} {row}" for row in range(40)]
        pl.DataFrame({"body": texts, **columns}).write_parquet(path)
        return draft(path, survey(path), choices or Choices(), "ours", "tiny")

    return made
