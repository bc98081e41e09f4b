"""What the winner of several configurations scores on other patients, without the luck of winning.

Shapes: M configurations, N notes, B draws of patients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from notetune.aliases import FloatArray
from notetune.errors import DataError
from notetune.metrics.bootstrap import Counts, patient_draws

Predictions = TypeVar("Predictions")


@dataclass(frozen=True)
class Chosen:
    """The best of several configurations.

    Attributes:
        place: Where it stands among them.
        naive: Its score on the notes that chose it, which is too good.
        corrected: What the choice is worth on patients who had no part in it; the mean over the
            draws that define all scores.
    """

    place: int
    naive: float
    corrected: float


def chosen_score(
    configurations: Sequence[Predictions],
    patient_ids_N: npt.NDArray[np.str_],
    score: Callable[[Predictions, Counts], FloatArray],
    *,
    maximize: bool,
    draws: int = 1000,
    seed: int = 0,
) -> Chosen:
    """Choose the best configuration, and estimate what it scores by choosing again and again.

    Each draw of patients chooses a winner, which is scored on the patients who were not drawn.
    Nothing is trained again: the predictions are those of models that saw none of these notes.

    Args:
        configurations: The predictions of each, in any form that `score` takes, on the same notes.
        patient_ids_N: `(N,)` whose the notes are.
        score: From predictions and `(N, B)` counts of how often each note counts in each draw to
            `(B,)` scores, nan where undefined.
        maximize: Whether higher scores are better.
        draws: How often patients are drawn.
        seed: Of the draws.

    Raises:
        DataError: If there is no configuration, there are fewer than two patients, or no draw
            defines all scores.

    Source:
        Bootstrap bias-corrected cross-validation: Tsamardinos, Greasidou and Borboudakis (2018),
        here with patients in place of notes.
    """
    if not configurations:
        raise DataError("there is no configuration to choose from; finish a trial first.")
    inside_NB = patient_draws(patient_ids_N, draws, seed).counts_of(patient_ids_N)
    outside_NB = (inside_NB == 0).astype(np.uint8)
    all_N1 = np.ones((len(patient_ids_N), 1), np.uint8)
    whole_M, inside_MB, outside_MB = (
        np.array([score(one, counts) for one in configurations])
        for counts in (all_N1, inside_NB, outside_NB)
    )
    is_defined_B = ~np.isnan(inside_MB + outside_MB).any(axis=0)
    if not is_defined_B.any() or np.isnan(whole_M).any():
        raise DataError(
            f"none of {draws} draws of patients defines the scores of all "
            f"{len(configurations)} configurations; choose on more notes."
        )
    best = np.argmax if maximize else np.argmin
    place = int(best(whole_M[:, 0]))
    winners_B = best(inside_MB[:, is_defined_B], axis=0)
    corrected = np.take_along_axis(outside_MB[:, is_defined_B], winners_B[None], axis=0).mean()
    return Chosen(place, float(whole_M[place, 0]), float(corrected))
