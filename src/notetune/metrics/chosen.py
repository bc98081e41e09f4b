"""What the winner of several configurations scores on other patients, without the luck of winning.

Shapes: M configurations, N notes, B draws of patients, K labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from notetune.aliases import FloatArray
from notetune.errors import DataError
from notetune.metrics.bootstrap import Counts, mean_of_defined, patient_draws

Predictions = TypeVar("Predictions")


@dataclass(frozen=True)
class Chosen:
    """The best of several configurations.

    Attributes:
        place: Where it stands among them.
        naive: Its score on the notes that chose it, which is too good.
        corrected: What the choice is worth on patients who had no part in it: of each label the
            mean over the draws that define it there, then the mean over labels. None where no draw
            defines the scores on both its sides.
    """

    place: int
    naive: float
    corrected: float | None


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
    Nothing is trained again. Where these notes also chose what of each training is kept, that is
    not corrected.

    `configurations` are the predictions of each on the same notes, in any form that `score` takes:
    it makes `(K, B)` scores, nan where undefined, of them and of `(N, B)` counts of how often each
    note counts in each draw. Those of all labels count the same.

    Raises:
        DataError: If there is no configuration or one without a score, or there are fewer than two
            patients.

    Source:
        Bootstrap bias-corrected cross-validation: Tsamardinos, Greasidou and Borboudakis (2018),
        here with patients in place of notes. A rare label is missing on one side of most draws, so
        labels are averaged last.
    """
    if not configurations:
        raise DataError("there is no configuration to choose from; finish a trial first.")
    inside_NB = patient_draws(patient_ids_N, draws, seed).counts_of(patient_ids_N)
    outside_NB = (inside_NB == 0).astype(np.uint8)
    all_N1 = np.ones((len(patient_ids_N), 1), np.uint8)
    whole_M, inside_MB = (
        np.array([mean_of_defined(score(one, counts)) for one in configurations])
        for counts in (all_N1, inside_NB)
    )
    best = np.argmax if maximize else np.argmin
    is_defined_B = ~np.isnan(inside_MB).any(axis=0)
    winners_B = np.where(is_defined_B, best(inside_MB, axis=0), -1)
    outside_KB = np.concatenate(
        [
            score(one, outside_NB[:, winners_B == number])
            for number, one in enumerate(configurations)
        ],
        axis=1,
    )
    corrected_K = mean_of_defined(outside_KB.T)
    if unscored := int(np.isnan(whole_M).sum()):
        raise DataError(
            f"{unscored} of {len(configurations)} configurations have no score on these notes; "
            "choose on others."
        )
    place = int(best(whole_M[:, 0].round(6)))  # single precision tells no two apart
    corrected = None if np.isnan(corrected_K).all() else float(np.nanmean(corrected_K))
    return Chosen(place, float(whole_M[place, 0]), corrected)
