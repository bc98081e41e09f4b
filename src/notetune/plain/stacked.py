"""A logistic stack of models: how much each one's logits count, and where a label starts.

Shapes: N notes, K classes, M models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from notetune.aliases import FloatArray
from notetune.plain.linear import log_odds, probabilities

_RIDGE = 1.0
_CONSTANT = 1e-9  # rounding
_MOST_DEVIATIONS = 10.0  # of a logit that one standard deviation of a model's is turned into
# Gives a class without any positive note a finite start, and makes the classes' starts unique.
_RIDGE_OF_STARTS = 1e-3


@dataclass(frozen=True)
class Stacked:
    """The stack: slopes for logits as they come, 0 or more and the same for all labels of a task.

    `start_K` are the intercepts.
    """

    kind: str
    slopes_M: FloatArray
    start_K: FloatArray

    def scores(self, scores_MNK: Sequence[FloatArray]) -> FloatArray:
        """`(N, K)` probabilities from those of the M models."""
        logits_MNK = (log_odds(self.kind, scores_NK) for scores_NK in scores_MNK)
        pairs = zip(self.slopes_M, logits_MNK, strict=True)
        summed_NK: FloatArray = sum((slope * one for slope, one in pairs), np.zeros(1))
        return probabilities(self.kind, summed_NK + self.start_K)


def fit_stacked(
    kind: str, scores_MNK: Sequence[FloatArray], targets_NK: npt.NDArray[np.int8]
) -> Stacked:
    """The stack with the lowest penalised log loss.

    Every note's scores, `(N, K)` probabilities of each model, must come from models that did not
    see its patient.
    """
    logits_MNK = np.stack([log_odds(kind, scores_NK) for scores_NK in scores_MNK])
    deviation_M = np.sqrt(logits_MNK.var(1).mean(1))
    scale_M = np.where(deviation_M > _CONSTANT, deviation_M, 1.0)
    logits_MNK = logits_MNK / scale_M[:, np.newaxis, np.newaxis]
    models, _, classes = logits_MNK.shape

    def loss(unknowns: FloatArray) -> tuple[float, FloatArray]:
        slopes_M, start_K = unknowns[:models], unknowns[models:]
        total_NK = np.tensordot(slopes_M, logits_MNK, 1) + start_K
        error_NK = probabilities(kind, total_NK) - targets_NK
        ridge = _RIDGE * slopes_M, _RIDGE_OF_STARTS * start_K
        penalty = float(ridge[0] @ slopes_M + ridge[1] @ start_K) / 2
        by_slope_M = np.einsum("mnk,nk->m", logits_MNK, error_NK)
        value = _log_loss(kind, total_NK, targets_NK) + penalty
        return value, np.concatenate([by_slope_M + ridge[0], error_NK.sum(0) + ridge[1]])

    bounds = [(0.0, None)] * models + [(None, None)] * classes
    found = scipy.optimize.minimize(
        loss,
        np.concatenate([np.ones(models) / models, np.zeros(classes)]),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-7},
    )
    return Stacked(kind, found.x[:models] / scale_M, found.x[models:])


def trusted_more(
    stacked: Stacked, scores_MNK: Sequence[FloatArray], targets_NK: npt.NDArray[np.int8]
) -> Stacked:
    """The stack with a larger slope of its last model, if notes that no model learned from ask so.

    For a model that has become better than the one that the stack was fitted with. The slope has
    the lowest penalised log loss on the notes; it turns about the model's mean logits, so that the
    starts of labels stay what they are worth.
    """
    logits_MNK = np.stack([log_odds(stacked.kind, scores_NK) for scores_NK in scores_MNK])
    total_NK = np.tensordot(stacked.slopes_M, logits_MNK, 1) + stacked.start_K
    mean_K = logits_MNK[-1].mean(0)
    turned_NK = logits_MNK[-1] - mean_K
    variance = float(turned_NK.var(0).mean())
    least = float(stacked.slopes_M[-1])

    def loss(more: float) -> float:
        penalty = _RIDGE * variance * (least + more) ** 2 / 2
        return _log_loss(stacked.kind, total_NK + more * turned_NK, targets_NK) + penalty

    most = _MOST_DEVIATIONS / max(np.sqrt(variance), _CONSTANT)
    found = scipy.optimize.minimize_scalar(loss, bounds=(0.0, most), method="bounded")
    if loss(found.x) >= loss(0.0):
        return stacked
    slopes_M = np.append(stacked.slopes_M[:-1], least + found.x)
    return Stacked(stacked.kind, slopes_M, stacked.start_K - found.x * mean_K)


def _log_loss(kind: str, logits_NK: FloatArray, targets_NK: npt.NDArray[np.int8]) -> float:
    """Summed over notes and labels."""
    if kind == "multiclass":
        return float(-(scipy.special.log_softmax(logits_NK, axis=1) * targets_NK).sum())
    return float((np.logaddexp(0, logits_NK) - targets_NK * logits_NK).sum())
