"""Words and columns of a task's notes: fitted, and asked about notes that they did not see.

Shapes: N notes, K classes.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune import runs
from notetune.errors import DataError
from notetune.model.backbone_folder import resolve_backbone
from notetune.plain.bundles import (
    ColumnsBundle,
    ColumnsCard,
    TextLimit,
    WordsBundle,
    WordsCard,
    what_it_holds,
)
from notetune.plain.columns import Columns, fit_columns
from notetune.plain.linear import FloatArray, Linear, probabilities
from notetune.plain.words import CountedNotes, count_terms
from notetune.train.logistic import HeadProblem, LabelledNotes, left_out
from notetune.train.path import Penalty
from notetune.train.terms import TermProblem
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.recipe import Recipe

WordsName = Literal["tf-idf", "tf-idf-cut"]


@dataclass(frozen=True)
class WordsOfTask:
    """TF-IDF of a task's notes, whole or as far as the models read them."""

    recipe: Recipe
    prepared: Prepared
    table: TaskTable
    name: WordsName

    def fit(self) -> tuple[WordsBundle, Penalty]:
        """Terms and weights from the training notes, the penalty from the validation notes.

        Raises:
            DataError: If no term is shared by enough training patients.
        """
        counted, task = self._counted, self.table.task
        words, features_NV = counted.words(np.ones(len(counted.patients_N), np.bool_))
        if not words.terms:
            patients, least = len(np.unique(counted.patients_N)), counted.min_patients
            raise DataError(
                f"{self.name} of task {task.name}: no word is in the notes of {least} of its "
                f"{patients} training patients; lower evaluate.tfidf_min_patients, or leave "
                f"{self.name} out of evaluate.baselines."
            )
        problem = TermProblem(features_NV, self._targets("train"), task.kind)
        validation_NV = words.features(self.texts("validation"))
        linear, penalty = problem.along_path(validation_NV, self._targets("validation"))
        card = WordsCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            min_patients=counted.min_patients,
            holds=what_it_holds(len(words.terms), counted.min_patients),
            limit=self._limit if self.name == "tf-idf-cut" else None,
        )
        return WordsBundle(card, words, linear), penalty

    def scores(self, bundle: WordsBundle, split: str) -> FloatArray:
        """`(N, K)` of the notes of a split."""
        return bundle.scores(self.texts(split))

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
        if self.name == "tf-idf" or not texts:
            return texts
        store = self.prepared.store
        documents_N = store.first_documents(note_ids.tolist())
        return store.read_texts(texts, documents_N, self.prepared.max_pieces(self.recipe))

    @cached_property
    def _counted(self) -> CountedNotes:
        patients_N = self.table.patient_ids_N[self.table.rows("train")]
        least = self.recipe.evaluate.tfidf_min_patients
        return count_terms(self.texts("train"), patients_N, least)

    @property
    def _limit(self) -> TextLimit:
        backbone, store = resolve_backbone(self.recipe.backbone), self.prepared.store
        return TextLimit(
            backbone_name=backbone.name,
            tokenizer_sha256=runs.sha256_of_file(backbone / "tokenizer.json"),
            max_tokens=store.max_tokens,
            max_pieces=self.prepared.max_pieces(self.recipe),
            **asdict(store.edges),
        )

    def _targets(self, split: str) -> npt.NDArray[np.int8]:
        return self.table.targets_NK[self.table.rows(split)]


@dataclass(frozen=True)
class ColumnsOfTask:
    """The columns beside a task's notes; methods and errors as of `WordsOfTask`."""

    recipe: Recipe
    prepared: Prepared
    table: TaskTable

    def fit(self) -> tuple[ColumnsBundle, Penalty]:
        """Features and weights from the training notes, the penalty from the validation notes."""
        task, rows = self.table.task, self.table.rows("train")
        columns, problem = self._problem(np.ones(len(rows), np.bool_))
        found = problem.along_path(self._notes(columns, self.table.rows("validation")))
        card = ColumnsCard(
            task=task.name, kind=task.kind, classes=task.classes, columns=columns.names
        )
        linear = Linear(found.weight_KH.numpy(), found.bias_K.numpy())
        penalty = Penalty(found.penalty, found.why, found.path)
        return ColumnsBundle(card, columns, linear), penalty

    def scores(self, bundle: ColumnsBundle, split: str) -> FloatArray:
        """`(N, K)` of the notes of a split."""
        return bundle.scores(self._frame(self.table.rows(split)))

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
        patients_N, least = self.table.patient_ids_N[rows], self.recipe.evaluate.tfidf_min_patients
        columns = fit_columns(self._frame(rows), patients_N, least)
        return columns, HeadProblem(self._notes(columns, rows), self.table.task.kind)

    def _notes(self, columns: Columns, rows: npt.NDArray[np.int64]) -> LabelledNotes:
        features_NF: Tensor = torch.from_numpy(columns.features(self._frame(rows)))
        return LabelledNotes(features_NF, self.table.targets_NK[rows])

    def _frame(self, rows: npt.NDArray[np.int64]) -> Any:
        return self.prepared.columns(self.table.note_ids_N[rows])
