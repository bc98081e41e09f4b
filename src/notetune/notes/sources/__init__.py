"""Where notes and outcomes come from: one config and one reader per kind of source."""

from typing import Annotated, assert_never

from pydantic import Field

from notetune.notes.sources.cohort import (
    NOTES_SCHEMA,
    TASK_SCHEMA,
    Cohort,
    Finished,
    FlowCount,
    NoteStream,
    as_stream,
    collect,
)
from notetune.notes.sources.eicu import EicuSource, read_eicu
from notetune.notes.sources.mimic3 import Mimic3Source, read_mimic3
from notetune.notes.sources.table import TableColumns, TableSource, TableTask, read_table_source

SourceConfig = Annotated[TableSource | EicuSource | Mimic3Source, Field(discriminator="kind")]

__all__ = [
    "NOTES_SCHEMA",
    "TASK_SCHEMA",
    "Cohort",
    "EicuSource",
    "Finished",
    "FlowCount",
    "Mimic3Source",
    "NoteStream",
    "SourceConfig",
    "TableColumns",
    "TableSource",
    "TableTask",
    "open_notes",
    "read",
]


def open_notes(source: TableSource | EicuSource | Mimic3Source) -> NoteStream:
    """Begin to read a source: notes in chunks, then task tables and a balanced flow.

    Raises:
        DataError: Here or while reading, if a file is missing or faulty; it names file, line and
            remedy, never text.
    """
    match source:
        case TableSource():
            return as_stream(read_table_source(source))
        case EicuSource():
            return as_stream(read_eicu(source))
        case Mimic3Source():
            return as_stream(read_mimic3(source))
        case _:
            assert_never(source)


def read(source: TableSource | EicuSource | Mimic3Source) -> Cohort:
    """Read a whole source into memory; errors as in `open_notes`."""
    return collect(open_notes(source))
