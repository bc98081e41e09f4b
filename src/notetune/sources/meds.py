"""MEDS: medical events in Parquet shards; the notes are the events under given codes."""

import itertools
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from notetune.config import Shown
from notetune.errors import DataError
from notetune.sources.cohort import NoteStream
from notetune.sources.paths import matching_files
from notetune.sources.tables.parquet import parquet_records
from notetune.sources.tables.records import Record
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import TaskedSource


class MedsSource(TaskedSource):
    """A data set in the Medical Event Data Standard: shards in `data/`, one row per event.

    A task of its label files is `{name: death, kind: binary, column: subject_id, samples: {path:
    tasks/death}}`; its own split is `split: {kind: column}`.
    """

    kind: Literal["meds"]
    folder: Path
    """The folder that holds `data/`."""
    notes: Annotated[dict[str, Shown], Field(min_length=1)]
    """Start of a code to what its notes are, such as `{"NOTE//DS": discharge}`; the longest start
    that fits a code counts."""
    note_id: Shown | None = None
    """Column with the note id, which the standard does not have; without it, a note is named after
    its shard and row."""
    stay_id: Shown | None = None
    """Column with the id of the stay, which the standard does not have either; as of a table."""

    @property
    def split_table(self) -> dict[str, Path | str | None]:
        """Where a split of kind column is when it does not say so: in the metadata."""
        splits = self.folder / "metadata" / "subject_splits.parquet"
        return {"path": splits, "patient_id": "subject_id"}

    def open(self) -> NoteStream:
        """Begin to read the data set, shard by shard in the order of their names.

        Raises:
            DataError: Here or while reading, as `TableSource.open`.

        Source:
            Schema of the Medical Event Data Standard: subject_id, time, code, numeric_value, and
            text_value for free text.
        """
        data = self.folder / "data"
        if not data.is_dir():
            raise DataError(f"{data} is not a folder with Parquet files; name the folder above it.")
        layout = Layout("text_value", self.note_id, "subject_id", self.stay_id, ("time",))
        reading = TableReading(self, self.folder, layout)
        starts = sorted(self.notes, key=len, reverse=True)
        code = pl.col("code").cast(pl.String)  # it may be a dictionary
        is_note = pl.any_horizontal(*(code.str.starts_with(start) for start in starts))
        columns, policy = reading.columns("code"), reading.rejections.policy

        def note_of(record: Record) -> RawNote:
            name = record.file.relative_to(data).with_suffix("").as_posix()
            start = next(start for start in starts if record.cells["code"].startswith(start))
            return RawNote(record.read_by(policy), self.notes[start], f"{name}-{record.line}")

        records = itertools.chain.from_iterable(
            parquet_records(shard, columns, reading.rejections, keep=is_note)
            for shard in matching_files(data, (".parquet",))
        )
        return reading.stream(records, note_of)
