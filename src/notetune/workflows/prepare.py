"""Notes to a prepared folder: cleaned notes, patient splits, labels and tokens."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune import __version__, runs
from notetune.errors import ConfigError, DataError
from notetune.model.backbone import backbone_fingerprint, resolve_backbone
from notetune.notes import outcomes, overlap, published, sources, splits
from notetune.notes.outcomes import Task
from notetune.notes.sources import Finished, FlowCount
from notetune.notes.splits import OfficialSplit
from notetune.plain.columns import typed
from notetune.tokens.store import FORMAT as STORE_FORMAT
from notetune.tokens.store import TokenStore, join_documents, open_store, read_documents
from notetune.workflows.prepare_checks import (
    repeats_in_training,
    split_findings,
    task_findings,
)
from notetune.workflows.prepare_shards import (
    NOTES,
    TEXT_HASH,
    Encoding,
    Shard,
    slices,
    take_texts,
    usable_cores,
    write_shards,
)
from notetune.workflows.recipe import Recipe

TEXTS = "texts"
_TOKENS = "tokens"
_COLUMNS = "columns.parquet"


@dataclass(frozen=True)
class TaskTable:
    """A task with its notes.

    Attributes:
        task: The task.
        note_ids_N: `(N,)` notes with a label, all splits.
        patient_ids_N: `(N,)` their patients.
        split_N: `(N,)` their splits.
        targets_NK: `(N, K)` int8 labels.
    """

    task: Task
    note_ids_N: npt.NDArray[np.str_]
    patient_ids_N: npt.NDArray[np.str_]
    split_N: npt.NDArray[np.str_]
    targets_NK: npt.NDArray[np.int8]

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of one split."""
        return np.flatnonzero(self.split_N == split)


@dataclass(frozen=True)
class CorpusCount:
    """How much there is of one source in one split."""

    source: str
    split: str
    notes: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, opened.

    Attributes:
        folder: Where it is.
        store: Its documents.
        tasks: Its tasks by name.
        flow: Rows read, kept and left out, stage by stage.
        findings: What the leak checks found.
        corpus: Notes, documents and tokens per source and split.
        counts: Figures of the cohort that are published too, under the keys of
            `published.PUBLISHED`; empty where none are.
    """

    folder: Path
    store: TokenStore
    tasks: dict[str, TaskTable]
    flow: tuple[FlowCount, ...]
    findings: tuple[overlap.Finding, ...]
    corpus: tuple[CorpusCount, ...]
    counts: dict[str, int | str]

    def texts(self, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> list[str]:
        """Note texts, in the order asked for."""
        return self._of_notes(TEXTS, note_ids)["text"].to_list()

    def columns(self, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> pl.DataFrame:
        """`note_id` and the columns beside the text, numbers and levels, in the order asked for."""
        return self._of_notes(_COLUMNS, note_ids)

    def _of_notes(self, name: str, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> pl.DataFrame:
        wanted = pl.DataFrame({"note_id": np.asarray(note_ids)}, schema={"note_id": pl.String})
        rows = pl.scan_parquet(self.folder / name)
        found = rows.filter(pl.col("note_id").is_in(wanted["note_id"].implode())).collect()
        return wanted.join(found, on="note_id", how="left", maintain_order="left")


def inputs(recipe: Recipe) -> dict[str, Any]:
    """What a prepared folder depends on."""
    return {
        "stage": "prepare",
        "version": __version__,
        "store": STORE_FORMAT,
        # Files are the same whatever the number of workers.
        "config": recipe.prepare.model_dump(mode="json", exclude={"workers"}),
        "tasks": recipe.downstream.tasks,
        "files": _file_states(recipe),
        "backbone": backbone_fingerprint(resolve_backbone(recipe.backbone)),
    }


def prepare(recipe: Recipe, *, has_tasks: bool = True) -> Prepared:
    """Build the prepared folder of a recipe, or open it if it was built from the same inputs.

    Notes pass in chunks, so memory does not grow with their number, but for their ids. A run that
    was killed goes on: at most the shards that were being written are encoded again.

    Args:
        recipe: What to do.
        has_tasks: Whether to make the tasks of the source too.

    Raises:
        DataError: If the source is faulty, a task cannot be taught, or a leak blocks.
        ConfigError: If the recipe names a task that the source lacks.
    """
    folder, depends_on = recipe.folder.prepared, inputs(recipe)
    with runs.one_at_a_time(folder):
        if not runs.is_finished(folder, depends_on):
            with runs.work_folder(folder, depends_on) as work:
                _make(recipe, folder, depends_on, work, has_tasks=has_tasks)
    return open_prepared(folder)


def _make(
    recipe: Recipe, folder: Path, depends_on: dict[str, Any], work: Path, *, has_tasks: bool
) -> None:
    stream = sources.open_notes(recipe.source)
    workers = recipe.prepare.workers or usable_cores()
    shards = write_shards(stream.chunks, work, _encoding(recipe), workers)
    with runs.new_folder(folder, depends_on) as temporary:
        finished = stream.finish()
        if not has_tasks:
            finished = dataclasses.replace(finished, tasks=())
        assemble(recipe, shards, finished, temporary)


def prepare_corpus(recipe: Recipe, prepared: Prepared) -> Prepared:
    """The notes of step 1: those that are prepared for the tasks, or a corpus of their own."""
    return prepared if recipe.corpus is recipe else prepare(recipe.corpus, has_tasks=False)


def open_corpus(recipe: Recipe, prepared: Prepared) -> Prepared:
    """As `prepare_corpus`, for notes that are prepared already.

    Raises:
        RunError: If they are not.
    """
    return prepared if recipe.corpus is recipe else open_prepared(recipe.corpus.folder.prepared)


def open_prepared(folder: Path) -> Prepared:
    """Open a prepared folder.

    Raises:
        RunError: If it is missing or not whole.
    """
    facts = runs.read_json(folder / "facts.json")
    tasks = {}
    for values in facts["tasks"]:
        task = Task(**{**values, "classes": tuple(values["classes"])})
        table = pl.read_parquet(folder / "tasks" / f"{task.name}.parquet")
        tasks[task.name] = TaskTable(
            task,
            table["note_id"].to_numpy().astype(np.str_),
            table["patient_id"].to_numpy().astype(np.str_),
            table["split"].to_numpy().astype(np.str_),
            outcomes.label_matrix(task, table),
        )
    return Prepared(
        folder,
        open_store(folder / _TOKENS),
        tasks,
        tuple(FlowCount(**values) for values in facts["flow"]),
        tuple(overlap.Finding(**values) for values in facts["findings"]),
        tuple(CorpusCount(**values) for values in facts["corpus"]),
        facts["counts"],
    )


def compare_with_published(prepared: Prepared) -> tuple[published.Comparison, ...]:
    """The figures of a cohort beside the published ones.

    Raises:
        DataError: If no figures are published for its source.
    """
    if not prepared.counts:
        raise DataError(
            "no figures are published for this source; there are some for mimic3 and mimic4 "
            "sources. Leave --check out."
        )
    return published.compare(prepared.counts)


def assemble(recipe: Recipe, shards: list[Shard], finished: Finished, folder: Path) -> None:
    """Write everything that depends on all notes: splits, labels, checks, and one token store."""
    if not shards:
        raise DataError("the source has no notes; check its paths and columns.")
    config = recipe.prepare
    notes = pl.read_parquet([shard.folder / NOTES for shard in shards])
    _check_unique(notes["note_id"])
    assignment = splits.split_patients(notes["patient_id"].unique().to_list(), recipe.split)
    notes = notes.join(assignment, on="patient_id", how="left", maintain_order="left")
    tasks, task_flow = _split_tasks(recipe, finished, notes, assignment)
    counts = _published_counts(recipe, finished, tasks)
    tasks = [_checked(task, table, config.min_train_positives) for task, table in tasks]
    findings = [*split_findings(shards, notes), *task_findings(shards, notes, tasks)]
    _stop_at_leaks(findings, allowed=config.allow_leaks)

    is_wanted = notes["split"].is_not_null()
    in_split = _with_corpus(recipe, shards, notes).filter(is_wanted)
    flow = [
        *finished.flow,
        _split_flow("notes by patient split", notes.height, in_split.height),
        _corpus_flow(in_split),
        *task_flow,
    ]
    (folder / "tasks").mkdir()
    for task, table in tasks:
        table.write_parquet(folder / "tasks" / f"{task.name}.parquet")
    in_split.write_parquet(folder / NOTES)
    if finished.columns is not None:
        beside = finished.columns.join(in_split, on="note_id", how="semi", maintain_order="left")
        typed(beside, recipe.coded_features).write_parquet(folder / _COLUMNS)
    take_texts(shards, is_wanted, folder / TEXTS)
    _join_tokens(shards, is_wanted, in_split, folder / _TOKENS)
    corpus = _corpus(open_store(folder / _TOKENS), in_split)
    facts = {
        "tasks": [dataclasses.asdict(task) for task, _ in tasks],
        "flow": [dataclasses.asdict(stage) for stage in flow],
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "corpus": [dataclasses.asdict(count) for count in corpus],
        "counts": counts,
    }
    runs.write_json(folder / "facts.json", facts)
    if finished.rejections.height:
        sources.write_rejections(finished.rejections, folder / "rejections.csv")


def _split_tasks(
    recipe: Recipe, finished: Finished, notes: pl.DataFrame, assignment: pl.DataFrame
) -> tuple[list[tuple[Task, pl.DataFrame]], list[FlowCount]]:
    """The wanted tasks, their tables with a split, and their flow."""
    tasks, flow = [], []
    for task, labels in _wanted_tasks(recipe, finished):
        table, lost = splits.split_table(labels, notes, assignment)
        flow.append(_split_flow(f"{task.name}: labelled notes", table.height + lost, table.height))
        tasks.append((task, table))
    return tasks, flow


def _checked(
    task: Task, table: pl.DataFrame, min_train_positives: int
) -> tuple[Task, pl.DataFrame]:
    """A task that can be taught, with the classes that are frequent enough."""
    task, table = outcomes.keep_frequent_classes(task, table, min_train_positives)
    outcomes.check_labels(task, table)
    outcomes.check_train_classes(task, table)
    return task, table


def _published_counts(
    recipe: Recipe, finished: Finished, tasks: Sequence[tuple[Task, pl.DataFrame]]
) -> dict[str, int | str]:
    """The figures of the cohort that are published too; its tasks are published for MIMIC-III."""
    kind = recipe.prepare.source.kind
    if kind not in ("mimic3", "mimic4"):
        return {}
    counts = published.flow_counts(kind, finished.flow)
    if kind == "mimic3":
        counts["patients"] = finished.patient_count
        for task, table in tasks:
            counts |= published.task_counts(task, table)
    return counts


def _with_corpus(recipe: Recipe, shards: list[Shard], notes: pl.DataFrame) -> pl.DataFrame:
    """The notes, with which of them step 1 may read."""
    is_repeat = pl.Series([False]).new_from_index(0, notes.height)
    if recipe.prepare.drop_near_duplicates:
        is_repeat = repeats_in_training(shards, notes)
    return notes.drop(TEXT_HASH).with_columns((~is_repeat).alias("in_corpus"))


def _join_tokens(
    shards: list[Shard], is_wanted: pl.Series, notes: pl.DataFrame, folder: Path
) -> None:
    folder.mkdir()
    parts = (
        read_documents(shard.folder).of_notes(wanted.to_numpy())
        for shard, wanted in slices(shards, is_wanted)
    )
    columns = {
        "note_ids": notes["note_id"],
        "patient_ids": notes["patient_id"],
        "source_N": notes["source"],
        "split_N": notes["split"],
        "in_corpus_N": notes["in_corpus"],
    }
    join_documents(folder, parts, columns)


def _corpus(store: TokenStore, notes: pl.DataFrame) -> list[CorpusCount]:
    """Notes, documents and tokens per source and split, most tokens first."""
    sizes = {
        "notes": np.ones(notes.height, np.int64),
        "documents": np.bincount(store.note_number_D, minlength=notes.height),
        "tokens": np.add.reduceat(store.lengths_D, np.flatnonzero(store.piece_D == 0)),
    }
    columns = [pl.Series(name, values) for name, values in sizes.items()]
    table = notes.select("source", "split").with_columns(columns)
    order = ("tokens", "source", "split")
    sums = table.group_by("source", "split").sum().sort(order, descending=True)
    return [CorpusCount(**values) for values in sums.iter_rows(named=True)]


def _check_unique(note_ids: pl.Series) -> None:
    repeated = note_ids.filter(note_ids.is_duplicated())
    if len(repeated):
        raise DataError(
            f"note id {repeated[0]} is given to {(repeated == repeated[0]).sum()} notes "
            f"({repeated.n_unique()} ids are repeated). Make note ids unique."
        )


def _encoding(recipe: Recipe) -> Encoding:
    config = recipe.prepare
    return Encoding(resolve_backbone(recipe.backbone), config.max_tokens, config.long_notes)


def _wanted_tasks(recipe: Recipe, finished: Finished) -> list[tuple[Task, pl.DataFrame]]:
    by_name = {task.name: (task, table) for task, table in finished.tasks}
    wanted = recipe.downstream.tasks or tuple(by_name)
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise ConfigError(
            f"downstream.tasks: the source has no task {unknown[0]}; it has "
            f"{', '.join(by_name) or 'none'}."
        )
    return [by_name[name] for name in wanted]


def _stop_at_leaks(findings: Sequence[overlap.Finding], *, allowed: bool) -> None:
    blocking = [finding for finding in findings if finding.blocks]
    if blocking and not allowed:
        raise DataError(
            f"leak check: {blocking[0].sentence}. Mend the split or the notes, or set "
            "prepare.allow_leaks=true to go on; the report will say so."
        )


def _split_flow(stage: str, read: int, kept: int) -> FlowCount:
    return FlowCount(stage, read, kept, {"patient in no split": read - kept})


def _corpus_flow(notes: pl.DataFrame) -> FlowCount:
    in_corpus = notes.filter(pl.col("split") == "train")["in_corpus"]
    kept = int(in_corpus.sum())
    reasons = {"nearly the same as an earlier note": len(in_corpus) - kept}
    return FlowCount("training notes of step 1", len(in_corpus), kept, reasons)


def _file_states(recipe: Recipe) -> list[tuple[str, int, int]]:
    """Name, size and time of every file that the source and the split may read."""
    split = recipe.split
    official = split.files.values() if isinstance(split, OfficialSplit) else ()
    paths = [*sources.files_of(recipe.source), *filter(Path.is_file, official)]
    states = [(path.name, path.stat()) for path in paths]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]
