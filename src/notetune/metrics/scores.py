"""The score table: what every model hands over to be judged, and its tidy Parquet file.

Shapes: N notes scored, K classes (one for a binary task: the positive class).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune import storage
from notetune.aliases import TaskKind
from notetune.errors import DataError

FORMAT = "1"
_OF_TABLE = ("task", "kind", "model", "seed", "split")
_OF_NOTES = ("tokens", "pieces", "truncated")
_ARRAYS: dict[str, type] = {
    "note_ids_N": np.str_,
    "patient_ids_N": np.str_,
    "targets_NK": np.int8,
    "scores_NK": np.float64,
}
_SOFTMAX_TOLERANCE = 1e-3
_TEXTS = ("patient_id", "note_id", "task", "kind", "label", "split", "model")
_COLUMNS: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(_TEXTS, pl.String),
    "seed": pl.Int64,
    "score": pl.Float64,
    "target": pl.Int8,
}


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Probabilities of one model, one run of it, on one split of one task.

    Checked when it is made; its arrays are read-only copies.

    Attributes:
        model: Name of the model, the same for all its runs.
        seed: Number of the run of training that it comes from.
        classes: K distinct names; a binary task has one, the positive class.
        note_ids_N: `(N,)` distinct: of notes, or of the samples of a task that has such.
        patient_ids_N: `(N,)` patient of each note.
        targets_NK: `(N, K)` int8, 0 or 1; exactly one 1 per note of a multiclass task.
        scores_NK: `(N, K)` float64 probabilities: sigmoid for binary and multilabel tasks,
            softmax (rows sum to 1) for multiclass ones.
        unit: What each row is; a stay stands under its own id.

    Raises:
        DataError: If anything above does not hold.
    """

    task: str
    kind: TaskKind
    model: str
    seed: int
    split: str
    classes: tuple[str, ...]
    note_ids_N: npt.NDArray[np.str_] = field(repr=False)
    patient_ids_N: npt.NDArray[np.str_] = field(repr=False)
    targets_NK: npt.NDArray[np.int8] = field(repr=False)
    scores_NK: npt.NDArray[np.float64] = field(repr=False)
    unit: Literal["notes", "stays"] = "notes"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        _check_classes(self)
        for name, dtype in _ARRAYS.items():
            object.__setattr__(self, name, _read_only(self, name, dtype))
        _check_shapes(self)
        _check_values(self)

    @property
    def name(self) -> str:
        """What to call the table in a message: task, model, seed and split."""
        return f"scores of {self.model} (seed {self.seed}) on {self.task}/{self.split}"

    def of_notes(self, note_ids_N: npt.NDArray[np.str_]) -> "ScoreTable | None":
        """The rows of some notes, in the order of the table; None if it holds none of them."""
        rows_N = np.flatnonzero(np.isin(self.note_ids_N, note_ids_N))
        return self._rows(rows_N) if len(rows_N) else None

    def in_note_order(self, note_ids_N: npt.NDArray[np.str_]) -> "ScoreTable":
        """The same table with its notes in the given order.

        Raises:
            DataError: If the two hold different notes.
        """
        order_N = np.argsort(self.note_ids_N)
        place_N = np.argsort(np.argsort(note_ids_N))
        if not np.array_equal(np.sort(note_ids_N), self.note_ids_N[order_N]):
            missing = len(np.setdiff1d(note_ids_N, self.note_ids_N))
            extra = len(np.setdiff1d(self.note_ids_N, note_ids_N))
            raise DataError(
                f"{self.name}: {missing} of {len(note_ids_N)} notes are missing and {extra} are "
                "not of this set. Score every model on the same split."
            )
        return self._rows(order_N[place_N])

    def _rows(self, rows_N: npt.NDArray[np.int64]) -> "ScoreTable":
        return replace(self, **{name: getattr(self, name)[rows_N] for name in _ARRAYS})


def write_scores(
    table: ScoreTable, path: Path, of_notes: Mapping[str, npt.NDArray[Any]] | None = None
) -> None:
    """Write one row per note and label, notes in table order, in one step.

    `of_notes` is how much of each note was read, `(N,)` tokens, pieces and truncated, for whoever
    looks at single notes; `read_scores` leaves it out.
    """
    notes, classes = table.scores_NK.shape
    further = of_notes or {}
    frame = pl.DataFrame(
        {
            "patient_id": np.repeat(table.patient_ids_N, classes),
            "note_id": np.repeat(table.note_ids_N, classes),
            "label": np.tile(np.array(table.classes), notes),
            "score": table.scores_NK.ravel(),
            "target": table.targets_NK.ravel(),
            **{name: np.repeat(values, classes) for name, values in further.items()},
        }
    ).with_columns(pl.lit(getattr(table, name), _COLUMNS[name]).alias(name) for name in _OF_TABLE)
    with storage.new_file(path, replaces=True) as file:
        frame.select(*_COLUMNS, *further).write_parquet(file, metadata={"format": FORMAT})


def read_scores(path: Path) -> ScoreTable:
    """Read what `write_scores` wrote; the rows may stand in any order.

    Notes and labels come in the order of their first rows.

    Raises:
        DataError: If the file is not Parquet, has another format or other columns, mixes tables,
            lacks a (note, label) pair or holds one twice, or breaks a rule of `ScoreTable`.
    """
    frame = _read_frame(path)
    for name in _OF_TABLE:
        if (found := frame[name].n_unique()) != 1:
            raise DataError(
                f"score table {path}: column {name} has {found} values; a file holds one table."
            )
    notes = frame.select("note_id", "patient_id").unique(maintain_order=True)
    labels = frame.select("label").unique(maintain_order=True)
    cells = frame.join(notes.with_row_index("n"), on="note_id", how="left").join(
        labels.with_row_index("k"), on="label", how="left"
    )
    flat = cells.select(pl.col("n").cast(pl.Int64) * len(labels) + pl.col("k")).to_series()
    if {len(frame), len(cells), flat.n_unique()} != {len(notes) * len(labels)}:
        raise DataError(
            f"{path}: {len(frame)} rows for {len(notes)} notes and {len(labels)} labels; each "
            "(note, label) pair needs exactly one row, and each note one patient. Write the file "
            "again with write_scores."
        )
    cells = cells.with_columns(flat.alias("cell")).sort("cell")
    shape = (len(notes), len(labels))
    return ScoreTable(
        **frame.select(_OF_TABLE).row(0, named=True),
        classes=tuple(labels["label"]),
        note_ids_N=np.array(notes["note_id"].to_list(), np.str_),
        patient_ids_N=np.array(notes["patient_id"].to_list(), np.str_),
        targets_NK=cells["target"].to_numpy().reshape(shape),
        scores_NK=cells["score"].to_numpy().reshape(shape),
    )


def _read_frame(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"score table {path} is not a file; evaluate the model to write it.")
    try:
        found = pl.read_parquet_metadata(path).get("format")
        frame = pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError:
        raise DataError(f"score table {path} is not a Parquet file, or is damaged.") from None
    if found != FORMAT:
        raise DataError(
            f"score table {path} has format {found}; this version reads format {FORMAT}. Use the "
            "notetune version that wrote it."
        )
    frame = frame.drop(*_OF_NOTES, strict=False)
    if dict(frame.schema) != _COLUMNS:
        wrong = [name for name in _COLUMNS if frame.schema.get(name) != _COLUMNS[name]]
        extra = [name for name in frame.columns if name not in _COLUMNS]
        raise DataError(
            f"score table {path}: columns missing or of another type: {wrong or 'none'}; unknown "
            f"columns: {extra or 'none'}. Needed are {', '.join(_COLUMNS)}."
        )
    empty_cells = sum(frame.null_count().row(0))
    if frame.is_empty() or empty_cells:
        raise DataError(f"score table {path} has {len(frame)} rows and {empty_cells} empty cells.")
    return frame


def _read_only(table: ScoreTable, name: str, dtype: type) -> npt.NDArray[Any]:
    given = np.asarray(getattr(table, name))
    try:
        copy: npt.NDArray[Any] = np.array(given, dtype=dtype)
    except (TypeError, ValueError):
        raise DataError(f"{table.name}: {name} does not convert to {dtype.__name__}.") from None
    if dtype is np.int8 and not np.array_equal(copy, given):
        raise DataError(f"{table.name}: {name} holds values other than 0 and 1.")
    copy.flags.writeable = False
    return copy


def _check_classes(table: ScoreTable) -> None:
    if table.kind not in get_args(TaskKind):
        allowed = ", ".join(get_args(TaskKind))
        raise DataError(f"{table.name}: kind is {table.kind}; allowed are {allowed}.")
    count, repeated = len(table.classes), len(table.classes) - len(set(table.classes))
    least = 2 if table.kind == "multiclass" else 1
    is_binary = table.kind == "binary"
    if repeated or count < least or (is_binary and count > least):
        raise DataError(
            f"{table.name}: {count} classes, {repeated} of them repeated; a {table.kind} task has "
            f"{'exactly' if is_binary else 'at least'} {least}, each with its own name."
        )


def _check_shapes(table: ScoreTable) -> None:
    notes, classes = len(table.note_ids_N), len(table.classes)
    ids, patients, targets, scores = (getattr(table, name).shape for name in _ARRAYS)
    wide = (notes, classes)
    if notes == 0 or (ids, patients, targets, scores) != ((notes,), (notes,), wide, wide):
        raise DataError(
            f"{table.name}: targets have shape {targets}, scores {scores}, patients {patients}; "
            f"with {notes} notes and {classes} classes they must be {wide}, {wide} and {(notes,)}, "
            "and at least one note."
        )
    repeated = notes - len(set(table.note_ids_N.tolist()))
    if repeated:
        raise DataError(f"{table.name}: {repeated} notes stand there twice; keep one of each.")


def _check_values(table: ScoreTable) -> None:
    wrong = (table.targets_NK != 0) & (table.targets_NK != 1)
    if wrong.any():
        raise DataError(f"{table.name}: {int(wrong.sum())} targets are not 0 or 1.")
    if table.kind == "multiclass":
        is_wrong_N = table.targets_NK.sum(axis=1) != 1
        _refuse_rows(table, is_wrong_N, "a number of classes other than one")
    in_range_NK = (table.scores_NK >= 0) & (table.scores_NK <= 1)  # false for NaN as well
    _refuse_rows(table, ~np.all(in_range_NK, axis=1), "a score that is NaN or outside 0..1")
    if table.kind == "multiclass":
        off = np.abs(table.scores_NK.sum(axis=1) - 1) > _SOFTMAX_TOLERANCE
        _refuse_rows(table, off, "softmax scores that do not sum to 1")


def _refuse_rows(table: ScoreTable, is_wrong_N: npt.NDArray[np.bool_], what: str) -> None:
    if is_wrong_N.any():
        first = table.note_ids_N[np.argmax(is_wrong_N)]
        raise DataError(
            f"{table.name}: {int(is_wrong_N.sum())} of {len(is_wrong_N)} notes have {what}, the "
            f"first is note {first}."
        )
