"""Notes to a prepared folder: cleaned notes, patient splits, labels and tokens."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune import __version__, runs, sources
from notetune.errors import ConfigError, DataError
from notetune.model.adapters.specs import reserved_per_document
from notetune.model.backbone_folder import backbone_fingerprint, resolve_backbone
from notetune.notes import clean, outcomes, overlap
from notetune.notes.outcomes import Task
from notetune.sources import FlowCount, splits
from notetune.sources.mimic import published
from notetune.tokens.edges import Edges
from notetune.tokens.store import FORMAT as STORE_FORMAT
from notetune.tokens.store import (
    IN_CORPUS,
    TokenStore,
    open_store,
)
from notetune.workflows.assemble import (
    COLUMNS,
    FACTS,
    TEXTS,
    TOKENS,
    CorpusCount,
    assemble,
)
from notetune.workflows.intake import Intake, read_pieces, take_in
from notetune.workflows.prepare_checks import (
    HeldOut,
)
from notetune.workflows.prepare_shards import (
    NOTES,
    SIGNATURES,
    usable_cores,
    write_shards,
)
from notetune.workflows.recipe import Recipe


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
        intake: How the notes became documents, and why so.
        has_patients: Whether the notes name their patients.
    """

    folder: Path
    store: TokenStore
    tasks: dict[str, TaskTable]
    flow: tuple[FlowCount, ...]
    findings: tuple[overlap.Finding, ...]
    corpus: tuple[CorpusCount, ...]
    counts: dict[str, int | str]
    intake: Intake
    has_patients: bool

    def max_pieces(self, recipe: Recipe) -> int:
        """Pieces of a note that the backbone reads in step 2."""
        config = recipe.downstream
        virtual = sum(
            reserved_per_document(spec) for spec in (recipe.pretrain.adapter, config.adapter)
        )
        wanted, longest = self.intake.whole_pieces, self.store.max_tokens
        return read_pieces(config.max_pieces, wanted, config.tokens_per_row, longest, virtual)

    def texts(self, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> list[str]:
        """Note texts, in the order asked for."""
        return self._of_notes(TEXTS, note_ids)["text"].to_list()

    def columns(self, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> pl.DataFrame:
        """`note_id` and the columns beside the text, numbers and levels, in the order asked for."""
        return self._of_notes(COLUMNS, note_ids)

    def _of_notes(self, name: str, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> pl.DataFrame:
        wanted = pl.DataFrame({"note_id": np.asarray(note_ids)}, schema={"note_id": pl.String})
        rows = pl.scan_parquet(self.folder / name)
        found = rows.filter(pl.col("note_id").is_in(wanted["note_id"].implode())).collect()
        return wanted.join(found, on="note_id", how="left", maintain_order="left")


def inputs(recipe: Recipe, like: Prepared | None = None) -> dict[str, Any]:
    """What a prepared folder depends on; `like` as for `prepare`."""
    bounds, given = {}, {}
    if like is not None:
        store, files = like.store, runs.read_json(like.folder / runs.MANIFEST)["files"]
        given = {"edges": dataclasses.asdict(store.edges), "max_tokens": store.max_tokens}
        given["held out"] = [files[name] for name in (NOTES, SIGNATURES)]
    elif recipe.prepare.max_tokens == "auto":
        bounds = {"room": recipe.most_tokens, "positions_taken": recipe.positions_taken}
    return {
        **bounds,
        **given,
        "stage": "prepare",
        "version": __version__,
        "store": STORE_FORMAT,
        "cleaning": clean.VERSION,
        # Files are the same whatever the number of workers.
        "config": recipe.prepare.model_dump(mode="json", exclude={"workers"}),
        "tasks": recipe.downstream.tasks,
        "leaked_texts": recipe.pretrain.leaked_texts if _is_of_step_1(recipe, like) else None,
        "files": _file_states(recipe),
        "backbone": backbone_fingerprint(resolve_backbone(recipe.backbone)),
    }


def _is_of_step_1(recipe: Recipe, like: Prepared | None) -> bool:
    return like is not None or recipe.pretrain.corpus is None


def prepare(recipe: Recipe, like: Prepared | None = None) -> Prepared:
    """Build the prepared folder of a recipe, or open it if it was built from the same inputs.

    Notes pass in chunks, so memory does not grow with their number, but for their ids. A run that
    was killed goes on: at most the shards that were being written are encoded again.

    Args:
        recipe: What to do.
        like: Notes of the tasks, for a corpus of step 1 alone: it is read like them, has no tasks,
            and must not hold their validation and test notes.

    Raises:
        DataError: If the source is faulty, a task cannot be taught, or a leak blocks.
        ConfigError: If the recipe names a task that the source lacks, or what is read lies in the
            folder that is written.
        RunError: If that folder is not ours to replace.
    """
    folder, depends_on = recipe.folder.prepared, inputs(recipe, like)
    _refuse_to_replace_what_is_read(recipe)
    with runs.one_at_a_time(folder):
        if not runs.is_finished(folder, depends_on):
            with runs.work_folder(folder, depends_on) as work:
                _make(recipe, folder, depends_on, work, like)
    return open_prepared(folder)


def _refuse_to_replace_what_is_read(recipe: Recipe) -> None:
    folder = recipe.folder.prepared.resolve()
    for path in (*sources.files_of(recipe.source), resolve_backbone(recipe.backbone)):
        if path.resolve().is_relative_to(folder):
            raise ConfigError(
                f"prepared: {path} lies in {recipe.folder.prepared} and is read; name another "
                "folder for what is prepared."
            )


def _make(
    recipe: Recipe, folder: Path, depends_on: dict[str, Any], work: Path, like: Prepared | None
) -> None:
    stream = sources.open_notes(recipe.source)
    workers = recipe.prepare.workers or usable_cores()
    shards = write_shards(stream.chunks, work, workers)
    with runs.new_folder(folder, depends_on) as temporary:
        finished = stream.finish()
        if like is not None:
            finished = dataclasses.replace(finished, tasks=())
        store = None if like is None else like.store
        encode = functools.partial(take_in, recipe, shards, workers, store)
        held_out: HeldOut = like.folder if like else "own"
        if not _is_of_step_1(recipe, like):
            held_out = None
        assemble(recipe, shards, finished, temporary, encode, held_out)


def are_finished(recipe: Recipe) -> bool:
    """Whether the notes of the tasks and of step 1 are prepared as the recipe says now."""
    folder = recipe.folder.prepared
    if not runs.is_finished(folder, inputs(recipe)):
        return False
    corpus = recipe.corpus
    return corpus is recipe or runs.is_finished(
        corpus.folder.prepared, inputs(corpus, open_prepared(folder))
    )


def documents_digest(prepared: Prepared, *, of_step_1: bool) -> dict[str, str]:
    """The sha256 of each file of the documents of prepared notes, their ids and splits included.

    Args:
        prepared: The notes.
        of_step_1: Whether it matters which of them step 1 may read.
    """
    files = runs.read_json(prepared.folder / runs.MANIFEST)["files"]
    return {
        name: digest
        for name, digest in files.items()
        if name.startswith(f"{TOKENS}/") and (of_step_1 or not name.endswith(IN_CORPUS))
    }


def labels_digest(prepared: Prepared, task: str) -> str:
    """The sha256 of the labels of a task."""
    digest: str = runs.read_json(prepared.folder / runs.MANIFEST)["files"][f"tasks/{task}.parquet"]
    return digest


def prepare_corpus(recipe: Recipe, prepared: Prepared) -> Prepared:
    """The notes of step 1: those that are prepared for the tasks, or a corpus of their own."""
    return prepared if recipe.corpus is recipe else prepare(recipe.corpus, prepared)


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
    facts, store = runs.read_json(folder / FACTS), open_store(folder / TOKENS)
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
        store,
        tasks,
        tuple(FlowCount(**values) for values in facts["flow"]),
        tuple(overlap.Finding(**values) for values in facts["findings"]),
        tuple(CorpusCount(**values) for values in facts["corpus"]),
        facts["counts"],
        Intake(**{**facts["intake"], "edges": Edges(**facts["intake"]["edges"])}),
        facts["has_patients"],
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


def _file_states(recipe: Recipe) -> list[tuple[str, int, int]]:
    """Name, size and time of every file that the source and the split may read."""
    of_split = filter(Path.is_file, splits.split_files(recipe.split))
    paths = [*sources.files_of(recipe.source), *of_split]
    states = [(path.name, path.stat()) for path in paths]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]
