"""Discharge summaries to admission notes while a file of notes streams by.

A first pass keeps ids, dates and a digest of every summary, never its text; it settles which
summaries make up each admission. In the second pass an admission note is made as soon as its last
summary has passed, so that only admissions with several summaries are ever held, whatever the
order of the file.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources.cohort import NOTES_SCHEMA, reject
from notetune.strict_csv import Row, read_rows

NOTES_PER_CHUNK: Final = 4_000
"""Most notes of a chunk, and rows read at a time; 4,000 long summaries are about 40 MB."""
SUMMARY_SCHEMA: Final = {
    "note_id": pl.String(),
    "hadm_id": pl.String(),
    "written": pl.String(),
    "number": pl.Int64(),
    "is_report": pl.Boolean(),
    "digest": pl.Binary(),
}
"""What the first pass keeps: `written` and then `number` give the order within an admission."""


class AdmissionText(NamedTuple):
    """What was known at admission."""

    text: str
    """The input of every task but mortality."""
    mortality_text: str | None
    """The input of the mortality task; None if it gives the death away."""


def row_chunks(path: Path, columns: Sequence[str]) -> Iterator[list[Row]]:
    """The rows of a file as `read_rows`, `NOTES_PER_CHUNK` at a time."""
    rows = read_rows(path, columns)
    while chunk := list(itertools.islice(rows, NOTES_PER_CHUNK)):
        yield chunk


class AdmissionNotes:
    """Joins the summaries of each admission that count as they pass and makes its note of them.

    `summaries_flow` is the flow of the summaries.
    """

    def __init__(
        self,
        summaries: pl.DataFrame,
        admissions: pl.DataFrame,
        reasons: Mapping[str, pl.Expr],
        make: Callable[[str], AdmissionText | None],
    ) -> None:
        """Plan without any text.

        Args:
            summaries: `SUMMARY_SCHEMA`, what the first pass kept.
            admissions: `hadm_id`, `patient_id`, `admitted` and whatever the reasons look at.
            reasons: Why an admission is not looked at, over the columns of both.
            make: The joined summaries to the note; None if there is nothing of use in them.
        """
        planned, self.summaries_flow = _planned(summaries, admissions, reasons)
        self._admissions = admissions.join(planned, on="hadm_id", how="semi")
        by_admission = planned.group_by("hadm_id", maintain_order=True)
        parts = by_admission.agg("note_id", pl.col("is_report").any()).filter("is_report")
        self._make = make
        self._parts: dict[str, list[str]] = dict(parts.select("hadm_id", "note_id").iter_rows())
        self._owner = {note: hadm for hadm, notes in self._parts.items() for note in notes}
        self._waiting: dict[str, dict[str, str]] = {}
        self._made: list[tuple[str, str, str | None]] = []
        self._without_core = 0

    def chunks(
        self, read: pl.DataFrame, passing: Iterable[tuple[str, str]]
    ) -> Iterator[pl.DataFrame]:
        """Notes that were read, and then those of the admissions that passing notes complete.

        A made note is of source "admission", at the time of admission, and of no stay. Where the
        mortality task has a text of its own there is a second one.

        Args:
            read: `NOTES_SCHEMA`.
            passing: Ids and texts of all notes that were read, summaries or not.
        """
        made = [
            note
            for note_id, text in passing
            if note_id in self._owner
            for note in self._completed(note_id, text)
        ]
        schema = dict.fromkeys(("note_id", "hadm_id", "text"), pl.String)
        frame = pl.DataFrame(made, schema=schema, orient="row")
        frame = frame.join(self._admissions, on="hadm_id", how="left", maintain_order="left")
        # Of no stay: joined with the other notes of its stay, it would tell how that ended.
        stay_id = pl.lit(None, pl.String)
        frame = frame.with_columns(source=pl.lit("admission"), time="admitted", stay_id=stay_id)
        both = pl.concat([read, frame.select(list(NOTES_SCHEMA))])
        yield from both.iter_slices(NOTES_PER_CHUNK)

    def _completed(self, note_id: str, text: str) -> Iterator[tuple[str, str, str]]:
        """Take a summary; once its admission is complete: its notes as id, admission, text."""
        hadm_id = self._owner.pop(note_id)
        note_ids = self._parts[hadm_id]
        held = self._waiting.setdefault(hadm_id, {})
        held[note_id] = text
        if len(held) < len(note_ids):
            return
        del self._waiting[hadm_id], self._parts[hadm_id]
        made = self._make("\n\n".join(held[note] for note in note_ids))
        if made is None:
            self._without_core += 1
            return
        main_id = f"admission-{hadm_id}"
        yield main_id, hadm_id, made.text
        mortality_id = None if made.mortality_text is None else main_id
        if made.mortality_text is not None and made.mortality_text != made.text:
            mortality_id = f"{main_id}-mortality"
            yield mortality_id, hadm_id, made.mortality_text
        self._made.append((hadm_id, main_id, mortality_id))

    def cohort(self, folder: Path, remedy: str) -> tuple[pl.DataFrame, FlowCount]:
        """The admissions that have a note, in order of their ids, and their flow.

        They have `note_id` too, and `mortality_note_id`, null where the text gives the death away.

        Raises:
            DataError: If a planned summary never came, or no admission is left.
        """
        if self._owner:
            raise DataError(
                f"{len(self._owner)} discharge summaries of the first reading were missing in the "
                "second. Leave the files alone while they are read, and start again."
            )
        schema = dict.fromkeys(("hadm_id", "note_id", "mortality_note_id"), pl.String)
        cohort = pl.DataFrame(self._made, schema=schema, orient="row")
        if cohort.is_empty():
            raise DataError(
                f"{folder}: no admission has a discharge summary with a chief complaint, present "
                f"illness or medical history. {remedy}"
            )
        cohort = cohort.join(self._admissions, on="hadm_id", how="left", maintain_order="left")
        total = self._admissions.height
        rejected = {
            "addendum without a report": total - cohort.height - self._without_core,
            "no complaint, illness or history": self._without_core,
        }
        flow = FlowCount("admissions", total, cohort.height, rejected)
        return cohort.sort(pl.col("hadm_id").cast(pl.Int64)), flow


def _planned(
    summaries: pl.DataFrame, admissions: pl.DataFrame, reasons: Mapping[str, pl.Expr]
) -> tuple[pl.DataFrame, FlowCount]:
    """The summaries that count, by admission and then in the order in which they are joined.

    Of equal texts the last one is kept, across admissions. The rest as `AdmissionNotes`.

    Source:
        Data specification, section 2.2, steps 1 to 5, with ties of the date in order of `number`.
    """
    known = summaries.join(admissions, on="hadm_id", how="left", maintain_order="left")
    known = known.sort("written", "number", nulls_last=True)
    # Last, since it counts among the rows to which no other reason applies.
    is_copy = {"same text as a later summary": ~pl.col("digest").is_last_distinct()}
    kept, flow = reject("discharge summaries", known, {**reasons, **is_copy})
    return kept.sort(pl.col("hadm_id").cast(pl.Int64), maintain_order=True), flow
