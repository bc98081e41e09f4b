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
from notetune.notes import outcomes, overlap, sources, splits
from notetune.notes.outcomes import Task
from notetune.notes.sources import Cohort, FlowCount, TableSource
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import TokenStore, open_store, write_store
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
    """A prepared folder, opened."""

    folder: Path
    store: TokenStore
    tasks: dict[str, TaskTable]
    flow: tuple[FlowCount, ...]
    findings: tuple[overlap.Finding, ...]

    def texts(self, note_ids: Sequence[str] | npt.NDArray[np.str_]) -> list[str]:
        """Note texts, in the order asked for."""
        notes = pl.scan_parquet(self.folder / "notes.parquet").select("note_id", "text")
        wanted = pl.DataFrame({"note_id": np.asarray(note_ids)}, schema={"note_id": pl.String})
        joined = wanted.lazy().join(notes, on="note_id", how="left", maintain_order="left")
        return joined.collect()["text"].to_list()


def inputs(recipe: Recipe) -> dict[str, Any]:
    """What a prepared folder depends on."""
    return {
        "stage": "prepare",
        "version": __version__,
        "config": recipe.prepare.model_dump(mode="json"),
        "tasks": recipe.downstream.tasks,
        "files": _file_states(recipe),
        "backbone": backbone_fingerprint(resolve_backbone(recipe.backbone)),
    }


def prepare(recipe: Recipe) -> Prepared:
    """Build the prepared folder of a recipe, or open it if it was built from the same inputs.

    Raises:
        DataError: If the source is faulty, a task cannot be taught, or a leak blocks.
        ConfigError: If the recipe names a task that the source lacks.
    """
    folder, depends_on = recipe.folder.prepared, inputs(recipe)
    if not runs.is_finished(folder, depends_on):
        with runs.new_folder(folder, depends_on) as temporary:
            _build(recipe, temporary)
    return open_prepared(folder)


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
        open_store(folder / "tokens"),
        tasks,
        tuple(FlowCount(**values) for values in facts["flow"]),
        tuple(overlap.Finding(**values) for values in facts["findings"]),
    )


def _build(recipe: Recipe, folder: Path) -> None:
    config = recipe.prepare
    cohort = sources.read(recipe.source)
    assignment = splits.split_patients(cohort.notes["patient_id"], config.split)
    notes = cohort.notes.join(assignment, on="patient_id", how="left", maintain_order="left")
    in_split = notes.filter(pl.col("split").is_not_null())
    flow = [*cohort.flow, _split_flow("notes by patient split", notes.height, in_split.height)]

    findings = overlap.split_findings(in_split)
    _stop_at_leaks(findings, allowed=config.allow_leaks)
    (folder / "tasks").mkdir()
    tasks = []
    for task, labels in _wanted_tasks(recipe, cohort):
        table, lost = splits.split_table(labels, cohort.notes, assignment)
        flow.append(_split_flow(f"{task.name}: labelled notes", table.height + lost, table.height))
        task, table = outcomes.keep_frequent_classes(task, table, config.min_train_positives)
        outcomes.check_labels(task, table)
        outcomes.check_train_classes(task, table)
        table.write_parquet(folder / "tasks" / f"{task.name}.parquet")
        tasks.append(dataclasses.asdict(task))

    in_split.write_parquet(folder / "notes.parquet")
    (folder / "tokens").mkdir()
    _encode(recipe, in_split, folder / "tokens")
    facts = {
        "tasks": tasks,
        "flow": [dataclasses.asdict(stage) for stage in flow],
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    runs.write_json(folder / "facts.json", facts)


def _encode(recipe: Recipe, notes: pl.DataFrame, folder: Path) -> None:
    columns = {
        "note_ids": notes["note_id"].to_list(),
        "patient_ids": notes["patient_id"].to_list(),
        "source_N": notes["source"].to_list(),
        "split_N": notes["split"].to_list(),
    }
    encoder = load_encoder(resolve_backbone(recipe.backbone))
    write_store(folder, encoder, recipe.prepare.max_tokens, notes["text"].to_list(), columns)


def _wanted_tasks(recipe: Recipe, cohort: Cohort) -> list[tuple[Task, pl.DataFrame]]:
    by_name = {task.name: (task, table) for task, table in cohort.tasks}
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
        first = blocking[0]
        raise DataError(
            f"leak check `{first.check}`: {first.count} in {first.split_b} are also in "
            f"{first.split_a}. Mend the split, or set prepare.allow_leaks=true to go on; the "
            "report will say so."
        )


def _split_flow(stage: str, read: int, kept: int) -> FlowCount:
    return FlowCount(stage, read, kept, {"patient in no split": read - kept})


def _file_states(recipe: Recipe) -> list[tuple[str, int, int]]:
    """Name, size and time of every file the source may read."""
    source = recipe.source
    root = source.path if isinstance(source, TableSource) else source.folder
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    states = [(path.name, path.stat()) for path in files if path.is_file()]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]
