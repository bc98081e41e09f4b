"""A prepared folder, opened: notes, tasks, tokens, and what was found on the way."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune import manifest, storage
from notetune.aliases import FloatArray
from notetune.audit import Finding, FlowCount
from notetune.metrics.scores import ScoreTable
from notetune.model.backbone_folder import backbone_fingerprint, resolve_backbone
from notetune.notes import clean, outcomes
from notetune.notes.outcomes import Task
from notetune.prepare.settings import Preparation
from notetune.prepare.shards import NOTES, SIGNATURES
from notetune.sources.cohort import SAMPLE_ID
from notetune.sources.paths import files_of
from notetune.tokens.edges import Edges, settings_digest
from notetune.tokens.store import FORMAT as STORE_FORMAT
from notetune.tokens.store import IN_CORPUS, TokenStore, open_store

FORMAT = 4  # of a prepared folder, beside those of cleaning and of the token store
TEXTS, TOKENS, COLUMNS, FACTS = "texts", "tokens", "columns.parquet", "facts.json"
STAYS = "stays.parquet"
"""Apart from the notes, since nothing that trains reads it."""
AS_THE_RECIPE_SAYS = "the recipe says so"
NoteIds = Sequence[str] | npt.NDArray[np.str_]


@dataclass(frozen=True)
class CorpusCount:
    """How much there is of one source in one split."""

    source: str
    split: str
    notes: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class Intake:
    """How notes become documents, of at most `max_tokens` between `edges`, and why so.

    Attributes:
        perplexities: Of the openers that were tried, by the name of the opener.
        whole_pieces: Pieces a note with which 95 % of the labelled training notes are read whole.
    """

    edges: Edges
    max_tokens: int
    opener_why: str = AS_THE_RECIPE_SAYS
    max_tokens_why: str = AS_THE_RECIPE_SAYS
    perplexities: dict[str, float] = field(default_factory=dict)
    whole_pieces: int = 1


@dataclass(frozen=True)
class TaskTable:
    """A task with its N labelled notes of all splits, and their `(N, K)` labels.

    A note with several samples stands there once for each; `sample_ids_N` tells them apart, and is
    what scores name. Elsewhere these are the ids of the notes.
    """

    task: Task
    note_ids_N: npt.NDArray[np.str_]
    sample_ids_N: npt.NDArray[np.str_]
    patient_ids_N: npt.NDArray[np.str_]
    split_N: npt.NDArray[np.str_]
    targets_NK: npt.NDArray[np.int8]

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of one split."""
        return np.flatnonzero(self.split_N == split)

    @property
    def is_plain(self) -> bool:
        """Whether the labels alone tell its kind and the order of its classes."""
        classes = self.task.classes
        has_one_each = bool((self.targets_NK.sum(axis=1) == 1).all())
        of_several = "multiclass" if has_one_each else "multilabel"
        told = "binary" if len(classes) == 1 else of_several
        return self.task.kind == told and list(classes) == sorted(classes)

    def scores(self, model: str, seed: int, split: str, scores_NK: FloatArray) -> ScoreTable:
        """Scores of the notes of one split by a model, with their labels."""
        rows = self.rows(split)
        return ScoreTable(
            self.task.name, self.task.kind, model, seed, split, self.task.classes,
            self.sample_ids_N[rows], self.patient_ids_N[rows], self.targets_NK[rows], scores_NK,
        )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, opened.

    Attributes:
        flow: Rows read, kept and left out, stage by stage.
        corpus: Notes, documents and tokens per source and split.
        has_patients: Whether the notes name their patients.
        counts: Figures of the cohort that are published too, under the keys of
            `published.PUBLISHED`; empty where none are.
    """

    folder: Path
    store: TokenStore
    tasks: dict[str, TaskTable]
    flow: tuple[FlowCount, ...]
    findings: tuple[Finding, ...]
    corpus: tuple[CorpusCount, ...]
    counts: dict[str, int | str]
    intake: Intake
    has_patients: bool

    def texts(self, note_ids: NoteIds) -> list[str]:
        """Note texts, in the order asked for."""
        return self._of_notes(TEXTS, note_ids)["text"].to_list()

    def columns(self, note_ids: NoteIds) -> pl.DataFrame:
        """`note_id` and the columns beside the text, numbers and levels, in the order asked for."""
        return self._of_notes(COLUMNS, note_ids)

    @property
    def notices(self) -> tuple[str, ...]:
        """What every reader of the scores must know of how the notes got their labels."""
        return tuple(stage.notice for stage in self.flow if stage.notice)

    @property
    def stays(self) -> pl.DataFrame:
        """`note_id`, `stay_id` and `time` of all notes, as they were read."""
        return pl.read_parquet(self.folder / STAYS, glob=False)

    def _of_notes(self, name: str, note_ids: NoteIds) -> pl.DataFrame:
        wanted = pl.DataFrame({"note_id": np.asarray(note_ids)}, schema={"note_id": pl.String})
        rows = pl.scan_parquet(self.folder / name, glob=False)
        found = rows.filter(pl.col("note_id").is_in(wanted["note_id"].implode())).collect()
        return wanted.join(found, on="note_id", how="left", maintain_order="left")

    def documents_digest(self, *, of_step_1: bool) -> str:
        """Digest of the documents, with ids and splits; `of_step_1` with what it may read too."""
        unread = "" if of_step_1 else f"{TOKENS}/{IN_CORPUS}"
        return self._digest(lambda name: name.startswith(f"{TOKENS}/") and name != unread)

    @property
    def texts_digest(self) -> str:
        """Digest of all texts, with the splits of their notes and the columns beside them."""
        return self._digest(lambda name: name.startswith(f"{TEXTS}/") or name in (NOTES, COLUMNS))

    def labels_digest(self, task: str) -> str:
        """Digest of the labels of a task, with its kind and classes where these do not follow."""
        labels = self._digest(lambda name: name == f"tasks/{task}.parquet")
        one = self.tasks[task]
        if one.is_plain:
            return labels
        return storage.fingerprint([labels, one.task.kind, one.task.classes])

    def _digest(self, is_read: Callable[[str], bool]) -> str:
        files = manifest.files_of(self.folder)
        return storage.fingerprint({name: sha for name, sha in files.items() if is_read(name)})


def open_prepared(folder: Path) -> Prepared:
    """Open a prepared folder.

    Raises:
        RunError: If it is missing or not whole.
    """
    manifest.refuse_damaged(folder, FACTS)
    facts, store = storage.read_json(folder / FACTS), open_store(folder / TOKENS)
    tasks = {}
    for values in facts["tasks"]:
        task = Task(**{**values, "classes": tuple(values["classes"])})
        manifest.refuse_damaged(folder, f"tasks/{task.name}.parquet")
        table = pl.read_parquet(folder / "tasks" / f"{task.name}.parquet", glob=False)
        sample_id = SAMPLE_ID if SAMPLE_ID in table.columns else "note_id"
        names = ("note_id", sample_id, "patient_id", "split")
        ids, samples, patients, split = (table[name].to_numpy().astype(np.str_) for name in names)
        targets_NK = outcomes.label_matrix(task, table)
        tasks[task.name] = TaskTable(task, ids, samples, patients, split, targets_NK)
    return Prepared(
        folder,
        store,
        tasks,
        tuple(FlowCount(**values) for values in facts["flow"]),
        tuple(Finding(**values) for values in facts["findings"]),
        tuple(CorpusCount(**values) for values in facts["corpus"]),
        facts["counts"],
        Intake(**{**facts["intake"], "edges": Edges(**facts["intake"]["edges"])}),
        facts["has_patients"],
    )


def inputs(spec: Preparation, like: Prepared | None = None) -> dict[str, Any]:
    """What a prepared folder depends on; `like` as for `build.prepare`."""
    chosen_by: dict[str, Any] = {}
    if like is not None:
        store, files = like.store, manifest.files_of(like.folder)
        chosen_by = {"edges": asdict(store.edges), "max_tokens": store.max_tokens}
        chosen_by["held out"] = [files[name] for name in (NOTES, SIGNATURES)]
    elif spec.config.max_tokens == "auto":
        chosen_by = {"room": spec.room, "positions_taken": spec.positions_taken}
    if like is None and spec.config.opener == "auto":
        chosen_by["dtype"] = spec.dtype  # perplexities may choose the opener
    read = [*files_of(spec.source), *files_of(spec.split)]
    backbone = resolve_backbone(spec.backbone)
    if settings := settings_digest(backbone):
        chosen_by["settings"] = settings
    return {
        **chosen_by,
        "stage": "prepare",
        "format": FORMAT,
        "store": STORE_FORMAT,
        "cleaning": clean.VERSION,
        # Files are the same whatever the number of workers.
        "config": spec.config.model_copy(update={"workers": None}),
        "tasks": spec.tasks,
        "leaked_texts": spec.leaked_texts if spec.is_of_step_1 else None,
        "files": [(path.name, (state := path.stat()).st_size, state.st_mtime_ns) for path in read],
        "backbone": backbone_fingerprint(backbone),
    }
