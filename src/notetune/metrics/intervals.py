"""How sure a score is: patient-cluster bootstrap, DeLong, Holm.

Shapes: N notes scored, K classes, P patients, B bootstrap draws, M models.

Patients are the unit that is resampled, because the notes of one patient are alike. A draw is a
count of how often each patient was drawn, so resampling is weighting: nothing is copied, and
every model, task and label can use the same draws, which is what makes differences paired.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from notetune.errors import DataError
from notetune.metrics.ranking import auroc_scores, average_precision_scores
from notetune.metrics.scores import ScoreTable

FloatArray = npt.NDArray[np.float64]
WeightArray = npt.NDArray[np.float32]

_CELLS_AT_ONCE = 2**26
"""Notes x draws weighted at once: 256 MiB of float32."""
_Z_95 = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: On the data as they are.
        low: Lower end of the interval.
        high: Upper end.
        n: Units that could have come out otherwise: patients for a bootstrap, notes for DeLong.
    """

    value: float
    low: float
    high: float
    n: int

    def contains(self, number: float) -> bool:
        """Whether the interval, ends included, holds the number."""
        return self.low <= number <= self.high


@dataclass(frozen=True)
class PatientDraws:
    """Bootstrap draws of whole patients.

    Attributes:
        patient_ids_P: `(P,)` distinct, sorted.
        counts_PB: `(P, B)` uint8, how often each draw holds each patient; columns sum to P.
    """

    patient_ids_P: npt.NDArray[np.str_]
    counts_PB: npt.NDArray[np.uint8]

    def counts_of(self, patient_ids_N: npt.NDArray[np.str_]) -> npt.NDArray[np.uint8]:
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
    """A statistic and its bootstrap distribution. Those of the same draws can be subtracted.

    Attributes:
        value: On the data as they are.
        draws_B: `(B,)` in each draw; nan where a draw does not define it.
        patients: Patients that were resampled.
    """

    value: float
    draws_B: FloatArray
    patients: int

    def estimate(self, level: float = 0.95) -> Estimate:
        """The value with its percentile interval, over the draws that define it.

        Raises:
            DataError: If no draw defines it.

        Source:
            Efron and Tibshirani (1993), chapter 13.
        """
        defined = self.draws_B[~np.isnan(self.draws_B)]
        if not defined.size:
            raise DataError("no bootstrap draw has both classes; the interval does not exist.")
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(self.value, float(low), float(high), self.patients)

    def minus(self, other: "Replicates") -> "Replicates":
        """The paired difference, draw by draw."""
        return Replicates(self.value - other.value, self.draws_B - other.draws_B, self.patients)

    def p_value(self) -> float:
        """Two-sided p-value of "the true value is 0", by inverting the percentile interval.

        Returns:
            Twice the share of draws on the smaller side of 0 (a draw at 0 counts on both), with 1
            added above and below, so never 0.

        Source:
            Davison and Hinkley (1997), section 4.4; the added 1 after Phipson and Smyth (2010).
        """
        defined = self.draws_B[~np.isnan(self.draws_B)]
        smaller_side = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
        return min(1.0, 2 * (smaller_side + 1) / (len(defined) + 1))


@dataclass(frozen=True)
class RankingReplicates:
    """Macro ranking scores of one table: each draw averages the labels that it defines."""

    auroc: Replicates
    average_precision: Replicates


def patient_draws(
    patient_ids: npt.NDArray[np.str_], draws: int = 2_000, seed: int = 0
) -> PatientDraws:
    """Draw P of the P distinct patients with replacement, `draws` times.

    Args:
        patient_ids: Any shape, repeats allowed; only the set of patients matters.
        draws: B.
        seed: The same seed and set of patients give the same draws.

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


def ranking_replicates(
    table: ScoreTable, draws: PatientDraws, labels: npt.NDArray[np.bool_]
) -> RankingReplicates:
    """Macro AUROC and macro average precision of a table, with their bootstrap distribution.

    A label with one or two positives shows the bootstrap hardly any of its spread: where many of
    the averaged labels are that rare, intervals are too narrow (90 % coverage instead of 95 % in a
    simulation of 30 labels with a prevalence of 0.4 to 30 % among 300 notes). Average precision is
    worse off: repeated positives raise it, so use its draws for labels that are not rare only.

    Args:
        table: N notes, K classes.
        draws: Over a set of patients that holds the table's.
        labels: `(K,)`, the classes to average; each has both values in the table. In a draw that
            loses one of a class's values the average goes over the other classes.

    Raises:
        DataError: If a patient of the table is not among those drawn from.
    """
    targets_NK, scores_NK = table.targets_NK[:, labels], table.scores_NK[:, labels]
    counts_NB = draws.counts_of(table.patient_ids_N)
    auroc_KB, precision_KB = label_draws(targets_NK, scores_NK, counts_NB)
    auroc = float(np.mean(auroc_scores(targets_NK, scores_NK)))
    precision = float(np.mean(average_precision_scores(targets_NK, scores_NK)))
    patients = len(np.unique(table.patient_ids_N))
    return RankingReplicates(
        Replicates(auroc, _mean_of_defined(auroc_KB), patients),
        Replicates(precision, _mean_of_defined(precision_KB), patients),
    )


def mean_replicates(table: ScoreTable, values_N: FloatArray, draws: PatientDraws) -> Replicates:
    """Mean over the notes of a table of one number per note, such as a squared error."""
    counts_NB = draws.counts_of(table.patient_ids_N)
    notes_B = counts_NB.sum(axis=0, dtype=np.int64)
    with np.errstate(invalid="ignore"):  # a draw without a note of this table: 0 / 0
        means_B = (values_N @ counts_NB) / notes_B
    patients = len(np.unique(table.patient_ids_N))
    return Replicates(float(values_N.mean()), means_B, patients)


def average(replicates: Sequence[Replicates], patients: int | None = None) -> Replicates:
    """Mean of statistics of the same draws: over the seeds of a model, or over tasks.

    Args:
        replicates: At least one. Only patients are resampled, not seeds or tasks: the interval is
            about other patients, not about other seeds.
        patients: How many were resampled, if more than the first statistic's.
    """
    return Replicates(
        value=math.fsum(item.value for item in replicates) / len(replicates),
        draws_B=np.mean([item.draws_B for item in replicates], axis=0),
        patients=replicates[0].patients if patients is None else patients,
    )


def label_draws(
    targets_NK: npt.NDArray[np.int8], scores_NK: FloatArray, counts_NB: npt.NDArray[np.uint8]
) -> tuple[FloatArray, FloatArray]:
    """AUROC and average precision of each label when each note counts several times.

    Args:
        targets_NK: `(N, K)` of 0/1.
        scores_NK: `(N, K)`, not NaN.
        counts_NB: `(N, B)`, how often each note counts in each draw.

    Returns:
        Two `(K, B)` arrays, exactly the scores of the repeated notes, ties included; nan where a
        draw leaves a label with one class.
    """
    labels, draws = scores_NK.shape[1], counts_NB.shape[1]
    auroc_KB, precision_KB = np.empty((labels, draws)), np.empty((labels, draws))
    draws_at_once = max(1, _CELLS_AT_ONCE // len(counts_NB))
    for first in range(0, draws, draws_at_once):
        block = slice(first, first + draws_at_once)
        weights_NB = counts_NB[:, block].astype(np.float32)
        for k in range(labels):
            auroc_KB[k, block], precision_KB[k, block] = _weighted_ranking(
                targets_NK[:, k], scores_NK[:, k], weights_NB
            )
    return auroc_KB, precision_KB


def delong_covariance(
    labels_N: npt.ArrayLike, scores_MN: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """AUROCs of M models on the same notes, and their covariance.

    Args:
        labels_N: `(N,)` of 0/1 with at least two of each.
        scores_MN: `(M, N)`.

    Returns:
        `(M,)` and `(M, M)`. Notes count as independent, which notes of one patient are not.

    Raises:
        DataError: If a class has fewer than two notes.

    Source:
        DeLong et al. (1988), by mid-ranks after Sun and Xu (2014).
    """
    is_positive_N = np.asarray(labels_N).astype(bool)
    scores = np.asarray(scores_MN, dtype=np.float64)
    positives, negatives = int(is_positive_N.sum()), int((~is_positive_N).sum())
    if min(positives, negatives) < 2:
        raise DataError(
            f"DeLong's variance needs 2 notes of each class; found {positives} positives and "
            f"{negatives} negatives."
        )
    ranks_MN = rankdata(scores, axis=1)
    of_positives = ranks_MN[:, is_positive_N] - rankdata(scores[:, is_positive_N], axis=1)
    of_negatives = ranks_MN[:, ~is_positive_N] - rankdata(scores[:, ~is_positive_N], axis=1)
    wins_MP, losses_MN = of_positives / negatives, 1 - of_negatives / positives
    covariance_MM = np.cov(wins_MP) / positives + np.cov(losses_MN) / negatives
    return wins_MP.mean(axis=1), np.atleast_2d(covariance_MM)


def delong_estimate(labels_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> Estimate:
    """An AUROC with DeLong's 95 % interval, cut at 0 and 1.

    Raises:
        DataError: As `delong_covariance`.
    """
    (auroc,), covariance_11 = delong_covariance(labels_N, np.atleast_2d(np.asarray(scores_N)))
    half_width = _Z_95 * math.sqrt(covariance_11[0, 0])
    low, high = max(0.0, auroc - half_width), min(1.0, auroc + half_width)
    return Estimate(float(auroc), low, high, len(np.asarray(labels_N)))


def delong_difference(
    labels_N: npt.ArrayLike, scores_N: npt.ArrayLike, others_N: npt.ArrayLike
) -> tuple[Estimate, float]:
    """AUROC of `scores_N` minus that of `others_N` with DeLong's 95 % interval, and its p-value.

    Raises:
        DataError: As `delong_covariance`.
    """
    aurocs_2, covariance_22 = delong_covariance(labels_N, np.array([scores_N, others_N]))
    difference = float(aurocs_2[0] - aurocs_2[1])
    variance = covariance_22[0, 0] + covariance_22[1, 1] - 2 * covariance_22[0, 1]
    error = math.sqrt(max(0.0, variance))
    p_value = float(2 * norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)
    notes = len(np.asarray(labels_N))
    low, high = difference - _Z_95 * error, difference + _Z_95 * error
    return Estimate(difference, low, high, notes), p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for all comparisons of a family, in the given order.

    Source:
        Holm (1979): the i-th smallest of m times m - i + 1, made monotone, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def _weighted_ranking(
    targets_N: npt.NDArray[np.int8], scores_N: FloatArray, weights_NB: WeightArray
) -> tuple[FloatArray, FloatArray]:
    """Walk from the best score down and count what each positive has above it.

    A loop over notes, each step of which adds a row of B draws, is many times faster here than
    `np.cumsum` down the columns. Weights are small whole numbers, so float32 adds them exactly.
    """
    draws = weights_NB.shape[1]
    negatives_B, positives_B = np.zeros(draws, np.float32), np.zeros(draws, np.float32)
    twice_losses_B, precisions_B = np.zeros(draws), np.zeros(draws)
    row_of = list(weights_NB)
    is_positive = targets_N.tolist()
    for tied in _best_first(scores_N):
        here = [row_of[note] for note in tied if is_positive[note]]
        if not here:
            for note in tied:
                negatives_B += row_of[note]
            continue
        # A single weight times a count is exact in float32 too; that of a large tie is not.
        here_B = here[0] if len(tied) == 1 else np.sum(here, axis=0, dtype=np.float64)
        twice_losses_B += here_B * negatives_B
        for note in tied:
            if not is_positive[note]:
                negatives_B += row_of[note]
        # Negatives above were added before and after the tie, tied ones after it only: a half.
        twice_losses_B += here_B * negatives_B
        positives_B += here_B
        called_B = np.maximum(positives_B + negatives_B, 1)
        precisions_B += np.divide(here_B * positives_B, called_B, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs_B = positives_B.astype(np.float64) * negatives_B
        auroc_B = np.where(pairs_B > 0, 1 - twice_losses_B / (2 * pairs_B), np.nan)
        precision_B = np.where(pairs_B > 0, precisions_B / positives_B, np.nan)
    return auroc_B, precision_B


def _best_first(scores_N: FloatArray) -> Iterator[list[int]]:
    """Groups of notes with equal score, highest first."""
    order_N = np.argsort(-scores_N, kind="stable")
    ranked_N = scores_N[order_N]
    changes = np.flatnonzero(ranked_N[1:] != ranked_N[:-1]) + 1
    notes = order_N.tolist()
    for first, end in pairwise([0, *changes.tolist(), len(notes)]):
        yield notes[first:end]


def _mean_of_defined(values_KB: FloatArray) -> FloatArray:
    is_defined_KB = ~np.isnan(values_KB)
    with np.errstate(invalid="ignore"):  # a draw that defines no label: 0 / 0
        means_B: FloatArray = np.where(is_defined_KB, values_KB, 0).sum(axis=0) / (
            is_defined_KB.sum(axis=0)
        )
    return means_B
