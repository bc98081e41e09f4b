"""All notes of a source into one prepared folder: splits, labels, checks, and one token store."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from notetune import sources, storage
from notetune.audit import CORPUS, Finding, FlowCount
from notetune.errors import DataError
from notetune.notes.ids import bare_id
from notetune.notes.outcomes import Task
from notetune.notes.overlap import UNJUDGED
from notetune.plain.columns import typed
from notetune.prepare.checks import (
    HeldOut,
    corpus_notes,
    split_findings,
    stop_at_leaks,
    task_findings,
)
from notetune.prepare.prepared import COLUMNS, FACTS, STAYS, TEXTS, TOKENS, CorpusCount, Intake
from notetune.prepare.settings import Preparation
from notetune.prepare.shards import (
    NOTES,
    SIGNATURES,
    TEXT_HASH,
    Shard,
    signatures_of,
    slices,
    take_texts,
)
from notetune.prepare.tasks import checked, is_labelled, published_counts, split_flow, split_tasks
from notetune.sources import splits
from notetune.sources.cohort import Finished, refuse_repeated_ids
from notetune.sources.rejections import write_rejections
from notetune.tokens.store import (
    TokenStore,
    join_documents,
    open_store,
    read_documents,
    whole_pieces,
)


class _Judged(NamedTuple):
    """All notes with `split` and `in_corpus`, the tasks that are left, and what was found."""

    notes: pl.DataFrame
    tasks: list[tuple[Task, pl.DataFrame]]
    flow: list[FlowCount]
    findings: list[Finding]
    counts: dict[str, int | str]


def assemble(
    spec: Preparation,
    shards: list[Shard],
    finished: Finished,
    folder: Path,
    encode: Callable[[pl.DataFrame, pl.Series], Intake],
    held_out: HeldOut,
) -> None:
    """Write everything that depends on all notes: splits, labels, checks, and one token store.

    `encode` encodes the shards, given all notes with `split` and which of them have a label;
    `folder` is empty.
    """
    if not shards:
        raise DataError("the source has no notes; check its paths and columns.")
    judged = _judged(spec, shards, finished, held_out)
    is_wanted = judged.notes["split"].is_not_null()
    in_split = judged.notes.filter(is_wanted)
    _write_tables(judged.tasks, in_split, folder)
    if finished.columns is not None:
        beside = finished.columns.join(in_split, on="note_id", how="semi", maintain_order="left")
        typed(beside, spec.codes).write_parquet(folder / COLUMNS)
    take_texts(shards, is_wanted, folder / TEXTS)
    storage.write_array(folder / SIGNATURES, signatures_of(shards, is_wanted))
    labelled = is_labelled(judged.notes, judged.tasks)
    intake = encode(judged.notes, labelled)
    _join_tokens(shards, is_wanted, in_split, folder / TOKENS, intake)
    store = open_store(folder / TOKENS)
    counted = in_split["split"].eq("train") & labelled.filter(is_wanted)
    intake = replace(intake, whole_pieces=whole_pieces(store, counted.to_numpy()))
    facts = {
        "tasks": [task for task, _ in judged.tasks],
        "flow": judged.flow,
        "findings": judged.findings,
        "corpus": _corpus(store, in_split),
        "counts": judged.counts,
        "has_patients": sources.names_patients(spec.source),
        "intake": intake,
    }
    storage.write_json(folder / FACTS, facts)
    if finished.rejections.height:
        write_rejections(finished.rejections, folder / "rejections.csv")


def _write_tables(
    tasks: Sequence[tuple[Task, pl.DataFrame]], notes: pl.DataFrame, folder: Path
) -> None:
    (folder / "tasks").mkdir()
    for task, table in tasks:
        labels = table.drop(UNJUDGED, strict=False)
        labels.write_parquet(folder / "tasks" / f"{task.name}.parquet")
    notes.drop("stay_id").write_parquet(folder / NOTES)
    notes.select("note_id", "stay_id", "time").write_parquet(folder / STAYS)


def _judged(
    spec: Preparation, shards: list[Shard], finished: Finished, held_out: HeldOut
) -> _Judged:
    config = spec.config
    notes = pl.read_parquet([shard.folder / NOTES for shard in shards], glob=False)
    refuse_repeated_ids(notes)
    patients = notes["patient_id"].unique().to_list()
    assignment = splits.split_patients(patients, spec.split, spec.source)
    notes = notes.join(assignment, on="patient_id", how="left", maintain_order="left")
    tasks, task_flow = split_tasks(spec, finished, notes, assignment)
    counts = published_counts(spec, finished, tasks)
    tasks, label_flow = checked(tasks, config.min_train_positives)
    has_patients = sources.names_patients(spec.source)
    findings = split_findings(shards, notes, has_patients=has_patients)
    findings += task_findings(shards, notes, tasks)
    in_corpus, corpus_flow, leaked = corpus_notes(spec, shards, notes, held_out)
    findings += leaked
    if not config.allow_leaks:
        stop_at_leaks(f for f in findings if spec.has_step_1 or f.split_b != CORPUS)
    in_split = notes.height - notes["split"].null_count()
    by_patient = split_flow("notes by patient split", notes.height, in_split)
    flow = [
        *finished.flow,
        replace(by_patient, notice=_spellings_notice(patients)),
        corpus_flow,
        *task_flow,
        *label_flow,
    ]
    with_corpus = notes.drop(TEXT_HASH).with_columns(in_corpus=in_corpus)
    return _Judged(with_corpus, tasks, flow, findings, counts)


def _spellings_notice(patients: Sequence[str]) -> str:
    again = len(patients) - len(set(map(bare_id, patients)))
    if not again:
        return ""
    return (
        f"{again:,} of {len(patients):,} patient ids are those of others but for zeros before them "
        "or .0 behind; each counts as a patient, and may be in another split: write ids alike in "
        "all files."
    )


def _join_tokens(
    shards: list[Shard], is_wanted: pl.Series, notes: pl.DataFrame, folder: Path, intake: Intake
) -> None:
    folder.mkdir()
    parts = (
        read_documents(shard.tokens).of_notes(wanted.to_numpy())
        for shard, wanted in slices(shards, is_wanted)
    )
    columns = {
        "note_ids": notes["note_id"],
        "patient_ids": notes["patient_id"],
        "source_N": notes["source"],
        "split_N": notes["split"],
        "in_corpus_N": notes["in_corpus"],
    }
    join_documents(folder, parts, columns, intake.edges, intake.max_tokens)


def _corpus(store: TokenStore, notes: pl.DataFrame) -> list[CorpusCount]:
    """Notes, documents and tokens per source and split, most tokens first."""
    table = notes.select("source", "split").with_columns(
        documents=np.bincount(store.note_number_D, minlength=notes.height),
        tokens=np.add.reduceat(store.lengths_D, np.flatnonzero(store.piece_D == 0)),
    )
    sums = table.group_by("source", "split").agg(pl.len().alias("notes"), pl.all().sum())
    sums = sums.sort("tokens", "source", "split", descending=True)
    return [CorpusCount(**values) for values in sums.iter_rows(named=True)]
