"""MIMIC-III 1.4: every note for step 1, admission notes cut from discharge summaries for step 2."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import polars as pl

from notetune.audit import FlowCount
from notetune.config import Config
from notetune.notes.clean import clean_text, cleaned
from notetune.notes.overlap_text import text_digest
from notetune.sources.cohort import Finished, NoteStream, stop_if_any
from notetune.sources.columns import check_whole_numbers, with_times
from notetune.sources.mimic import core2021
from notetune.sources.mimic.sections import admission_note
from notetune.sources.mimic.summaries import (
    SUMMARY_SCHEMA,
    AdmissionNotes,
    AdmissionText,
    row_chunks,
)
from notetune.sources.mimic.tasks import CODED, VentilationFrom, mimic3_tasks, read_admissions
from notetune.strict_csv import Row, require_csv

_COLUMNS: Final = (
    *("ROW_ID", "SUBJECT_ID", "HADM_ID", "CHARTDATE", "CHARTTIME", "CATEGORY"),
    *("DESCRIPTION", "ISERROR", "TEXT"),
)


class Mimic3Source(Config):
    """A folder with NOTEEVENTS, ADMISSIONS, DIAGNOSES_ICD and PROCEDURES_ICD (.csv or .csv.gz).

    For the ventilation task also ICUSTAYS with CHARTEVENTS and PROCEDUREEVENTS_MV, or with
    VENTDURATIONS (icustay_id, starttime, endtime); or else the published pmv_labels.pkl. Letter
    case of file and column names does not matter.
    """

    kind: Literal["mimic3"]
    folder: Path
    labels: Literal["correct", "core-2021"] = "correct"
    """Whose rules: `correct`, or those of the published 2021 scripts with all their accidents."""
    ventilation: VentilationFrom = "auto"
    """Where ventilation comes from; `auto` takes the first there is (CHARTEVENTS is long)."""

    def open(self) -> NoteStream:
        """Read MIMIC-III: every usable note as it passes, and an admission note per admission.

        Notes: the usable rows of NOTEEVENTS (`note-<ROW_ID>`, its source the category in lower
        case, "discharge" for discharge summaries), and the task inputs (`admission-<HADM_ID>`,
        source "admission", at the time of admission). With `core-2021` labels, an admission whose
        text the published scripts change for the mortality task has a further note,
        `admission-<HADM_ID>-mortality`.

        NOTEEVENTS is read twice, and only the summaries of unfinished admissions are held.

        Raises:
            DataError: Here or while reading, if a table is missing or faulty, or no admission is
                left.

        Source:
            Data specification, sections 2.2 to 2.4 and 2.6. Other than the published builder, the
            `correct` version leaves rows marked as errors out, ends sections at headings
            (`sections`) and keeps codes as strings; `core2021` has the other rules.
        """
        reading = _Reading(self)
        return NoteStream(reading.chunks(), reading.finish)


class _Rules(NamedTuple):
    """What differs between the versions in reading NOTEEVENTS."""

    summary_text: Callable[[str, str, str], str | None]
    """Category, error mark and text to the text of a summary, None for others."""
    is_report: Callable[[str], bool]
    """Whether this DESCRIPTION is that of a report."""
    make: Callable[[str], AdmissionText | None]
    """Joined summaries to the admission note."""


def _correct_summary_text(category: str, is_error: str, text: str) -> str | None:
    if category.strip().lower() != "discharge summary" or _is_marked(is_error):
        return None
    return clean_text(text) or None


def _is_correct_report(description: str) -> bool:
    return description.strip().lower() == "report"


_RULES: Final = {
    "correct": _Rules(_correct_summary_text, _is_correct_report, admission_note),
    "core-2021": _Rules(core2021.summary_text, core2021.is_report, core2021.admission_text),
}


class _Reading:
    """One reading of the folder; what is counted on the way is here."""

    def __init__(self, source: Mimic3Source) -> None:
        self._source, self._rules = source, _RULES[source.labels]
        self._path = require_csv(source.folder, "NOTEEVENTS")
        admissions = read_admissions(source.folder)
        for kind in CODED:
            require_csv(source.folder, f"{kind.upper()}_ICD")
        reasons = {
            "no admission id": pl.col("hadm_id").is_null(),
            "admission not in ADMISSIONS": pl.col("died").is_null(),
            "newborn admission": pl.col("type") == "NEWBORN",
        }
        summaries = _scan(self._path, self._rules)
        self._notes = AdmissionNotes(summaries, admissions, reasons, self._rules.make)
        self._rejected = Counter({"marked as error": 0, "empty text": 0})
        self._changed: Counter[str] = Counter()
        self._read = 0

    def chunks(self) -> Iterator[pl.DataFrame]:
        for chunk in row_chunks(self._path, _COLUMNS):
            self._read += len(chunk)
            events = _events_frame(self._path, chunk, self._rejected, self._changed)
            passing = (
                (_note_id(row_id), self._rules.summary_text(category, is_error, text) or "")
                for _, (row_id, *_, category, _, is_error, text) in chunk
            )
            yield from self._notes.chunks(events, passing)

    def finish(self) -> Finished:
        source = self._source
        remedy = "Do HADM_IDs of NOTEEVENTS and ADMISSIONS match?"
        cohort, admissions_flow = self._notes.cohort(source.folder, remedy)
        as_2021 = source.labels == "core-2021"
        tasks, task_flows = mimic3_tasks(
            source.folder, cohort, as_2021=as_2021, ventilation_from=source.ventilation
        )
        kept = self._read - self._rejected.total()
        notes_flow = FlowCount("notes", self._read, kept, dict(self._rejected), dict(self._changed))
        flow = (notes_flow, self._notes.summaries_flow, admissions_flow, *task_flows)
        return Finished(tasks, flow, patient_count=cohort["patient_id"].n_unique())


def _note_id(row_id: str) -> str:
    return f"note-{row_id.strip()}"


def _is_marked(is_error: str) -> bool:
    return is_error.strip() not in ("", "0")


def _scan(path: Path, rules: _Rules) -> pl.DataFrame:
    """The discharge summaries as `SUMMARY_SCHEMA`, after a check of all ROW_IDs."""
    ids, summaries = [], [pl.DataFrame(schema=SUMMARY_SCHEMA)]
    for chunk in row_chunks(path, _COLUMNS):
        schema = {"line": pl.Int64, "ROW_ID": pl.String}
        numbered = [(line, cells[0].strip()) for line, cells in chunk]
        frame = pl.DataFrame(numbered, schema=schema, orient="row")
        check_whole_numbers(path, frame, "ROW_ID")
        ids.append(frame.with_columns(pl.col("ROW_ID").cast(pl.Int64)))
        found = []
        for _, (row_id, _, hadm_id, chartdate, _, category, description, is_error, text) in chunk:
            if (summary := rules.summary_text(category, is_error, text)) is not None:
                # CHARTDATE is a day in the original and a midnight in some exports.
                key = (hadm_id.strip() or None, chartdate.strip()[:10] or None, int(row_id))
                kept = (rules.is_report(description), text_digest(summary))
                found.append((_note_id(row_id), *key, *kept))
        summaries.append(pl.DataFrame(found, schema=SUMMARY_SCHEMA, orient="row"))
    repeated = ~pl.col("ROW_ID").is_first_distinct()
    remedy = "give each note its own ROW_ID"
    stop_if_any(path, pl.concat(ids), repeated, "ROW_ID repeated", remedy)
    return pl.concat(summaries)


def _events_frame(
    path: Path, chunk: list[Row], rejected: Counter[str], changed: Counter[str]
) -> pl.DataFrame:
    """The usable rows as a frame of `NOTES_SCHEMA`; the others are counted in `rejected`.

    `changed` counts the usable rows with changed characters.
    """
    rows: list[tuple[int | str | None, ...]] = []
    for line, (*fields, is_error, text) in chunk:
        clean, changes = cleaned(text)
        if _is_marked(is_error):
            rejected["marked as error"] += 1
        elif not clean:
            rejected["empty text"] += 1
        else:
            rows.append((line, *(field.strip() or None for field in fields), clean))
            changed.update(changes)
    names = [name for name in _COLUMNS if name != "ISERROR"]
    schema = {"line": pl.Int64(), **dict.fromkeys(names, pl.String())}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    check_whole_numbers(path, frame, "SUBJECT_ID")
    check_whole_numbers(path, frame.filter(pl.col("HADM_ID").is_not_null()), "HADM_ID")
    frame = frame.with_columns(CHARTDATE=pl.col("CHARTDATE").str.slice(0, 10) + " 00:00:00")
    category = pl.col("CATEGORY").str.to_lowercase().fill_null("uncategorised")
    return with_times(path, frame, "CHARTDATE", "CHARTTIME").select(
        note_id=pl.format("note-{}", "ROW_ID"),
        patient_id="SUBJECT_ID",
        stay_id="HADM_ID",
        source=category.replace("discharge summary", "discharge"),
        time=pl.coalesce("CHARTTIME", "CHARTDATE"),
        text="TEXT",
    )
