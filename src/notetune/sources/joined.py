"""The notes of one stay as one note, in order of time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import polars as pl

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.metrics.stays import lone_id
from notetune.notes.outcomes import Task
from notetune.notes.overlap import LATE, SAME_DAY, UNDATED, UNJUDGED, not_in_time
from notetune.sources.cohort import NOTES_SCHEMA, PREDICTION_TIME, NoteStream

_NOTES_PER_CHUNK: Final = 2_000
_STAY: Final = ["stay_id", "alone", "document_id"]


def joined(
    stream: NoteStream, tasks: Sequence[str] = (), *, drops_late: bool = False
) -> NoteStream:
    """The notes of each stay as one note under the id of the stay, the newest last.

    Notes stand in order of time, those without a time first and equal times as they were read, with
    a blank line between; columns beside are those of the newest. A note of no stay stays as it is,
    but for its id where a stay has the same. The table of a task with a prediction time says in
    `UNJUDGED` why notes of a stay may be later. All notes are in memory meanwhile.

    Args:
        stream: The notes one by one.
        tasks: Those whose labels the notes of a stay must share; all when empty.
        drops_late: Leave out what is not known to be from before the first prediction time of its
            stay: later notes, those without a time, and those of its day without an hour. Where
            no other note of the stay has a label, it keeps theirs.

    Raises:
        DataError: If no note has a stay, or the notes of a stay differ in patient or labels.
    """
    notes = pl.concat([pl.DataFrame(schema=NOTES_SCHEMA), *stream.chunks])
    finished = stream.finish()
    wanted = [(task, table) for task, table in finished.tasks if task.name in tasks or not tasks]
    alone = pl.when(pl.col("stay_id").is_null()).then("note_id")
    document_id = pl.coalesce("stay_id", lone_id("note_id", notes["stay_id"]))
    notes = notes.with_columns(document_id=document_id, alone=alone).with_row_index("row")
    if not notes["stay_id"].count():
        raise DataError(
            f"join: none of the {notes.height} notes names its stay; fill in that column, or join "
            "nothing."
        )
    notes = _judged(notes, [table for _, table in wanted] if drops_late else ())
    kept = notes.filter(pl.col("why").is_null())
    documents = _documents(kept)
    columns = None
    if finished.columns is not None:
        newest = documents.select("note_id", "newest").join(
            finished.columns, left_on="newest", right_on="note_id", maintain_order="left"
        )
        columns = newest.drop("newest")
    joined_tables = {
        task.name: _of_documents(task, table, notes, drops_late=drops_late)
        for task, table in wanted
    }
    done = replace(
        finished,
        tasks=tuple((task, joined_tables.get(task.name, table)) for task, table in finished.tasks),
        flow=(*finished.flow, _flow(notes, kept, documents)),
        columns=columns,
    )
    chunks = documents.select(list(NOTES_SCHEMA)).iter_slices(_NOTES_PER_CHUNK)
    return NoteStream(chunks, lambda: done)


def _flow(notes: pl.DataFrame, kept: pl.DataFrame, documents: pl.DataFrame) -> FlowCount:
    of_stays = kept.filter(pl.col("stay_id").is_not_null())
    why = Counter(notes["why"].drop_nulls().to_list())
    rejected = {
        LATE: why[LATE],
        **{reason: why[reason] for reason in (UNDATED, SAME_DAY) if why[reason]},
        "joined to an earlier note of the stay": kept.height - documents.height,
    }
    stage = (
        f"notes of one stay joined by time; {of_stays['time'].null_count()} without a time come "
        f"first, {kept.height - of_stays.height} of no stay are left alone"
    )
    if lost := notes["stay_id"].n_unique() - kept["stay_id"].n_unique():
        stage += f", {lost} stays have no note in time"
    return FlowCount(stage, notes.height, documents.height, rejected)


def _judged(notes: pl.DataFrame, tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The notes with `why`: what keeps each from being in time for its stay, null where it is."""
    timed = [table for table in tables if PREDICTION_TIME in table.columns]
    if not timed:
        return notes.with_columns(why=pl.lit(None, pl.String))
    moments = pl.concat(table.select("note_id", PREDICTION_TIME) for table in timed)
    of_stays = moments.join(notes.select("note_id", "stay_id"), on="note_id").drop_nulls()
    first = of_stays.group_by("stay_id").agg(pl.col(PREDICTION_TIME).min())
    known = notes.join(first, on="stay_id", how="left", maintain_order="left")
    is_judged = pl.col(PREDICTION_TIME).is_not_null()
    return known.with_columns(why=pl.when(is_judged).then(not_in_time())).drop(PREDICTION_TIME)


def _documents(notes: pl.DataFrame) -> pl.DataFrame:
    """`NOTES_SCHEMA` with `newest`, the id of the last note, in the order of their first notes."""
    in_order = notes.sort("time", nulls_last=False, maintain_order=True)
    patients, sources = pl.col("patient_id"), pl.col("source")
    documents = in_order.group_by(_STAY, maintain_order=True).agg(
        patients.first(),
        pl.when(sources.n_unique() == 1).then(sources.first()).otherwise(pl.lit("stay")),
        pl.col("time").max(),
        pl.col("text").str.join("\n\n"),
        pl.col("row").min(),
        newest=pl.col("note_id").last(),
        patients=patients.n_unique(),
    )
    shared = documents.filter(pl.col("patients") > 1)["stay_id"]
    if len(shared):
        raise DataError(
            f"join: stay {shared[0]} has notes of several patients ({len(shared)} of "
            f"{documents.height} stays); give each stay an id of its own."
        )
    return documents.sort("row").rename({"document_id": "note_id"})


def _of_documents(
    task: Task, table: pl.DataFrame, notes: pl.DataFrame, *, drops_late: bool
) -> pl.DataFrame:
    """The labels of stays from those of their notes; a note without any does not count.

    Those of notes that were dropped count where no kept note of the stay has any. A stay none of
    whose notes is kept has none. Where late notes were dropped, notes may have several prediction
    times, and the first of those that count is that of the stay.
    """
    kept = notes.filter(pl.col("why").is_null())
    stays = notes.select("note_id", *_STAY)
    of_notes = table.join(stays, on="note_id", maintain_order="left")
    has_text = pl.col("note_id").is_in(kept["note_id"].implode())
    is_told = has_text.any().over(_STAY)  # by a note that is kept: others add nothing then
    of_notes = of_notes.filter(has_text | ~is_told)
    labels = pl.col("labels").list.sort().list.join("\n")
    moments = [pl.col(PREDICTION_TIME)] if PREDICTION_TIME in table.columns else []
    kinds = (labels, *(moment.drop_nulls() for moment in moments if not drops_late))
    found = of_notes.group_by(_STAY, maintain_order=True).agg(
        pl.col("labels").first(),
        *(moment.min() for moment in moments),
        differs=pl.any_horizontal(kind.n_unique() > 1 for kind in kinds),
    )
    if differing := found["differs"].sum():
        raise DataError(
            f"join: the notes of {differing} of {found.height} stays have different labels or "
            f"prediction times of task {task.name}; give all notes of a stay the same ones, or set "
            "prepare.join to none."
        )
    found = found.filter(pl.col("document_id").is_in(kept["document_id"].unique().implode()))
    labelled = found.select(pl.col("document_id").alias("note_id"), pl.exclude(*_STAY, "differs"))
    if not moments:
        return labelled
    held = _unjudged(labelled, kept)
    return labelled.join(held, on="note_id", how="left", maintain_order="left")


def _unjudged(table: pl.DataFrame, notes: pl.DataFrame) -> pl.DataFrame:
    """`UNJUDGED` of the documents of a task that hold notes whose time cannot be judged."""
    parts = notes.select("time", note_id="document_id").join(table, on="note_id")
    held = parts.select("note_id", not_in_time().alias(UNJUDGED))
    held = held.filter(pl.col(UNJUDGED).is_in([UNDATED, SAME_DAY]))
    return held.group_by("note_id").agg(pl.col(UNJUDGED).max())
