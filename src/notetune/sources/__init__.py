"""Where notes and outcomes come from: one config and one reader per kind of source."""

from typing import Annotated

from pydantic import Field

from notetune.sources.cohort import Cohort, Finished, NoteStream, collect
from notetune.sources.eicu import EicuSource
from notetune.sources.fhir import FhirSource
from notetune.sources.meds import MedsSource
from notetune.sources.mimic.mimic3 import Mimic3Source
from notetune.sources.mimic.mimic4 import Mimic4Source
from notetune.sources.omop import OmopSource
from notetune.sources.paths import files_of, starting_from
from notetune.sources.rejections import write_rejections
from notetune.sources.tables.source import TableColumns, TableSource

Source = (
    TableSource | EicuSource | Mimic3Source | Mimic4Source | MedsSource | OmopSource | FhirSource
)
SourceConfig = Annotated[Source, Field(discriminator="kind")]

__all__ = [
    "Cohort",
    "EicuSource",
    "FhirSource",
    "Finished",
    "MedsSource",
    "Mimic3Source",
    "Mimic4Source",
    "NoteStream",
    "OmopSource",
    "Source",
    "SourceConfig",
    "TableColumns",
    "TableSource",
    "files_of",
    "open_notes",
    "read",
    "starting_from",
    "write_rejections",
]


def open_notes(source: Source) -> NoteStream:
    """Begin to read a source: notes in chunks, then task tables and a balanced flow.

    Raises:
        DataError: Here or while reading, if a file is missing or faulty; it names file, line and
            remedy, never text.
    """
    return source.open()


def names_patients(source: Source) -> bool:
    """Whether the notes of a source say whose they are; else each counts as its own patient's."""
    return not isinstance(source, TableSource) or source.columns.patient_id is not None


def read(source: Source) -> Cohort:
    """Read a whole source into memory; errors as in `open_notes`."""
    return collect(open_notes(source))
