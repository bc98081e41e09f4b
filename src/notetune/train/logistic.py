"""The head on fixed features: a convex problem, standardised and solved to its only minimum.

Shapes: N notes, H features, K classes, R directions in which the features vary.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune.errors import DataError
from notetune.model.heads import Head, log_prior
from notetune.model.losses import balanced_weights, outcome_loss, probabilities
from notetune.train.lbfgs import Objective, are_taught, minimum, prior_unknowns
from notetune.train.path import UNCHOSEN, Penalty, chosen

FOLDS = 5
_ROUGH, _FINE = 1e-3, 1e-6
# Penalties per training note, and those beyond the weak end that are tried once.
_PATH = tuple(10.0 ** (power / 2) for power in range(2, -9, -1))
_EXTENSION = tuple(10.0 ** (power / 2) for power in range(-9, -13, -1))
_DEFAULT = 0.1


@dataclass(frozen=True)
class Solution:
    """A linear head, and its penalty.

    Attributes:
        weight_KH: `(K, H)` float32, for features as they come; `bias_K` likewise.
        mean_H: `(H,)` of the training notes.
        scale_H: `(H,)` their standard deviation; 1 for a constant.
        penalty: The one that it was solved at; why and which were tried, where it was chosen.
        constant: Classes with one value in the training notes; they get their prior.
    """

    weight_KH: Tensor
    bias_K: Tensor
    mean_H: Tensor
    scale_H: Tensor
    penalty: Penalty
    constant: int

    def head(self, *, standardises: bool = False) -> Head:
        """The head; one that `standardises` can train on at one rate for all features."""
        scaling = (self.mean_H, self.scale_H) if standardises else ()
        return Head(self.weight_KH, self.bias_K, *scaling)


@dataclass(frozen=True)
class LabelledNotes:
    """Notes with `(N, H)` float32 features, on the device to compute on, and `(N, K)` labels.

    Labels are zeros and ones; one-hot for `multiclass`.
    """

    features_NH: Tensor
    targets_NK: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        is_bad_N = ~torch.isfinite(self.features_NH).all(1)
        if is_bad_N.any():
            raise DataError(
                f"features: {int(is_bad_N.sum())} of {len(is_bad_N)} notes have one that is NaN or "
                f"infinite, the first is number {int(is_bad_N.nonzero()[0])}. Look at the "
                "backbone's weights, or compute in dtype float32."
            )

    def rows(self, is_wanted_N: npt.NDArray[np.bool_]) -> "LabelledNotes":
        """Some of the notes."""
        chosen = torch.from_numpy(np.flatnonzero(is_wanted_N)).to(self.features_NH.device)
        return LabelledNotes(self.features_NH[chosen], self.targets_NK[is_wanted_N])


class HeadProblem:
    """The training notes of a task, ready to be solved at any penalty.

    Features are standardised, then turned into the directions in which they vary: there the
    curvature is nearly diagonal, and a few steps are enough. The minimum is the same as before.
    """

    def __init__(self, train: LabelledNotes, kind: str, *, balanced: bool = False) -> None:
        """Standardise and turn the features of at least one note.

        With `balanced`, both values of each label, or all classes, weigh the same, here and in
        what chooses the penalty.
        """
        self._kind, self._device = kind, train.features_NH.device
        targets_NK = train.targets_NK
        self._weights_2K = balanced_weights(kind, targets_NK) if balanced else None
        is_taught_K = are_taught(kind, targets_NK)
        self._taught_K = torch.from_numpy(is_taught_K).to(self._device)
        self._prior_K = torch.from_numpy(log_prior(kind, targets_NK)).to(self._device)
        deviation_H, self._mean_H = torch.std_mean(train.features_NH.double(), 0, correction=0)
        is_constant_H = deviation_H <= 1e-6 * self._mean_H.abs()
        self._scale_H = torch.where(is_constant_H, 1.0, deviation_H)
        centred_NH = train.features_NH.to(torch.float64, copy=True).sub_(self._mean_H)
        scaled_NH = centred_NH.div_(self._scale_H).float()
        del centred_NH
        self._directions_HR = _directions(scaled_NH)
        rotated_NR = scaled_NH @ self._directions_HR
        del scaled_NH
        self._objective = Objective(
            rotated_NR,
            rotated_NR.square().sum(0),
            torch.from_numpy(targets_NK[:, is_taught_K]).float().to(self._device),
            self._weights(targets_NK)[:, is_taught_K],
            strength=0.0,
            is_softmax=kind == "multiclass",
        )
        self._start_KD = prior_unknowns(self._prior_K[self._taught_K], rotated_NR.shape[1])
        self._unknowns_KD = self._start_KD

    @torch.no_grad()
    def solve(self, penalty: float, *, tolerance: float = _FINE) -> Solution:
        """The minimum of the summed loss plus `penalty * N / 2` times the squared weights.

        The search starts from the last solution, so a path from strong to weak penalties is fast.
        """
        if self._taught_K.any():
            strength = penalty * len(self._objective.targets_NK)
            objective = replace(self._objective, strength=strength)
            self._unknowns_KD = minimum(objective, self._unknowns_KD, tolerance)
        return self._folded(penalty)

    @torch.no_grad()
    def along_path(self, validation: LabelledNotes) -> Solution:
        """The solution at the penalty with the lowest loss on the validation notes, if any are."""
        if not len(validation.targets_NK):
            found = Penalty(_DEFAULT, UNCHOSEN)
            return replace(self.solve(found.value), penalty=found)
        targets_NK = torch.from_numpy(validation.targets_NK)
        weights_2K = None if self._weights_2K is None else torch.from_numpy(self._weights_2K)

        def loss(penalty: float) -> float:
            head = self.solve(penalty, tolerance=_ROUGH).head()
            logits_NK = head(validation.features_NH).cpu()
            summed = outcome_loss(self._kind, logits_NK, targets_NK, weights_2K)
            return summed.item() / len(logits_NK)

        found = chosen(loss, _PATH, _EXTENSION)
        self._unknowns_KD = self._start_KD  # so that the way to the minimum is always the same
        return replace(self.solve(found.value), penalty=found)

    def _weights(self, targets_NK: npt.NDArray[np.int8]) -> Tensor:
        """`(N, K)` weight of each loss; those of the classes of a note are the same."""
        if self._weights_2K is None:
            return torch.ones(targets_NK.shape, device=self._device)
        zeros_K, ones_K = self._weights_2K
        weights_NK = np.where(targets_NK == 1, ones_K, zeros_K)
        if self._kind == "multiclass":
            of_note_N1 = ones_K[targets_NK.argmax(1)][:, np.newaxis]
            weights_NK = np.repeat(of_note_N1, targets_NK.shape[1], axis=1)
        return torch.from_numpy(weights_NK).to(self._device)

    def _folded(self, penalty: float) -> Solution:
        """Weights for features as they come: standardising becomes part of them."""
        unknowns_KD = self._unknowns_KD.double()
        weights_KH = unknowns_KD[:, :-1] @ self._directions_HR.T.double() / self._scale_H
        intercept_K = unknowns_KD[:, -1]
        if self._kind == "multiclass":  # so that a class that nothing taught keeps its prior
            logits_NK = self._objective.logits(self._unknowns_KD)
            intercept_K = intercept_K - logits_NK.logsumexp(1).mean()
        weight_KH = self._mean_H.new_zeros(len(self._prior_K), len(self._mean_H))
        bias_K = self._prior_K.double()
        weight_KH[self._taught_K] = weights_KH
        bias_K[self._taught_K] = intercept_K - weights_KH @ self._mean_H
        constant = int((~self._taught_K).sum())
        weights = weight_KH.float(), bias_K.float(), self._mean_H, self._scale_H
        return Solution(*weights, Penalty(penalty), constant)


def _directions(scaled_NH: Tensor) -> Tensor:
    """`(H, R)` orthonormal directions in which no two of the features correlate.

    With fewer notes than features, R is the number of notes: no weight leaves what they span.
    """
    span_HR = torch.linalg.qr(scaled_NH.T)[0] if len(scaled_NH) < scaled_NH.shape[1] else None
    inner_NR = scaled_NH if span_HR is None else scaled_NH @ span_HR
    turned_RR: Tensor = torch.linalg.eigh(inner_NR.T @ inner_NR)[1]
    return turned_RR if span_HR is None else span_HR @ turned_RR


@torch.no_grad()
def out_of_fold(
    train: LabelledNotes,
    groups_N: npt.NDArray[np.str_],
    kind: str,
    penalty: float,
    *,
    balanced: bool = False,
) -> npt.NDArray[np.float64]:
    """`(N, K)` scores of each training note by a head that saw no note of its group (patient).

    Errors are those of `left_out`.
    """
    scores_NK = np.zeros(train.targets_NK.shape)
    for is_left_out_N in left_out(groups_N):
        problem = HeadProblem(train.rows(~is_left_out_N), kind, balanced=balanced)
        logits_NK = problem.solve(penalty).head()(train.rows(is_left_out_N).features_NH)
        scores_NK[is_left_out_N] = probabilities(kind, logits_NK).cpu().numpy()
    return scores_NK


def left_out(groups_N: npt.NDArray[np.str_]) -> list[npt.NDArray[np.bool_]]:
    """Which notes each of five folds leaves out: all notes of a group together, every note once.

    Raises:
        DataError: If all notes are of one group.
    """
    groups, place_N = np.unique(groups_N, return_inverse=True)
    if len(groups) < 2:
        raise DataError("out-of-fold scores need training notes of 2 patients or more; found 1.")
    fold_N = (np.random.default_rng(0).permutation(len(groups)) % FOLDS)[place_N]
    return [fold_N == fold for fold in range(min(FOLDS, len(groups)))]
