"""MIMIC-IV: every note of MIMIC-IV-Note for step 1, admission notes and outcomes for step 2."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import polars as pl

from notetune.audit import FlowCount
from notetune.config import Config
from notetune.errors import DataError
from notetune.notes.clean import clean_text, cleaned
from notetune.notes.overlap_text import text_digest
from notetune.sources.cohort import NOTES_SCHEMA, Finished, NoteStream, stop_if_any
from notetune.sources.columns import (
    check_whole_numbers,
    is_whole_number,
    rows_with_id,
    with_times,
)
from notetune.sources.mimic.sections import admission_note
from notetune.sources.mimic.summaries import SUMMARY_SCHEMA, AdmissionNotes, row_chunks
from notetune.sources.mimic.tasks import CODED, mimic4_tasks, read_admissions
from notetune.strict_csv import Row, find_csv, require_csv

_NOTE_COLUMNS: Final = ("note_id", "subject_id", "hadm_id", "charttime", "text")
_SCANNED: Final = ("note_id", "hadm_id", "note_type", "note_seq", "charttime", "text")


class Mimic4Source(Config):
    """A folder with note/discharge, note/radiology and, for tasks, hosp/ and icu/ (.csv[.gz]).

    hosp holds admissions, diagnoses_icd and procedures_icd; icu holds icustays and, for the
    ventilation task, ventilation (stay_id, starttime, endtime, ventilation_status). Without hosp
    there are notes and no tasks.
    """

    kind: Literal["mimic4"]
    folder: Path
    icu_only: bool = True
    """Whether the tasks are on admissions with a stay in intensive care only, as in MIMIC-III."""

    def open(self) -> NoteStream:
        """Read MIMIC-IV: every usable note as it passes, and an admission note per admission.

        Notes keep their `note_id`; their source is "discharge" or "radiology". Task inputs are
        `admission-<hadm_id>`, source "admission", at the time of admission: sections of the
        discharge summary (and its addenda) up to what happened after admission, the exam at
        discharge left out.

        The discharge summaries are read twice, and only those of unfinished admissions are held.

        Raises:
            DataError: Here or while reading, if a table is missing or faulty.

        Source:
            Data specification, section 5.2; sections as in the `correct` version of MIMIC-III.
        """
        reading = _Reading(self)
        return NoteStream(reading.chunks(), reading.finish)


class _Reading:
    """One reading of the folder; what is counted on the way is here."""

    def __init__(self, source: Mimic4Source) -> None:
        self._folder = source.folder
        kinds = ("discharge", "radiology")
        self._paths = {kind: require_csv(source.folder / "note", kind) for kind in kinds}
        self._flows: list[FlowCount] = []
        self._notes: AdmissionNotes | None = None
        if (source.folder / "hosp").is_dir():
            admissions = _admissions(source.folder, icu_only=source.icu_only)
            reasons = {
                "no admission id": pl.col("hadm_id").is_null(),
                "admission not in admissions": pl.col("died").is_null(),
            }
            if source.icu_only:
                reasons["no intensive care"] = ~pl.col("in_icu")
            summaries = _scan(self._paths["discharge"])
            self._notes = AdmissionNotes(summaries, admissions, reasons, admission_note)

    def chunks(self) -> Iterator[pl.DataFrame]:
        for kind, path in self._paths.items():
            read, kept = 0, 0
            changed: Counter[str] = Counter()
            ids: list[pl.DataFrame] = []
            for chunk in row_chunks(path, _NOTE_COLUMNS):
                notes = _notes_frame(path, kind, chunk, changed)
                read, kept = read + len(chunk), kept + notes.height
                ids.append(notes.select("note_id", "line"))
                frame = notes.select(list(NOTES_SCHEMA))
                if self._notes is None:
                    yield frame
                else:
                    passing = notes.select("note_id", "text").iter_rows()
                    yield from self._notes.chunks(frame, passing)
            repeated = ~pl.col("note_id").is_first_distinct()
            remedy = "give each note its own id"
            stop_if_any(path, pl.concat(ids), repeated, "note_id repeated", remedy)
            empty = {"empty text": read - kept}
            self._flows.append(FlowCount(f"{kind} notes", read, kept, empty, dict(changed)))

    def finish(self) -> Finished:
        if self._notes is None:
            return Finished((), tuple(self._flows))
        remedy = (
            "Do hadm_ids of note/discharge and hosp/admissions match? Without intensive care in "
            "the data, set icu_only: false."
        )
        cohort, admissions_flow = self._notes.cohort(self._folder, remedy)
        tasks, task_flows = mimic4_tasks(self._folder, cohort)
        flow = (*self._flows, self._notes.summaries_flow, admissions_flow, *task_flows)
        return Finished(tasks, flow)


def _admissions(folder: Path, *, icu_only: bool) -> pl.DataFrame:
    """As `read_admissions` and, if asked for, `in_icu`."""
    admissions = read_admissions(folder / "hosp")
    for kind in CODED:
        require_csv(folder / "hosp", f"{kind}_icd")
    if not icu_only:
        return admissions
    if not (folder / "icu").is_dir() or (path := find_csv(folder / "icu", "icustays")) is None:
        raise DataError(
            f"{folder} holds no icu/icustays.csv[.gz], which says who was in intensive care; put "
            "it there, or set icu_only: false for all admissions."
        )
    with_icu = {hadm_id for _, (hadm_id,) in rows_with_id(path, ["hadm_id"])}
    return admissions.with_columns(pl.col("hadm_id").is_in(list(with_icu)).alias("in_icu"))


def _scan(path: Path) -> pl.DataFrame:
    """The discharge summaries as `SUMMARY_SCHEMA`."""
    pieces = [pl.DataFrame(schema=SUMMARY_SCHEMA)]
    for chunk in row_chunks(path, _SCANNED):
        found = []
        for line, (note_id, hadm_id, note_type, number, charttime, text) in chunk:
            if not is_whole_number(number):
                rule = "note_seq is not a whole number"
                raise DataError(f"{path}, line {line}: {rule}; write it as in the original table.")
            if clean := clean_text(text):
                key = (hadm_id or None, charttime or None, int(number))
                found.append((note_id, *key, note_type != "AD", text_digest(clean)))
        pieces.append(pl.DataFrame(found, schema=SUMMARY_SCHEMA, orient="row"))
    return pl.concat(pieces)


def _notes_frame(path: Path, kind: str, chunk: list[Row], changed: Counter[str]) -> pl.DataFrame:
    """The rows with a text as a frame of `NOTES_SCHEMA`, with `line`.

    `changed` counts those with changed characters.
    """
    rows: list[tuple[int | str | None, ...]] = []
    for line, (*fields, text) in chunk:
        clean, changes = cleaned(text)
        if clean:
            rows.append((line, *(field or None for field in fields), clean))
            changed.update(changes)
    schema = {"line": pl.Int64(), **dict.fromkeys(_NOTE_COLUMNS, pl.String())}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    missing = pl.col("note_id").is_null()
    stop_if_any(path, frame, missing, "note_id is empty", "give each note its own id")
    check_whole_numbers(path, frame, "subject_id")
    check_whole_numbers(path, frame.filter(pl.col("hadm_id").is_not_null()), "hadm_id")
    return with_times(path, frame, "charttime").select(
        *("note_id", "text", "line"),
        patient_id="subject_id",
        stay_id="hadm_id",
        source=pl.lit(kind),
        time="charttime",
    )
