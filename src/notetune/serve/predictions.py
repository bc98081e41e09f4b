"""What every loaded bundle does: it scores notes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.errors import BundleError, DataError
from notetune.notes.clean import clean_text
from notetune.tokens.store import Reading


@dataclass(frozen=True)
class Predictions:
    """Probabilities of notes, in the order in which the notes were given.

    Attributes:
        reading: How much of each note was read; None where no tokens are.
        unkept: Notes with a level that the bundle does not know, by column.

    Raises:
        BundleError: If a score is not finite.
    """

    scores_NK: npt.NDArray[np.float64]
    reading: Reading | None = None
    unkept: dict[str, int] = field(default_factory=dict)

    @property
    def notices(self) -> list[str]:
        """What a user should know of the columns that were read."""
        notes = len(self.scores_NK)
        return [
            f"column {name}: {count} of {notes} notes have a level that the bundle does not know, "
            "or that was rare in its training; it counts for nothing."
            for name, count in self.unkept.items()
        ]

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self.scores_NK).all(1))
        if bad.size:
            raise BundleError(
                f"the bundle gives {bad.size} of {len(self.scores_NK)} notes scores that are not "
                f"finite, first note number {bad[0] + 1}; restore it or its backbone from a copy."
            )


class Predictor(Protocol):
    """A loaded bundle; scores do not depend on which notes come together."""

    def predict(self, texts: Sequence[str], columns: pl.DataFrame | None = None) -> Predictions:
        """Score notes.

        Args:
            texts: N texts.
            columns: `(N,)` rows of `note_id` and the columns that the bundle reads; others need
                none.

        Raises:
            DataError: If there is no note, a note is empty, or a column is missing or faulty.
        """


def cleaned(texts: Sequence[str]) -> list[str]:
    """Texts as notes are read.

    Raises:
        DataError: If there is none, or one is empty after cleaning; it is named by its place.
    """
    found = [clean_text(text) for text in texts]
    empty = [place for place, text in enumerate(found) if not text.strip()]
    if empty or not found:
        which = f"note number {empty[0] + 1} is empty" if empty else "there is no note"
        raise DataError(f"{which}; give at least one note, each with text.")
    return found
