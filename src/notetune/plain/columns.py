"""Columns beside the text: numbers and levels as the features of a linear model.

Shapes: N notes, F features.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from notetune.config import Config
from notetune.errors import DataError

_NOTE = "note_id"
_COMMA_NUMBER = r"^[-+]?((\d+|\d{1,3}(\.\d{3})+),\d+|\d{1,3}(,\d{3})+(\.\d+)?)$"
_TRUTH = {"True": "1", "true": "1", "TRUE": "1", "False": "0", "false": "0", "FALSE": "0"}
"""What a column of truth is in training, where it was no text."""
_MOST = 1e30
"""Far beyond what is measured; the deviation and the features of more need not be finite."""


class NumberColumn(Config):
    """A column of numbers: standardised, with a flag where it is empty."""

    kind: Literal["number"] = "number"
    name: str
    mean: float
    scale: Annotated[float, Field(gt=0)]
    """Standard deviation over the training notes; 1 for a constant."""


class LevelColumn(Config):
    """A column of levels: a feature for each that enough patients share, and one for empty cells.

    A rare level and one that training never saw are the same: none of them is kept.
    """

    kind: Literal["level"] = "level"
    name: str
    levels: tuple[str, ...]


Column = Annotated[NumberColumn | LevelColumn, Field(discriminator="kind")]


class Columns(Config):
    """All columns of a model, in the order of its features."""

    columns: Annotated[tuple[Column, ...], Field(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names in a table of notes."""
        return tuple(column.name for column in self.columns)

    @property
    def names_of_features(self) -> list[str]:
        """The column of each of the F features: a number has two, levels one each and one more."""
        widths = (2 if isinstance(c, NumberColumn) else len(c.levels) + 1 for c in self.columns)
        return [name for name, width in zip(self.names, widths, strict=True) for _ in range(width)]

    def features(self, frame: pl.DataFrame) -> npt.NDArray[np.float32]:
        """`(N, F)` float32 features of the rows of a table of `note_id` and the columns.

        Numbers stand there as numbers or as text, or as true and false.

        Raises:
            DataError: If a cell of a column of numbers is no number.
        """
        parts_NF = [part_N for column in self.columns for part_N in _features(column, frame)]
        return np.column_stack(parts_NF).astype(np.float32)

    def unkept(self, frame: pl.DataFrame) -> dict[str, int]:
        """How many notes have a level that is none of those kept, by column, where some have."""
        counts = {
            column.name: int((~frame[column.name].cast(pl.String).is_in(column.levels)).sum())
            for column in self.columns
            if isinstance(column, LevelColumn)
        }
        return {name: count for name, count in counts.items() if count}


def typed(frame: pl.DataFrame, coded: Sequence[str]) -> pl.DataFrame:
    """Columns of text as what they hold: numbers where every filled-in cell is one.

    The numbers of `coded` columns are codes, so these stay text, as `note_id` does.

    Raises:
        DataError: If most cells of a column are numbers and some are not, or are numbers with a
            comma.
    """
    found = []
    for series in frame.drop(_NOTE).iter_columns():
        numbers, is_odd = _numbers(series)
        filled, odd = series.len() - series.null_count(), int(is_odd.sum())
        is_text = series.name in coded or odd == filled
        if series.name not in coded:
            _refuse_commas(series, filled)
        if not is_text and 0 < odd < filled / 2:
            remedy = (
                "mend them, empty them, or name the column in prepare.source.coded_features too if "
                "its numbers are codes"
            )
            raise _not_numbers(frame, series.name, is_odd, remedy)
        found.append(series if is_text or odd else numbers)
    return frame.select(_NOTE).with_columns(found)


def fit_columns(
    frame: pl.DataFrame, patients_N: npt.NDArray[np.str_], min_patients: int
) -> Columns:
    """How the columns of training notes, as `typed` made them, become features.

    A level is kept if at least `min_patients` have it; `patients_N` is the patient of each row.
    """
    patients = pl.Series("patient", patients_N)
    columns: list[Column] = []
    for series in frame.drop(_NOTE).iter_columns():
        if series.dtype == pl.String:
            pairs = pl.DataFrame({"level": series, "patient": patients}).drop_nulls().unique()
            counts = pairs.group_by("level").len().filter(pl.col("len") >= min_patients)
            levels = tuple(counts["level"].sort().to_list())
            columns.append(LevelColumn(name=series.name, levels=levels))
        else:
            values_N = series.drop_nulls().to_numpy()
            mean, deviation = 0.0, 0.0
            if len(values_N):
                mean, deviation = float(values_N.mean()), float(values_N.std())
            scale = deviation if deviation > 1e-9 * abs(mean) else 1.0
            columns.append(NumberColumn(name=series.name, mean=mean, scale=scale))
    return Columns(columns=tuple(columns))


def _features(column: Column, frame: pl.DataFrame) -> Iterator[npt.NDArray[np.float64]]:
    series = frame[column.name]
    if isinstance(column, LevelColumn):
        cells = series.cast(pl.String)
        for level in column.levels:
            yield (cells == level).fill_null(value=False).to_numpy().astype(np.float64)
    else:
        is_constant = column.scale == 1 and column.mean in (0, 1)
        if series.dtype == pl.String and (is_constant or 0 <= column.mean <= 1 >= 2 * column.scale):
            series = series.replace(_TRUTH)
        numbers, is_odd = _numbers(series)
        if is_odd.any():
            raise _not_numbers(
                frame, column.name, is_odd, "training had numbers alone there: mend or empty them"
            )
        yield ((numbers - column.mean) / column.scale).fill_null(0.0).to_numpy()
    yield series.is_null().to_numpy().astype(np.float64)


def _refuse_commas(series: pl.Series, filled: int) -> None:
    commas = int(series.cast(pl.String).str.contains(_COMMA_NUMBER).sum())
    if commas and commas >= filled / 2:
        raise DataError(
            f"column {series.name}: {commas} of {filled} cells are numbers with a comma; write "
            "70.31 for 70,31 and 1200 for 1,200 or 1.200,0, or name the column in "
            "prepare.source.coded_features too if these are levels."
        )


def _numbers(series: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The cells as numbers, and which of them are filled in with something else."""
    numbers = series.cast(pl.Float64, strict=False)
    is_number = (numbers.abs() <= _MOST).fill_null(value=False)
    return numbers, ~is_number & series.is_not_null()


def _not_numbers(frame: pl.DataFrame, name: str, is_odd: pl.Series, remedy: str) -> DataError:
    first = frame[_NOTE].filter(is_odd)[0]
    return DataError(
        f"column {name}: {int(is_odd.sum())} of {frame.height} notes have something there that is "
        f"no number of at most {_MOST:.0e}, the first is note {first}; {remedy}."
    )
