"""How well scores rank: AUROC, average precision and the ROC curve, exact with ties.

Shapes: N notes scored, K classes. Targets are 0 or 1; a higher score means a likelier 1. A label
without both values has no ranking to judge, so its score is nan and never 0 or 0.5.
"""

import math
from collections.abc import Iterator
from statistics import fmean

import numpy as np
import numpy.typing as npt

from notetune.aliases import FloatArray
from notetune.errors import DataError

BoolArray = npt.NDArray[np.bool_]


def auroc_score(labels_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> float:
    """The share of (positive, negative) pairs ranked right, a tie counting one half.

    Labels are `(N,)` of 0/1 or bool, scores `(N,)`, of which some may be infinite.

    Raises:
        DataError: If a score is NaN, a label is not 0 or 1, or the shapes differ.

    Source:
        Mann and Whitney (1947); Hanley and McNeil (1982).

    Example:
        >>> auroc_score([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    return float(auroc_scores(_column(labels_N), _column(scores_N))[0])


def auroc_scores(labels_NK: npt.ArrayLike, scores_NK: npt.ArrayLike) -> FloatArray:
    """AUROC of each label: `(K,)` from `(N, K)` labels and scores; errors as of `auroc_score`."""
    is_positive_NK, scores = _checked(labels_NK, scores_NK)
    aurocs_K = np.full(scores.shape[1], np.nan)
    for k, (sorted_N, positive_P) in enumerate(_sorted_labels(is_positive_NK, scores)):
        positives, negatives = len(positive_P), len(sorted_N) - len(positive_P)
        if positives == 0 or negatives == 0:
            continue
        below_P = np.searchsorted(sorted_N, positive_P, side="left")
        not_above_P = np.searchsorted(sorted_N, positive_P, side="right")
        # Positives meet each other here too, and win exactly half of those meetings. Everything
        # is a whole number until the last division, which is therefore the only rounding.
        twice_wins = int(below_P.sum() + not_above_P.sum()) - positives * positives
        aurocs_K[k] = twice_wins / (2 * positives * negatives)
    return aurocs_K


def macro_auroc(labels_NK: npt.ArrayLike, scores_NK: npt.ArrayLike) -> float:
    """Mean AUROC over the labels with both values, nan without one; errors as of `auroc_score`."""
    aurocs_K = auroc_scores(labels_NK, scores_NK)
    defined = aurocs_K[~np.isnan(aurocs_K)]
    return fmean(defined) if len(defined) else math.nan


def micro_auroc(labels_NK: npt.ArrayLike, scores_NK: npt.ArrayLike) -> float:
    """AUROC of K labels taken as one; errors as of `auroc_score`."""
    return auroc_score(np.ravel(labels_NK), np.ravel(scores_NK))


def average_precision_scores(labels_NK: npt.ArrayLike, scores_NK: npt.ArrayLike) -> FloatArray:
    """Average precision of each label: `(K,)` from `(N, K)`; errors as of `auroc_score`.

    Source:
        sum over thresholds of (recall_n - recall_{n-1}) * precision_n, tied scores sharing one
        threshold (no interpolation).
    """
    is_positive_NK, scores = _checked(labels_NK, scores_NK)
    precisions_K = np.full(scores.shape[1], np.nan)
    for k, (sorted_N, positive_P) in enumerate(_sorted_labels(is_positive_NK, scores)):
        if len(positive_P) in (0, len(sorted_N)):
            continue
        called_P = len(sorted_N) - np.searchsorted(sorted_N, positive_P, side="left")
        right_P = len(positive_P) - np.searchsorted(positive_P, positive_P, side="left")
        precisions_K[k] = np.mean(right_P / called_P)
    return precisions_K


def _sorted_labels(
    is_positive_NK: BoolArray, scores_NK: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Per label: all scores ascending, and the scores of its positives ascending."""
    for scores_N, is_positive_N in zip(scores_NK.T, is_positive_NK.T, strict=True):
        yield np.sort(scores_N), np.sort(scores_N[is_positive_N])


def _column(values_N: npt.ArrayLike) -> npt.NDArray[np.generic]:
    values = np.asarray(values_N)
    if values.ndim != 1:
        raise DataError(f"one label's values have shape {values.shape}; (notes,) is needed.")
    return values[:, np.newaxis]


def _checked(labels_NK: npt.ArrayLike, scores_NK: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    labels, scores = np.asarray(labels_NK), np.asarray(scores_NK, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise DataError(
            f"labels have shape {labels.shape} and scores {scores.shape}; both must be the same "
            "(notes, labels)."
        )
    is_positive_NK = labels.astype(bool)
    if labels.dtype != np.bool_ and not np.array_equal(is_positive_NK, labels):
        wrong = int(np.count_nonzero(is_positive_NK != labels))
        raise DataError(f"labels: {wrong} of {labels.size} values are not 0 or 1.")
    is_nan_NK = np.isnan(scores)
    if is_nan_NK.any():
        row, column = np.argwhere(is_nan_NK)[0]
        raise DataError(
            f"scores: {int(is_nan_NK.sum())} of {scores.size} values are NaN, the first in row "
            f"{row}, label {column}. Find out why the model gave no number there."
        )
    return is_positive_NK, scores
