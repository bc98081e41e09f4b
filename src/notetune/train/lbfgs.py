"""Penalised logistic regression by L-BFGS, every label of a task at once.

Shapes: N notes, R directions of their features, K classes, D = R + 1 unknowns of a class: a weight
per direction, then an intercept. Each label of a binary or multilabel task is a problem of its own;
the classes of a multiclass task are one problem, so what holds for it stands K times.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from notetune.tokens.packing import Int64Array

_PAIRS = 8
_ITERATIONS, _ROUNDS = 20, 15  # labels that are solved leave after each round
_STALLED, _ROUNDING = 1e-7, 1e-6


@dataclass(frozen=True)
class Objective:
    """Summed loss plus `strength / 2` times the squared weights; intercepts are free.

    Attributes:
        rotated_NR: `(N, R)` float32 features in directions along which they do not correlate.
        squares_R: `(R,)` their sums of squares.
        targets_NK: `(N, K)` float32 zeros and ones.
        weights_NK: `(N, K)` weight of each loss; alike for the classes of one problem.
        strength: Of the penalty.
        is_softmax: Whether the classes are one problem.
    """

    rotated_NR: Tensor
    squares_R: Tensor
    targets_NK: Tensor
    weights_NK: Tensor
    strength: float
    is_softmax: bool

    def of(self, is_wanted_K: Tensor) -> "Objective":
        """That of some labels."""
        if self.is_softmax:
            return self
        targets_NK, weights_NK = self.targets_NK[:, is_wanted_K], self.weights_NK[:, is_wanted_K]
        return replace(self, targets_NK=targets_NK, weights_NK=weights_NK)

    def logits(self, unknowns_KD: Tensor) -> Tensor:
        """`(N, K)`."""
        return self.rotated_NR @ unknowns_KD[:, :-1].T + unknowns_KD[:, -1]

    def per_problem(self, values_K: Tensor) -> Tensor:
        """`(K,)` sums over the classes of each problem."""
        return values_K.sum().expand_as(values_K) if self.is_softmax else values_K

    def dot(self, a_KD: Tensor, b_KD: Tensor) -> Tensor:
        """`(K,)` inner products of the unknowns of each problem."""
        return self.per_problem((a_KD * b_KD).sum(1))

    def gradient(self, unknowns_KD: Tensor, logits_NK: Tensor) -> tuple[Tensor, Tensor]:
        """`(K, D)` gradient, and the diagonal of what is near the inverse of the curvature."""
        scores_NK = self._scores(logits_NK)
        error_NK = self.weights_NK * (scores_NK - self.targets_NK)
        weight_KR = error_NK.T @ self.rotated_NR + self.strength * unknowns_KD[:, :-1]
        bend_NK = self.weights_NK * scores_NK * (1 - scores_NK)
        bend_K1 = bend_NK.mean(0).clamp(min=1e-7).unsqueeze(1)
        weights_KR = bend_K1 * self.squares_R + self.strength
        near_KD = 1 / torch.cat([weights_KR, bend_K1 * len(scores_NK)], 1)
        return torch.cat([weight_KR, error_NK.sum(0).unsqueeze(1)], 1), near_KD

    def value(self, unknowns_KD: Tensor, logits_NK: Tensor) -> Tensor:
        """`(K,)` float64."""
        if self.is_softmax:
            loss_NK = -self.targets_NK * logits_NK.log_softmax(1)
        else:
            loss_NK = F.softplus(logits_NK) - self.targets_NK * logits_NK
        squares_K = unknowns_KD[:, :-1].square().sum(1, dtype=torch.float64)
        loss_K = (self.weights_NK * loss_NK).sum(0, dtype=torch.float64)
        return self.per_problem(loss_K + self.strength / 2 * squares_K)

    def step_length(
        self, unknowns_KD: Tensor, step_KD: Tensor, logits_NK: Tensor, change_NK: Tensor
    ) -> Tensor:
        """`(K, 1)` how far to go along a step: near its lowest point, and never up."""
        length_K = torch.ones_like(change_NK[0])
        for _ in range(3):
            moved_NK = logits_NK + length_K * change_NK
            slope_K, bend_K = self._along(step_KD, moved_NK, change_NK)
            moved_KR = (unknowns_KD + length_K.unsqueeze(1) * step_KD)[:, :-1]
            slope_K = slope_K + self.strength * self.dot(moved_KR, step_KD[:, :-1])
            length_K = (length_K - slope_K / bend_K.clamp(min=1e-30)).clamp(0.05, 8.0)
        before_K = self.value(unknowns_KD, logits_NK)
        for _ in range(12):
            length_K1 = length_K.unsqueeze(1)
            after_K = self.value(
                unknowns_KD + length_K1 * step_KD, logits_NK + length_K * change_NK
            )
            goes_up_K = after_K > before_K * (1 + _ROUNDING)
            if not goes_up_K.any():
                break
            length_K = torch.where(goes_up_K, length_K / 2, length_K)
        return length_K.unsqueeze(1)

    def _along(
        self, step_KD: Tensor, logits_NK: Tensor, change_NK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`(K,)` slope of the loss along a step, and second derivative of the whole."""
        scores_NK = self._scores(logits_NK)
        weighted_NK = self.weights_NK * change_NK
        slope_K = (weighted_NK * (scores_NK - self.targets_NK)).sum(0)
        less_NK = scores_NK * change_NK
        if self.is_softmax:
            less_NK = less_NK.sum(1, keepdim=True)
        bend_K = (weighted_NK * scores_NK * (change_NK - less_NK)).sum(0)
        penalty_K = self.strength * step_KD[:, :-1].square().sum(1)
        return self.per_problem(slope_K), self.per_problem(bend_K + penalty_K)

    def _scores(self, logits_NK: Tensor) -> Tensor:
        return logits_NK.softmax(1) if self.is_softmax else logits_NK.sigmoid()


def are_taught(kind: str, targets_NK: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """`(K,)` which classes have something to learn: the others get their prior."""
    positives_K: Int64Array = targets_NK.sum(0)
    return (positives_K > 0) & ((positives_K < len(targets_NK)) | (kind == "multiclass"))


def prior_unknowns(prior_K: Tensor, directions: int) -> Tensor:
    """`(K, D)` unknowns that predict how frequent each class is."""
    return torch.cat([prior_K.new_zeros(len(prior_K), directions), prior_K.unsqueeze(1)], 1)


def minimum(objective: Objective, start_KD: Tensor, tolerance: float) -> Tensor:
    """`(K, D)` unknowns at the minimum of each problem.

    `tolerance` is the Newton step that may be left, as a share of the unknowns.
    """
    unknowns_KD = start_KD.clone()
    open_K = torch.ones(len(start_KD), dtype=torch.bool, device=start_KD.device)
    for _ in range(_ROUNDS):
        found_KD, is_solved_K = _some_steps(objective.of(open_K), unknowns_KD[open_K], tolerance)
        unknowns_KD[open_K] = found_KD
        open_K[open_K.clone()] = ~is_solved_K
        if not open_K.any():
            break
    return unknowns_KD


def _some_steps(
    objective: Objective, unknowns_KD: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Unknowns after some steps of L-BFGS, and `(K,)` whether they are at the minimum.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4, started from a diagonal
        near the inverse curvature. The logits of a step are known, so its length is cheap to find.
    """
    logits_NK = objective.logits(unknowns_KD)
    gradient_KD, near_KD = objective.gradient(unknowns_KD, logits_NK)
    pairs: list[tuple[Tensor, Tensor]] = []
    is_solved_K = torch.zeros_like(unknowns_KD[:, 0], dtype=torch.bool)
    for _ in range(_ITERATIONS):
        step_KD = -_towards_minimum(objective, gradient_KD, near_KD, pairs)
        change_NK = objective.logits(step_KD)
        length_K1 = objective.step_length(unknowns_KD, step_KD, logits_NK, change_NK)
        moved_KD = length_K1 * step_KD
        unknowns_KD = unknowns_KD + moved_KD
        logits_NK = logits_NK + length_K1.T * change_NK
        before_KD = gradient_KD
        gradient_KD, near_KD = objective.gradient(unknowns_KD, logits_NK)
        pairs = [*pairs, (moved_KD, gradient_KD - before_KD)][-_PAIRS:]
        size_K = objective.dot(unknowns_KD, unknowns_KD).sqrt()
        left_K = objective.dot(near_KD * gradient_KD, near_KD * gradient_KD).sqrt()
        last_K = objective.dot(moved_KD, moved_KD).sqrt()
        is_solved_K = (left_K <= tolerance * size_K) | (last_K <= _STALLED * size_K)
        if is_solved_K.all():
            break
    return unknowns_KD, is_solved_K


def _towards_minimum(
    objective: Objective,
    gradient_KD: Tensor,
    near_KD: Tensor,
    pairs: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """`(K, D)` the inverse curvature, as the pairs of steps show it, times the gradient."""
    direction_KD, shares = gradient_KD, []
    for moved_KD, turned_KD in reversed(pairs):
        curve_K = objective.dot(moved_KD, turned_KD)
        share_K = torch.where(curve_K > 0, objective.dot(moved_KD, direction_KD) / curve_K, 0.0)
        direction_KD = direction_KD - share_K.unsqueeze(1) * turned_KD
        shares.append((share_K, curve_K))
    direction_KD = near_KD * direction_KD
    for (moved_KD, turned_KD), (share_K, curve_K) in zip(pairs, reversed(shares), strict=True):
        back_K = torch.where(curve_K > 0, objective.dot(turned_KD, direction_KD) / curve_K, 0.0)
        direction_KD = direction_KD + (share_K - back_K).unsqueeze(1) * moved_KD
    return direction_KD
