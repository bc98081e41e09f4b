"""Models that read words and columns: baselines, and hybrids that join them with another model.

Shapes: N notes, K classes.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune import manifest, runs, storage
from notetune.aliases import FloatArray
from notetune.errors import DataError
from notetune.metrics.scores import read_scores, write_scores
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.cards import save_card
from notetune.plain.bundles import (
    PARTS,
    ColumnsBundle,
    ColumnsCard,
    HybridCard,
    TextLimit,
    WordsBundle,
    WordsCard,
    save_stacked,
    what_it_holds,
)
from notetune.plain.columns import Columns, fit_columns
from notetune.plain.linear import Linear, probabilities
from notetune.plain.stacked import fit_stacked, trusted_more
from notetune.plain.tfidf import CountedNotes, count_terms
from notetune.prepare.prepared import Prepared, TaskTable
from notetune.study import step2
from notetune.study.jobs import TRAINING, Job
from notetune.study.specs import BaselineSpec, CellSpec, HybridSpec, Notes
from notetune.study.step2 import SCORED_SPLITS
from notetune.train.logistic import HeadProblem, LabelledNotes, left_out
from notetune.train.path import Penalty
from notetune.train.terms import TermProblem
from notetune.train.training import read_record

_PENALTY = "penalty.json"


def score_baseline(job: Job, notes: Notes) -> None:
    """Fit a baseline and write its validation and test scores.

    Raises:
        DataError: If no word is shared by enough patients, or a cell of a column is faulty.
    """
    spec, table = job.spec_as(BaselineSpec), notes.prepared.tasks[job.task]
    with runs.new_folder(job.folder, job.inputs) as temporary:
        if spec.name == "prevalence":
            prior_K = table.targets_NK[table.rows("train")].mean(0, dtype=np.float64)
            scores: Sequence[FloatArray] = [
                np.tile(prior_K, (len(table.rows(split)), 1)) for split in SCORED_SPLITS
            ]
        else:
            scores = _fit(job, notes.prepared, temporary)
        for split, scores_NK in zip(SCORED_SPLITS, scores, strict=True):
            if len(scores_NK):
                found = table.scores(spec.name, 0, split, scores_NK)
                write_scores(found, temporary / f"{split}.parquet")


def out_of_fold_scores(job: Job, prepared: Prepared) -> FloatArray:
    """`(N, K)` scores of the training notes at a finished baseline's penalty, kept for all runs.

    Features and weights come from other patients than a note's each.
    """
    table, folder = prepared.tasks[job.task], job.folder.with_name("out-of-fold")
    path = folder / "train.parquet"
    depends_on = {"part": manifest.files_of(job.folder)}
    if not manifest.is_finished(folder, depends_on):
        penalty = float(storage.read_json(job.folder / _PENALTY)["value"])
        scores_NK = _of_task(job, prepared).out_of_fold(penalty)
        with runs.new_folder(folder, depends_on) as temporary:
            name = job.spec_as(BaselineSpec).name
            write_scores(table.scores(name, 0, "train", scores_NK), temporary / path.name)
    train = table.sample_ids_N[table.rows("train")]
    return read_scores(path).in_note_order(train).scores_NK


def _fit(job: Job, prepared: Prepared, folder: Path) -> Sequence[FloatArray]:
    """The scores of a bundle, written into a folder unless it names too few patients' words."""
    fitted = _of_task(job, prepared).fit()
    if job.spec_as(BaselineSpec).name != "tf-idf-all":
        save_card(folder, fitted.bundle.card.model_copy(update=job.place.of_source))
        fitted.bundle.save(folder)
    storage.write_json(folder / _PENALTY, fitted.penalty)
    return [fitted.scores(split) for split in SCORED_SPLITS]


def _of_task(job: Job, prepared: Prepared) -> "ColumnsOfTask | WordsOfTask":
    spec, table = job.spec_as(BaselineSpec), prepared.tasks[job.task]
    if spec.name == "columns":
        return ColumnsOfTask(spec, prepared, table)
    return WordsOfTask(spec, job.place.backbone, prepared, table)


def join(job: Job, notes: Notes) -> None:
    """Join the finished model of a hybrid, words and columns into a bundle.

    Raises:
        DataError: If all training notes are of one patient.
    """
    spec, prepared = job.spec_as(HybridSpec), notes.prepared
    table = prepared.tasks[job.task]
    parts = dict(zip(spec.parts, job.parts, strict=True))
    learned = [_out_of_fold(part, prepared) for part in parts.values()]
    stacked = fit_stacked(table.task.kind, learned, table.targets_NK[table.rows("train")])
    part = job.parts[-1]
    has_learned = part.spec_as(CellSpec).training and read_record(part.folder / TRAINING).kept_steps
    if has_learned and len(rows := table.rows("validation")):
        stacked = trusted_more(
            stacked, _scores(parts.values(), table, "validation"), table.targets_NK[rows]
        )
    card = HybridCard(
        task=table.task.name,
        kind=table.task.kind,
        classes=table.task.classes,
        seed=spec.seed,
        join=prepared.store.edges.join,
        parts=spec.parts,
        columns=spec.columns,
        **job.place.of_source,
    )
    with runs.new_folder(job.folder, job.inputs) as temporary:
        save_card(temporary, card)
        save_stacked(temporary, stacked)
        for name, part in parts.items():
            left_out = shutil.ignore_patterns("*.parquet")  # scores name patients
            shutil.copytree(part.folder, temporary / PARTS / name, ignore=left_out)
        for split in SCORED_SPLITS:
            if len(rows := table.rows(split)):
                scores_NK = stacked.scores(_scores(parts.values(), table, split))
                joined = table.scores(spec.model, spec.seed, split, scores_NK)
                write_scores(joined, temporary / f"{split}.parquet")


def _scores(parts: Iterable[Job], table: TaskTable, split: str) -> list[FloatArray]:
    """`(N, K)` scores of each part on the notes of a split, in their order."""
    order = table.sample_ids_N[table.rows(split)]
    found = (read_scores(part.folder / f"{split}.parquet") for part in parts)
    return [one.in_note_order(order).scores_NK for one in found]


def _out_of_fold(part: Job, prepared: Prepared) -> FloatArray:
    """`(N, K)` scores of the training notes of a part, in their order."""
    if part.stage == "baseline":
        return out_of_fold_scores(part, prepared)
    table = prepared.tasks[part.task]
    order = table.sample_ids_N[table.rows("train")]
    return step2.out_of_fold_scores(part, prepared).in_note_order(order).scores_NK


@dataclass(frozen=True)
class Fitted:
    """A bundle, how its penalty was found, and its scores `(N, K)` on the notes of a split."""

    bundle: WordsBundle | ColumnsBundle
    penalty: Penalty
    scores: Callable[[str], FloatArray]


@dataclass(frozen=True)
class WordsOfTask:
    """TF-IDF of a task's notes, whole or as far as the models read them."""

    spec: BaselineSpec
    backbone: str
    prepared: Prepared
    table: TaskTable

    def fit(self) -> Fitted:
        """Terms and weights from the training notes, the penalty from the validation notes.

        Raises:
            DataError: If no term is shared by enough training patients.
        """
        counted, task = self._counted, self.table.task
        words, features_NV = counted.words(np.ones(len(counted.patients_N), np.bool_))
        if not words.terms:
            patients, least = len(np.unique(counted.patients_N)), counted.min_patients
            raise DataError(
                f"{self.spec.name} of task {task.name}: no word is in the notes of {least} of its "
                f"{patients} training patients; lower evaluate.tfidf_min_patients, or leave "
                f"{self.spec.name} out of evaluate.baselines."
            )
        problem = TermProblem(features_NV, self._targets("train"), task.kind)
        validation_NV = words.features(self.texts("validation"))
        linear, penalty = problem.along_path(validation_NV, self._targets("validation"))
        card = WordsCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            join=self.prepared.store.edges.join,
            min_patients=counted.min_patients,
            holds=what_it_holds(len(words.terms), counted.min_patients),
            has_marks=words.has_marks,
            limit=self._limit if self.spec.name == "tf-idf-cut" else None,
        )
        bundle = WordsBundle(card, words, linear)
        return Fitted(bundle, penalty, lambda split: bundle.scores(self.texts(split)))

    def out_of_fold(self, penalty: float) -> FloatArray:
        """`(N, K)` scores of the training notes, terms and weights from other patients each."""
        counted, targets_NK = self._counted, self._targets("train")
        kind, texts = self.table.task.kind, self.texts("train")
        scores_NK = np.zeros(targets_NK.shape)
        for is_left_out_N in left_out(counted.patients_N):
            words, features_NV = counted.words(~is_left_out_N)
            linear = TermProblem(features_NV, targets_NK[~is_left_out_N], kind).solve(penalty)
            unseen_NV = words.features([texts[n] for n in np.flatnonzero(is_left_out_N)])
            scores_NK[is_left_out_N] = probabilities(kind, linear.logits(unseen_NV))
        return scores_NK

    def texts(self, split: str) -> list[str]:
        """The texts of a split, cut if they are to be."""
        note_ids = self.table.note_ids_N[self.table.rows(split)]
        texts = self.prepared.texts(note_ids)
        if self.spec.name != "tf-idf-cut" or not texts:
            return texts
        store = self.prepared.store
        documents_N = store.first_documents(note_ids.tolist())
        return store.read_texts(texts, documents_N, self.spec.max_pieces)

    @cached_property
    def _counted(self) -> CountedNotes:
        patients_N = self.table.patient_ids_N[self.table.rows("train")]
        most = self.spec.most_weights // len(self.table.task.classes)
        return count_terms(self.texts("train"), patients_N, self.spec.min_patients, most)

    @property
    def _limit(self) -> TextLimit:
        backbone, store = resolve_backbone(self.backbone), self.prepared.store
        return TextLimit(
            backbone_name=backbone.name,
            tokenizer_sha256=storage.sha256_of_file(backbone / "tokenizer.json"),
            max_tokens=store.max_tokens,
            max_pieces=self.spec.max_pieces,
            **asdict(store.edges),
        )

    def _targets(self, split: str) -> npt.NDArray[np.int8]:
        return self.table.targets_NK[self.table.rows(split)]


@dataclass(frozen=True)
class ColumnsOfTask:
    """The columns beside a task's notes; methods and errors as of `WordsOfTask`."""

    spec: BaselineSpec
    prepared: Prepared
    table: TaskTable

    def fit(self) -> Fitted:
        """Features and weights from the training notes, the penalty from the validation notes."""
        task, rows = self.table.task, self.table.rows("train")
        columns, problem = self._problem(np.ones(len(rows), np.bool_))
        found = problem.along_path(self._notes(columns, self.table.rows("validation")))
        card = ColumnsCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            join=self.prepared.store.edges.join,
            columns=columns.names,
        )
        linear = Linear(found.weight_KH.numpy(), found.bias_K.numpy())
        bundle, rows_of = ColumnsBundle(card, columns, linear), self.table.rows
        return Fitted(
            bundle, found.penalty, lambda split: bundle.scores(self._frame(rows_of(split)))
        )

    def out_of_fold(self, penalty: float) -> FloatArray:
        """`(N, K)` scores of the training notes, features and weights from other patients each."""
        rows, kind = self.table.rows("train"), self.table.task.kind
        scores_NK = np.zeros((len(rows), len(self.table.task.classes)))
        for is_left_out_N in left_out(self.table.patient_ids_N[rows]):
            columns, problem = self._problem(~is_left_out_N)
            found = problem.solve(penalty)
            linear = Linear(found.weight_KH.numpy(), found.bias_K.numpy())
            features_NF = columns.features(self._frame(rows[is_left_out_N]))
            scores_NK[is_left_out_N] = probabilities(kind, linear.logits(features_NF))
        return scores_NK

    def _problem(self, is_read_N: npt.NDArray[np.bool_]) -> tuple[Columns, HeadProblem]:
        """The columns as some training notes show them, and those notes."""
        rows = self.table.rows("train")[is_read_N]
        patients_N, least = self.table.patient_ids_N[rows], self.spec.min_patients
        columns = fit_columns(self._frame(rows), patients_N, least)
        return columns, HeadProblem(self._notes(columns, rows), self.table.task.kind)

    def _notes(self, columns: Columns, rows: npt.NDArray[np.int64]) -> LabelledNotes:
        features_NF: Tensor = torch.from_numpy(columns.features(self._frame(rows)))
        return LabelledNotes(features_NF, self.table.targets_NK[rows])

    def _frame(self, rows: npt.NDArray[np.int64]) -> Any:
        return self.prepared.columns(self.table.note_ids_N[rows])
