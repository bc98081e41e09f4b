"""What a score would be on other patients: draws of whole patients, shared by all models.

Shapes: N notes scored, K classes, P patients, B draws.

Patients are the unit that is resampled, because the notes of one patient are alike. A draw is a
count of how often each patient was drawn, so resampling is weighting: nothing is copied, and
every model, run, task and label can use the same draws, which is what makes differences paired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from notetune.aliases import FloatArray
from notetune.errors import DataError
from notetune.metrics.ranking import auroc_scores, average_precision_scores

Targets = npt.NDArray[np.int8]
Counts = npt.NDArray[np.uint8]

_ROUNDING = 1e-7  # of draws, which are in single precision
_CELLS_AT_ONCE = 2**26
"""Notes x draws weighted at once: 256 MiB of float32."""


@dataclass(frozen=True)
class Estimate:
    """A number on the data as they are, with its interval over `n` patients."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PatientDraws:
    """Bootstrap draws of whole patients, sorted: how often each draw holds each of them.

    Each column of `counts_PB` sums to P.
    """

    patient_ids_P: npt.NDArray[np.str_]
    counts_PB: Counts

    def counts_of(self, patient_ids_N: npt.NDArray[np.str_]) -> Counts:
        """`(N, B)`: how often each draw holds each note.

        Raises:
            DataError: If a note belongs to a patient who was not drawn from.
        """
        place_N = np.searchsorted(self.patient_ids_P, patient_ids_N)
        place_N = np.minimum(place_N, len(self.patient_ids_P) - 1)
        unknown = self.patient_ids_P[place_N] != patient_ids_N
        if unknown.any():
            raise DataError(
                f"{int(unknown.sum())} of {len(unknown)} notes belong to patients outside the "
                f"{len(self.patient_ids_P)} that are resampled; draw from all patients first."
            )
        return self.counts_PB[place_N]


@dataclass(frozen=True)
class Replicates:
    """A statistic on the data as they are, and in each draw; nan where a draw does not define it.

    Those of the same draws can be subtracted.
    """

    value: float
    draws_B: FloatArray

    @property
    def defined(self) -> FloatArray:
        """The draws that define it.

        Raises:
            DataError: If fewer than two do.
        """
        defined = self.draws_B[~np.isnan(self.draws_B)]
        if len(defined) < 2:
            raise DataError("no two bootstrap draws have both classes; there is no interval.")
        return defined

    @property
    def variance(self) -> float:
        """Over the draws; 0 where they differ by rounding alone."""
        return float(without_rounding(self.defined - self.value).var(ddof=1))

    def minus(self, other: "Replicates") -> "Replicates":
        """The paired difference, draw by draw; 0 where it is but rounding."""
        value, draws_B = self.value - other.value, self.draws_B - other.draws_B
        return Replicates(without_rounding(np.array(value)).item(), without_rounding(draws_B))


def without_rounding(differences: FloatArray) -> FloatArray:
    """As 0 those that rounding leaves, as between a model and its mean over several runs."""
    return np.where(np.abs(differences) < _ROUNDING, 0.0, differences)


def patient_draws(
    patient_ids: npt.NDArray[np.str_], draws: int = 2_000, seed: int = 0
) -> PatientDraws:
    """Draw P of the P distinct patients with replacement, `draws` times.

    The same seed and set of patients give the same draws; `patient_ids` may repeat in any order.

    Raises:
        DataError: If there are fewer than two patients.
    """
    patient_ids_P = np.unique(patient_ids)
    patients = len(patient_ids_P)
    if patients < 2:
        raise DataError(
            f"a bootstrap over patients needs at least 2 of them; found {patients}. Check that "
            "patient_id names patients and that the split is not empty."
        )
    generator = np.random.default_rng(seed)
    counts_PB = np.empty((patients, draws), np.uint8)
    for draw in range(draws):
        drawn = generator.integers(patients, size=patients)
        counts_PB[:, draw] = np.bincount(drawn, minlength=patients)
    return PatientDraws(patient_ids_P, counts_PB)


def auroc_replicates(
    targets_NK: Targets, scores: Sequence[FloatArray], counts_NB: Counts
) -> Replicates:
    """Macro AUROC averaged over the runs of a model, and its distribution over draws.

    Args:
        targets_NK: `(N, K)` of 0/1; each of the K labels has both values.
        scores: Of each run, `(N, K)`.
        counts_NB: How often each note counts in each draw. Where a draw loses one of a label's
            values, the macro average goes over the other labels.

    A draw's AUROC is taken as linear in the counts, through the placement of each note, so that
    runs are averaged before anything is drawn.
    """
    value = float(np.mean([auroc_scores(targets_NK, of_run) for of_run in scores]))
    placed_NK = np.zeros(targets_NK.shape)  # summed up, because wide tables of all runs are large
    for of_run in scores:
        placed_NK += placements(targets_NK, of_run) / len(scores)
    return Replicates(value, mean_of_defined(auroc_draws(targets_NK, placed_NK, counts_NB)))


def placements(targets_NK: Targets, scores_NK: FloatArray) -> FloatArray:
    """`(N, K)`: the share of the other class against which each note is ranked right.

    A tie counts one half. The mean over a label's positives is its AUROC, and so is the mean over
    its negatives.

    Source:
        The components of DeLong et al. (1988); "placement values" after Hanley and Hajian-Tilaki
        (1997).
    """
    placed_NK = np.empty(scores_NK.shape)
    for k in range(scores_NK.shape[1]):
        is_positive_N = targets_NK[:, k] == 1
        positives, negatives = scores_NK[is_positive_N, k], scores_NK[~is_positive_N, k]
        placed_NK[is_positive_N, k] = _share_below(positives, negatives)
        placed_NK[~is_positive_N, k] = 1 - _share_below(negatives, positives)
    return placed_NK


def auroc_draws(targets_NK: Targets, placed_NK: FloatArray, counts_NB: Counts) -> FloatArray:
    """`(K, B)`: AUROC of each label in each draw; nan where a draw leaves it with one class.

    To first order in the counts: the mean placement of the positives drawn, plus that of the
    negatives drawn, less the AUROC. What is left out is smaller by the root of the number of
    positives: the spread over draws is that of the exact AUROC to .5 % and takes a product of
    matrices.
    """
    is_positive_KN = targets_NK.T.astype(np.float32)
    with np.errstate(invalid="ignore"):
        auroc_K = (placed_NK * targets_NK).sum(axis=0) / targets_NK.sum(axis=0)
    # Less the AUROC before the product, so that single precision is precise enough.
    centred_KN = (placed_NK - auroc_K).T.astype(np.float32)
    draws = counts_NB.shape[1]
    auroc_KB = np.empty((placed_NK.shape[1], draws))
    for block in _blocks(len(counts_NB), draws):
        weights_NB = counts_NB[:, block].astype(np.float32)
        positives_KB = is_positive_KN @ weights_NB
        negatives_KB = weights_NB.sum(axis=0) - positives_KB
        of_positives_KB = (centred_KN * is_positive_KN) @ weights_NB
        of_negatives_KB = (centred_KN * (1 - is_positive_KN)) @ weights_NB
        with np.errstate(invalid="ignore", divide="ignore"):  # a class that was not drawn: 0 / 0
            shift_KB = of_positives_KB / positives_KB + of_negatives_KB / negatives_KB
        auroc_KB[:, block] = auroc_K[:, None] + shift_KB
    return auroc_KB


def precision_replicates(
    targets_NK: Targets, scores: Sequence[FloatArray], counts_NB: Counts
) -> Replicates:
    """Macro average precision averaged over runs, and its exact distribution over draws.

    Not for rare labels: repeated positives raise it. Arguments are those of `auroc_replicates`.
    """
    value = float(np.mean([average_precision_scores(targets_NK, of_run) for of_run in scores]))
    drawn = (precision_draws(targets_NK, of_run, counts_NB) for of_run in scores)
    return Replicates(value, np.mean([mean_of_defined(one_KB) for one_KB in drawn], axis=0))


def precision_draws(targets_NK: Targets, scores_NK: FloatArray, counts_NB: Counts) -> FloatArray:
    """`(K, B)`: average precision of each label when each note counts several times, exactly.

    Ties included; nan where a draw leaves a label with one class.
    """
    labels, draws = scores_NK.shape[1], counts_NB.shape[1]
    precision_KB = np.empty((labels, draws))
    for block in _blocks(len(counts_NB), draws):
        weights_NB = counts_NB[:, block].astype(np.float32)
        for k in range(labels):
            precision_KB[k, block] = _weighted_precision(
                targets_NK[:, k], scores_NK[:, k], weights_NB
            )
    return precision_KB


def mean_replicates(values_N: FloatArray, counts_NB: Counts) -> Replicates:
    """Mean over the notes of one number per note, such as a squared error."""
    notes_B = counts_NB.sum(axis=0, dtype=np.int64)
    with np.errstate(invalid="ignore"):  # a draw without a note of this table: 0 / 0
        means_B = (values_N @ counts_NB) / notes_B
    return Replicates(float(values_N.mean()), means_B)


def average(replicates: Sequence[Replicates]) -> Replicates:
    """Mean of statistics of the same draws, such as those of several tasks."""
    value = sum(item.value for item in replicates) / len(replicates)
    return Replicates(value, np.mean([item.draws_B for item in replicates], axis=0))


def _share_below(scores: FloatArray, others: FloatArray) -> FloatArray:
    """Of each score, the share of the others below it, ties as halves."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    not_above = np.searchsorted(ordered, scores, side="right")
    shares: FloatArray = (below + not_above) / (2 * len(others))
    return shares


def _blocks(notes: int, draws: int) -> Iterator[slice]:
    at_once = max(1, _CELLS_AT_ONCE // notes)
    for first in range(0, draws, at_once):
        yield slice(first, first + at_once)


def _weighted_precision(
    targets_N: Targets, scores_N: FloatArray, weights_NB: npt.NDArray[np.float32]
) -> FloatArray:
    """Walk from the best score down and count what each positive has above it.

    A loop over notes, each step of which adds a row of B draws, is many times faster here than
    `np.cumsum` down the columns. Weights are small whole numbers, so float32 adds them exactly.
    """
    called_B, positives_B = np.zeros((2, weights_NB.shape[1]), np.float32)
    precisions_B = np.zeros(weights_NB.shape[1])
    row_of, is_positive = list(weights_NB), targets_N.tolist()
    best_first = np.argsort(-scores_N, kind="stable").tolist()
    for _, group in groupby(best_first, key=scores_N.tolist().__getitem__):
        tied = list(group)
        for note in tied:
            called_B += row_of[note]
        here = [row_of[note] for note in tied if is_positive[note]]
        if here:
            # A weight times a count is exact in float32 too; that of a large tie is not.
            here_B = here[0] if len(here) == 1 else np.sum(here, axis=0, dtype=np.float64)
            positives_B += here_B
            product_B = np.multiply(here_B, positives_B, dtype=np.float64)
            precisions_B += product_B / np.maximum(called_B, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        has_both_B = (positives_B > 0) & (positives_B < called_B)
        precision_B: FloatArray = np.where(has_both_B, precisions_B / positives_B, np.nan)
    return precision_B


def mean_of_defined(values_KB: FloatArray) -> FloatArray:
    """`(B,)` means over what is defined; nan where nothing is."""
    is_defined_KB = ~np.isnan(values_KB)
    summed_B = np.where(is_defined_KB, values_KB, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):  # nothing is: 0 / 0
        means_B: FloatArray = summed_B / is_defined_KB.sum(axis=0)
    return means_B
