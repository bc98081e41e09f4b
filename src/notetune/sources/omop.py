"""OMOP common data model: the NOTE table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from notetune.errors import DataError
from notetune.sources.cohort import NoteStream
from notetune.sources.rejections import Rejected, Rejections
from notetune.sources.tables.files import column_names, read_records, table_files
from notetune.sources.tables.source import TaskedSource
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import MAX_CLASS_CHARS, read_cell


class OmopSource(TaskedSource):
    """A NOTE table; only note_id, person_id, note_date and note_text need be there.

    The time of a note is its note_datetime, or midnight of its note_date. Tasks look labels up by a
    column of the table: note_id, person_id or visit_occurrence_id.
    """

    kind: Literal["omop"]
    path: Path
    """The table: .csv, .csv.gz or .parquet; a folder of Parquet files; or a pattern."""
    grouped_by: Literal["note_type_concept_id", "note_class_concept_id", "note_title"] | None = None
    """Column that says what a note is; without it, all are of source "note". A title is typed by
    hand at some sites: look at its values first, since reports show them."""
    groups: dict[str, str] = Field(default_factory=dict)
    """Names for values of that column, such as `{"32831": discharge}`; the others keep theirs."""


def open_omop(source: OmopSource) -> NoteStream:
    """Begin to read a NOTE table.

    Raises:
        DataError: Here or while reading, as `open_table`.

    Source:
        OMOP CDM 5.4, table NOTE.
    """
    files = table_files(source.path)
    if jsonl := [file for file in files if ".jsonl" in file.name.lower()]:
        raise DataError(f"{jsonl[0]} is not .csv, .csv.gz or .parquet; export the table as such.")
    rejections = Rejections(source)
    has_datetime = all("note_datetime" in column_names(file) for file in files)
    times = ("note_datetime", "note_date") if has_datetime else ("note_date",)
    layout = Layout("note_text", "note_id", "person_id", times)
    reading = TableReading(
        source.path,
        layout,
        source.tasks,
        source,
        rejections,
        max_chars=source.max_note_chars,
    )
    return reading.stream(_rows(source, files, times, rejections))


def _rows(
    source: OmopSource, files: Sequence[Path], times: tuple[str, ...], rejections: Rejections
) -> Iterator[RawNote]:
    columns = ["note_id", "person_id", *times, "note_text", *source.task_columns]
    if source.grouped_by is not None:
        columns.append(source.grouped_by)
    wanted = list(dict.fromkeys(columns))
    for record in read_records(files, wanted, rejections, source.max_note_chars):
        try:
            group = _group(source, record.where, record.cells.get(source.grouped_by or ""))
        except Rejected as fault:
            rejections.reject((record.file, record.line), fault)
            continue
        yield RawNote(record, group, "")


def _group(source: OmopSource, where: str, value: object) -> str:
    if source.grouped_by is None:
        return "note"
    name = read_cell(where, source.grouped_by, value)
    if len(name) > MAX_CLASS_CHARS:
        raise DataError(
            f"{where}: column {source.grouped_by} has over {MAX_CLASS_CHARS} characters; group by "
            "another column."
        )
    return source.groups.get(name, name.lower()) or "note"
