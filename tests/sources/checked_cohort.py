"""What every cohort keeps, whichever source it is read from."""

import polars as pl

from notetune.sources.cohort import (
    NOTES_SCHEMA,
    PREDICTION_TIME,
    REJECTIONS_SCHEMA,
    SAMPLE_ID,
    SAMPLED_TASK_SCHEMA,
    TASK_SCHEMA,
    TIMED_TASK_SCHEMA,
    Cohort,
)


def checked_cohort(**fields):
    """The cohort, if its columns are as promised, its ids are unique and its labels have notes."""
    cohort = Cohort(**fields)
    assert cohort.notes.schema == pl.Schema(NOTES_SCHEMA)
    assert cohort.rejections.schema == pl.Schema(REJECTIONS_SCHEMA)
    assert cohort.notes["note_id"].is_unique().all()
    for _, table in cohort.tasks:
        schema = TIMED_TASK_SCHEMA if PREDICTION_TIME in table.columns else TASK_SCHEMA
        if SAMPLE_ID in table.columns:
            schema = SAMPLED_TASK_SCHEMA
            assert table[SAMPLE_ID].is_unique().all()
        assert table.schema == pl.Schema(schema)
        assert table.join(cohort.notes, on="note_id", how="anti").is_empty()
    return cohort
