"""A cohort has its columns, unique ids and the notes of its tasks; no other passes the check."""

import polars as pl
import pytest
from checked_cohort import checked_cohort
from table_of_letters import cohort_of

from notetune.sources.cohort import TASK_SCHEMA


def test_a_cohort_has_its_columns_ids_and_task_notes(tmp_path):
    cohort = cohort_of(tmp_path)
    (task, table), *_ = cohort.tasks
    extra = pl.DataFrame({"note_id": ["999"], "labels": [["lung"]]}, schema=TASK_SCHEMA)
    assert checked_cohort(**vars(cohort)) == cohort
    for wrong in (
        {"notes": cohort.notes.drop("time")},
        {"notes": pl.concat([cohort.notes, cohort.notes])},
        {"tasks": ((task, pl.concat([table, extra])),)},
    ):
        with pytest.raises(AssertionError):
            checked_cohort(**{**vars(cohort), **wrong})
