"""OMOP common data model: the NOTE table."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from notetune.config import MAX_SHOWN_CHARS, Shown
from notetune.errors import DataError
from notetune.sources.cohort import NoteStream
from notetune.sources.tables.files import names_in, read_records, table_files
from notetune.sources.tables.records import Record
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import TaskedSource


class OmopSource(TaskedSource):
    """A NOTE table; only note_id, person_id, note_date and note_text need be there.

    The time of a note is its note_datetime, or its note_date, the whole day; its stay is its
    visit_occurrence_id, where there is that column. Tasks look labels up by a
    column of the table: note_id, person_id or visit_occurrence_id.
    """

    kind: Literal["omop"]
    path: Path
    """The table: .csv, .csv.gz or .parquet; a folder of Parquet files; or a pattern."""
    grouped_by: Literal["note_type_concept_id", "note_class_concept_id", "note_title"] | None = None
    """Column that says what a note is; without it, all are of source "note". A title is typed by
    hand at some sites: look at its values first, since reports show them."""
    groups: dict[str, Shown] = Field(default_factory=dict)
    """Names for values of that column, such as `{"32831": discharge}`; the others keep theirs."""

    def open(self) -> NoteStream:
        """Begin to read the table.

        Raises:
            DataError: Here or while reading, as `TableSource.open`.

        Source:
            OMOP CDM 5.4, table NOTE.
        """
        files = table_files(self.path)
        if other := [file for file in files if ".jsonl" in file.name.lower()]:
            kinds = ".csv, .csv.gz or .parquet"
            raise DataError(f"{other[0]} is not {kinds}; export the table as such.")
        shared = set.intersection(*({*map(str.lower, names_in(file))} for file in files))
        times = ("note_datetime", "note_date") if "note_datetime" in shared else ("note_date",)
        stay_id = "visit_occurrence_id" if "visit_occurrence_id" in shared else None
        layout = Layout("note_text", "note_id", "person_id", stay_id, times)
        reading = TableReading(self, self.path, layout)
        columns = reading.columns(self.grouped_by)
        records = read_records(files, columns, reading.rejections, self.max_note_chars)
        return reading.stream(records, lambda record: RawNote(record, _group(self, record)))


def _group(source: OmopSource, record: Record) -> str:
    if source.grouped_by is None:
        return "note"
    name = record.text(source.grouped_by)
    if len(name) > MAX_SHOWN_CHARS:
        raise DataError(
            f"{record.where}: column {source.grouped_by} has over {MAX_SHOWN_CHARS} characters; "
            "group by another column."
        )
    return source.groups.get(name, name.lower()) or "note"
