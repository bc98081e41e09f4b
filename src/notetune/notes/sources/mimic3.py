"""MIMIC-III 1.4: every note for step 1, admission notes cut from discharge summaries for step 2."""

import itertools
from collections import Counter
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Final, Literal

import polars as pl

from notetune.config import Config
from notetune.errors import DataError
from notetune.notes.clean import clean_text
from notetune.notes.sources.cohort import NOTES_SCHEMA, Cohort, FlowCount, reject, stop_if_any
from notetune.notes.sources.mimic3_tasks import (
    check_whole_numbers,
    read_admissions,
    read_tasks,
    with_times,
)
from notetune.notes.sources.sections import admission_sections, admission_text, has_core_sections
from notetune.notes.strict_csv import Row, read_rows, require_csv

_NOTE_COLUMNS: Final = (
    "ROW_ID",
    "SUBJECT_ID",
    "HADM_ID",
    "CHARTDATE",
    "CHARTTIME",
    "CATEGORY",
    "DESCRIPTION",
    "ISERROR",
    "TEXT",
)
_ROWS_PER_CHUNK: Final = 20_000


class Mimic3Source(Config):
    """A folder with NOTEEVENTS, ADMISSIONS, DIAGNOSES_ICD and PROCEDURES_ICD (.csv or .csv.gz).

    With VENTDURATIONS (icustay_id, starttime, endtime) and ICUSTAYS there is also the ventilation
    task. Letter case of file and column names does not matter.
    """

    kind: Literal["mimic3"]
    folder: Path


def read_mimic3(source: Mimic3Source) -> Cohort:
    """Read MIMIC-III by the corrected rules of the data specification.

    Notes: one "admission" note per admission of the cohort (`admission-<HADM_ID>`, the task
    input, at the time of admission), then every usable row of NOTEEVENTS (`note-<ROW_ID>`, its
    source the category in lower case, "discharge" for discharge summaries).

    Raises:
        DataError: If a table is missing or faulty, or no admission is left.

    Source:
        Data specification, sections 2.2 to 2.4 and 2.6. Other than the published builder: ties of
        the sort go by ROW_ID, rows marked as errors are out, sections end at headings (`sections`),
        codes stay strings.
    """
    admissions = read_admissions(source.folder)
    events, notes_flow = _read_events(require_csv(source.folder, "NOTEEVENTS"))
    summaries, summaries_flow = _discharge_summaries(events, admissions)
    cohort, admissions_flow = _admission_notes(summaries, admissions)
    if cohort.is_empty():
        raise DataError(
            f"{source.folder}: no admission has a discharge summary with a chief complaint, "
            "present illness or medical history. Do HADM_IDs of NOTEEVENTS and ADMISSIONS match?"
        )
    tasks, task_flows = read_tasks(source.folder, cohort)
    inputs = cohort.select(
        "note_id",
        "patient_id",
        pl.lit("admission").alias("source"),
        pl.col("admitted").alias("time"),
        "text",
    )
    notes = pl.concat([inputs, events.select(list(NOTES_SCHEMA))])
    return Cohort(notes, tasks, (notes_flow, summaries_flow, admissions_flow, *task_flows))


def _read_events(path: Path) -> tuple[pl.DataFrame, FlowCount]:
    """All usable notes: `NOTES_SCHEMA` plus line, row_id, hadm_id, chartdate and is_report.

    Rows go into frames chunk by chunk, so that the text is in memory once.
    """
    chunks: list[pl.DataFrame] = []
    rejected = Counter({"marked as error": 0, "empty text": 0})
    read = 0
    rows = read_rows(path, _NOTE_COLUMNS)
    while chunk := list(itertools.islice(rows, _ROWS_PER_CHUNK)):
        read += len(chunk)
        usable = list(_usable(chunk, rejected))
        chunks.append(_events_frame(path, usable))
    events = pl.concat(chunks)
    repeated = ~pl.col("row_id").is_first_distinct()
    stop_if_any(path, events, repeated, "ROW_ID repeated", "give each note its own ROW_ID")
    return events, FlowCount("notes", read, events.height, dict(rejected))


def _usable(rows: list[Row], rejected: Counter[str]) -> Iterator[tuple[int | str | None, ...]]:
    for line, cells in rows:
        *fields, is_error, text = cells
        cleaned = clean_text(text)
        if is_error.strip() not in ("", "0"):
            rejected["marked as error"] += 1
        elif not cleaned:
            rejected["empty text"] += 1
        else:
            yield (line, *(field.strip() or None for field in fields), cleaned)


def _events_frame(path: Path, rows: list[tuple[int | str | None, ...]]) -> pl.DataFrame:
    names = [name for name in _NOTE_COLUMNS if name != "ISERROR"]
    schema = {"line": pl.Int64(), **dict.fromkeys(names, pl.String())}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    for column in ("ROW_ID", "SUBJECT_ID"):
        check_whole_numbers(path, frame, column)
    check_whole_numbers(path, frame.filter(pl.col("HADM_ID").is_not_null()), "HADM_ID")
    # CHARTDATE is a day in the original and a midnight in some exports.
    day = pl.col("CHARTDATE").str.slice(0, 10) + " 00:00:00"
    frame = with_times(path, frame.with_columns(day.alias("CHARTDATE")), "CHARTDATE")
    frame = with_times(path, frame, "CHARTTIME")
    category = pl.col("CATEGORY").str.to_lowercase().fill_null("uncategorised")
    description = pl.col("DESCRIPTION").str.to_lowercase()
    return frame.select(
        pl.format("note-{}", "ROW_ID").alias("note_id"),
        pl.col("SUBJECT_ID").alias("patient_id"),
        category.replace("discharge summary", "discharge").alias("source"),
        pl.coalesce("CHARTTIME", "CHARTDATE").alias("time"),
        pl.col("TEXT").alias("text"),
        pl.col("line"),
        pl.col("ROW_ID").cast(pl.Int64).alias("row_id"),
        pl.col("HADM_ID").alias("hadm_id"),
        pl.col("CHARTDATE").alias("chartdate"),
        (description == "report").fill_null(value=False).alias("is_report"),
    )


def _discharge_summaries(
    events: pl.DataFrame, admissions: pl.DataFrame
) -> tuple[pl.DataFrame, FlowCount]:
    """Summaries of the admissions in question, by admission, day and row; exact copies once."""
    summaries = events.filter(pl.col("source") == "discharge").join(
        admissions.select("hadm_id", "type"), on="hadm_id", how="left", maintain_order="left"
    )
    eligible, flow = reject(
        "discharge summaries",
        summaries.sort("chartdate", "row_id"),
        {
            "no admission id": pl.col("hadm_id").is_null(),
            "admission not in ADMISSIONS": pl.col("type").is_null(),
            "newborn admission": pl.col("type") == "NEWBORN",
        },
    )
    kept, copies = reject(
        flow.stage, eligible, {"same text as a later summary": ~pl.col("text").is_last_distinct()}
    )
    by_admission = kept.sort(pl.col("hadm_id").cast(pl.Int64), maintain_order=True)
    return by_admission, FlowCount(
        flow.stage, flow.read, copies.kept, flow.rejected | copies.rejected
    )


def _admission_notes(
    summaries: pl.DataFrame, admissions: pl.DataFrame
) -> tuple[pl.DataFrame, FlowCount]:
    """The cohort: admissions with note_id and text, one summary in memory at a time."""
    rejected = Counter({"addendum without a report": 0, "no complaint, illness or history": 0})
    texts: dict[str, str] = {}
    read = 0
    rows = summaries.select("hadm_id", "is_report", "text").iter_rows()
    for hadm_id, group in itertools.groupby(rows, key=itemgetter(0)):
        read += 1
        parts = list(group)
        if not any(is_report for _, is_report, _ in parts):
            rejected["addendum without a report"] += 1
            continue
        sections = admission_sections("\n\n".join(text for *_, text in parts))
        if not has_core_sections(sections):
            rejected["no complaint, illness or history"] += 1
            continue
        texts[hadm_id] = admission_text(sections)
    cohort = pl.DataFrame(
        {"hadm_id": list(texts), "text": list(texts.values())},
        schema={"hadm_id": pl.String, "text": pl.String},
    ).join(admissions, on="hadm_id", maintain_order="left")
    cohort = cohort.with_columns(pl.format("admission-{}", "hadm_id").alias("note_id"))
    return cohort, FlowCount("admissions", read, cohort.height, dict(rejected))
