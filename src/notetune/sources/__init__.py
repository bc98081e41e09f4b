"""Where notes and outcomes come from: one config and one reader per kind of source."""

from collections.abc import Mapping
from typing import Annotated, Final

import polars as pl
from pydantic import Field

from notetune.aliases import Join
from notetune.sources.cohort import NOTES_SCHEMA, Cohort, refuse_repeated_ids
from notetune.sources.eicu import EicuSource
from notetune.sources.fhir import FhirSource
from notetune.sources.joined import joined
from notetune.sources.meds import MedsSource
from notetune.sources.mimic.mimic3 import Mimic3Source
from notetune.sources.mimic.mimic4 import Mimic4Source
from notetune.sources.omop import OmopSource
from notetune.sources.tables.source import TableSource

Source = (
    TableSource | EicuSource | Mimic3Source | Mimic4Source | MedsSource | OmopSource | FhirSource
)
SourceConfig = Annotated[Source, Field(discriminator="kind")]

MADE_NOTES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("mimic3", "mimic4"), "admission notes, cut from discharge summaries"),
    "eicu": "texts written from the entries of a stay's first day",
    "fhir": "texts taken out of the attachments and sections of documents",
}
"""What the notes are of a source that makes them of what its files hold, by its kind."""


def names_patients(source: Source) -> bool:
    """Whether the notes of a source say whose they are; else each counts as its own patient's."""
    return not isinstance(source, TableSource) or source.columns.patient_id is not None


def missing_stay_key(source: Source) -> str | None:
    """The key that is to say what the stay of a note is; None where the source knows it."""
    if isinstance(source, TableSource) and source.columns.stay_id is None:
        return "columns.stay_id"
    return "stay_id" if isinstance(source, MedsSource) and source.stay_id is None else None


def read(source: Source, join: Join = "none") -> Cohort:
    """Read a source of modest size into memory.

    Raises:
        DataError: As its `open` and `joined`, or if two notes have the same id.
    """
    stream = source.open() if join == "none" else joined(source.open())
    notes = pl.concat([pl.DataFrame(schema=NOTES_SCHEMA), *stream.chunks])
    refuse_repeated_ids(notes)
    return Cohort(**vars(stream.finish()), notes=notes)
