"""A cell of step 2: one model of one task in one run, as it is scored and saved."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune.metrics.scores import ScoreTable, write_scores
from notetune.model.bundle import BundleCard, save_card, save_head
from notetune.model.heads import Head
from notetune.model.losses import probabilities
from notetune.tokens.packing import Int64Array
from notetune.workflows.features import FixedFeatures, StackFeatures
from notetune.workflows.prepare import TaskTable
from notetune.workflows.task_models import TaskModel

SCORED_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Cell:
    """What is trained: a model of `task_models`, on a task, with a seed."""

    task: str
    variant: str
    seed: int

    @property
    def label(self) -> str:
        """How progress and errors name it."""
        return f"{self.task} · {self.variant} · seed {self.seed}"


@dataclass(frozen=True)
class TrainedCell:
    """A cell that can be scored and saved.

    Attributes:
        cell: What it is.
        plan: Its model.
        task: The task.
        documents_N: `(N,)` the first documents of the notes of the task.
        features: What makes the features of notes.
        head: What reads them.
    """

    cell: Cell
    plan: TaskModel
    task: TaskTable
    documents_N: Int64Array
    features: FixedFeatures | StackFeatures
    head: Head

    @torch.no_grad()
    def logits(self, rows: Int64Array) -> Tensor:
        """`(N, K)` logits of some of the notes, on the host."""
        logits: Tensor = self.head(self.features.of_notes(self.documents_N[rows]))
        return logits.cpu()

    def write_scores(self, split: str, folder: Path) -> None:
        """Write the scores of a split, if it has notes, with what was read of them."""
        rows = self.task.rows(split)
        if len(rows):
            logits_NK = self.logits(rows)
            scores_NK = probabilities(self.task.task.kind, logits_NK).double().numpy()
            table = score_table(self.task, self.cell, split, scores_NK)
            reading = self.plan.store.reading(self.documents_N[rows], self.plan.max_pieces)
            write_scores(table, folder / f"{split}.parquet", reading.columns)

    def save(self, folder: Path) -> None:
        """Write the cell as a bundle into an existing folder."""
        task, about = self.task.task, self.features.about
        card = BundleCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            variant=self.cell.variant,
            seed=self.cell.seed,
            pooling=self.plan.pooling,
            layers=self.plan.layers,
            max_tokens=self.plan.max_tokens,
            max_pieces=self.plan.max_pieces,
            **asdict(self.plan.store.edges),
            backbone_name=about.backbone,
            backbone_fingerprint=about.fingerprint,
            dtype=about.dtype,
            adapters=about.adapters,
        )
        save_card(folder, card)
        self.features.save_adapters(folder)
        save_head(folder, self.head)


def score_table(
    task: TaskTable, cell: Cell, split: str, scores_NK: npt.NDArray[np.float64]
) -> ScoreTable:
    """Scores of the notes of one split, with their labels."""
    rows = task.rows(split)
    return ScoreTable(
        task.task.name,
        task.task.kind,
        cell.variant,
        cell.seed,
        split,
        task.task.classes,
        task.note_ids_N[rows],
        task.patient_ids_N[rows],
        task.targets_NK[rows],
        scores_NK,
    )
