"""Scores of the notes of one stay as one row.

Shapes: N notes, S stays, K classes.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.aliases import Combine, FloatArray, TaskKind
from notetune.errors import DataError
from notetune.metrics.scores import ScoreTable

_OF_NO_STAY = " (of no stay)"


def lone_id(column: str, stays: pl.Series) -> pl.Expr:
    """The id of a note of no stay, with an ending where a stay has the same."""
    note_id, known = pl.col(column), stays.drop_nulls().unique()
    return pl.when(note_id.is_in(known.implode())).then(note_id + _OF_NO_STAY).otherwise(note_id)


@dataclass(frozen=True)
class Stays:
    """Which notes belong to each stay; a note of no stay is a row of its own.

    Attributes:
        ids_S: `(S,)` in the order of their first notes; of a note alone its own id.
        rows_N: `(N,)` where the notes stand, stay after stay, each in order of time.
        starts_S: `(S,)` where each stay begins in `rows_N`.
    """

    ids_S: npt.NDArray[np.str_]
    rows_N: npt.NDArray[np.int64]
    starts_S: npt.NDArray[np.int64]

    @classmethod
    def of(cls, note_ids_N: npt.NDArray[np.str_], known: pl.DataFrame) -> "Stays":
        """The stays of some notes; `known` has `note_id`, `stay_id` and `time` as they were read.

        Notes without a time come first, and equal times are in the order of `known`. A note of no
        stay is one by itself, apart from a stay of the same id.
        """
        notes = pl.DataFrame({"note_id": note_ids_N}, schema={"note_id": pl.String})
        in_order = known.sort("time", nulls_last=False, maintain_order=True)
        places = in_order.select("note_id", "stay_id").with_row_index("place")
        found = notes.with_row_index("row").join(places, on="note_id", how="left")
        alone = pl.when(pl.col("stay_id").is_null()).then("note_id")
        by_time = found.with_columns(alone=alone).sort("place", "row")
        groups = by_time.group_by("stay_id", "alone", maintain_order=True).agg("row")
        groups = groups.sort(pl.col("row").list.min())
        shown = pl.coalesce("stay_id", lone_id("alone", known["stay_id"]))
        ids_S = groups.select(shown).to_series().to_numpy()
        ends_S = groups["row"].list.len().cum_sum().to_numpy().astype(np.int64)
        rows_N = groups["row"].explode().to_numpy().astype(np.int64)
        return cls(ids_S.astype(np.str_), rows_N, np.concatenate([[0], ends_S[:-1]]))

    def shared(self, values_N: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
        """`(S, ...)` what all notes of each stay have alike.

        Raises:
            DataError: If the notes of a stay differ in it.
        """
        first_S = self.rows_N[self.starts_S]
        of_first_N = np.repeat(first_S, np.diff(self.starts_S, append=len(self.rows_N)))
        differs_N = values_N[self.rows_N] != values_N[of_first_N]
        differing = len(np.unique(of_first_N[differs_N.reshape(len(of_first_N), -1).any(1)]))
        if differing:
            raise DataError(
                f"combine: the notes of {differing} of {len(first_S)} stays have different {what}; "
                "give all notes of a stay the same ones, or combine nothing."
            )
        return values_N[first_S]

    def combined(self, scores_NK: FloatArray, how: Combine, kind: TaskKind) -> FloatArray:
        """`(S, K)` scores of the stays; the greatest of classes are scaled to sum to 1."""
        in_order_NK = scores_NK[self.rows_N]
        ends_S = np.append(self.starts_S[1:], len(in_order_NK))
        if how == "last":
            return np.asarray(in_order_NK[ends_S - 1])
        if how == "mean":
            sums_SK = np.add.reduceat(in_order_NK, self.starts_S)
            return np.asarray(sums_SK / (ends_S - self.starts_S)[:, None])
        most_SK = np.maximum.reduceat(in_order_NK, self.starts_S)
        scale_S1 = most_SK.sum(1, keepdims=True) if kind == "multiclass" else 1.0
        return np.asarray(most_SK / scale_S1)


def without_score(note_ids_N: npt.NDArray[np.str_], known: pl.DataFrame) -> int:
    """How many other notes the stays of scored notes have; `known` as of `Stays.of`."""
    is_scored = known["note_id"].is_in(note_ids_N.tolist())
    stays = known["stay_id"].filter(is_scored).drop_nulls().unique()
    return int((known["stay_id"].is_in(stays.implode()) & ~is_scored).sum())


def combined(table: ScoreTable, known: pl.DataFrame, how: Combine) -> ScoreTable:
    """The table with a row for each stay; `known` as of `Stays.of`.

    Raises:
        DataError: If no note names its stay, or those of one have different patients or labels.
    """
    stays = Stays.of(table.note_ids_N, known)
    if not known["stay_id"].count():
        raise DataError("combine: no note names its stay; fill in that column, or combine nothing.")
    return replace(
        table,
        note_ids_N=stays.ids_S,
        patient_ids_N=stays.shared(table.patient_ids_N, "patients"),
        targets_NK=stays.shared(table.targets_NK, f"labels of task {table.task}"),
        scores_NK=stays.combined(table.scores_NK, how, table.kind),
        unit="stays",
    )
