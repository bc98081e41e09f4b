"""Where notes and outcomes come from: one config and one reader per kind of source."""

from typing import Annotated, assert_never

from pydantic import Field

from notetune.notes.sources.cohort import NOTES_SCHEMA, TASK_SCHEMA, Cohort, FlowCount
from notetune.notes.sources.eicu import EicuSource, read_eicu
from notetune.notes.sources.mimic3 import Mimic3Source, read_mimic3
from notetune.notes.sources.table import TableColumns, TableSource, TableTask, read_table_source

SourceConfig = Annotated[TableSource | EicuSource | Mimic3Source, Field(discriminator="kind")]

__all__ = [
    "NOTES_SCHEMA",
    "TASK_SCHEMA",
    "Cohort",
    "EicuSource",
    "FlowCount",
    "Mimic3Source",
    "SourceConfig",
    "TableColumns",
    "TableSource",
    "TableTask",
    "read",
]


def read(source: TableSource | EicuSource | Mimic3Source) -> Cohort:
    """Read a source into notes, task tables and a balanced flow.

    Raises:
        DataError: If a file is missing or faulty; it names file, line and remedy, never text.
    """
    match source:
        case TableSource():
            return read_table_source(source)
        case EicuSource():
            return read_eicu(source)
        case Mimic3Source():
            return read_mimic3(source)
        case _:
            assert_never(source)
