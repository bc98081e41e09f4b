"""A cohort checks its columns, its ids and the notes of its tasks."""

import polars as pl
import pytest
from table_of_letters import (
    cohort_of,
)

from notetune.errors import DataError
from notetune.sources import Cohort
from notetune.sources.cohort import TASK_SCHEMA


def test_a_cohort_checks_its_columns_ids_and_task_notes(tmp_path):
    cohort = cohort_of(tmp_path)
    (task, table), *_ = cohort.tasks
    with pytest.raises(DataError, match="columns"):
        Cohort((), (), notes=cohort.notes.drop("time"))
    with pytest.raises(DataError, match="a note id is given to two notes"):
        Cohort((), (), notes=pl.concat([cohort.notes, cohort.notes]))
    extra = pl.DataFrame({"note_id": ["999"], "labels": [["lung"]]}, schema=TASK_SCHEMA)
    with pytest.raises(DataError, match="1 labelled notes are not in the notes"):
        Cohort(((task, pl.concat([table, extra])),), (), notes=cohort.notes)
