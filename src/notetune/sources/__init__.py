"""Where notes and outcomes come from: one config and one reader per kind of source."""

from typing import Annotated

import polars as pl
from pydantic import Field

from notetune.sources.cohort import NOTES_SCHEMA, Cohort, Finished, NoteStream
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
    "read",
    "starting_from",
    "write_rejections",
]


def names_patients(source: Source) -> bool:
    """Whether the notes of a source say whose they are; else each counts as its own patient's."""
    return not isinstance(source, TableSource) or source.columns.patient_id is not None


def read(source: Source) -> Cohort:
    """Read a source of modest size into memory; errors as in its `open`."""
    stream = source.open()
    notes = pl.concat([pl.DataFrame(schema=NOTES_SCHEMA), *stream.chunks])
    return Cohort(**vars(stream.finish()), notes=notes)
