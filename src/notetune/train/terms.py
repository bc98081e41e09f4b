"""Logistic regression on sparse features, its penalty chosen on validation notes.

Shapes: N notes, V terms, K classes, R directions in which the notes differ, D = R + 1 unknowns.
"""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from notetune.model.heads import log_prior
from notetune.model.losses import outcome_loss
from notetune.plain.linear import Linear
from notetune.train.lbfgs import Objective, are_taught, minimum, prior_unknowns
from notetune.train.path import UNCHOSEN, Penalty, chosen

_ROUGH, _FINE = 1e-3, 1e-5
# Penalties per training note for rows of length 1, and those beyond the weak end.
_PATH = tuple(10.0 ** (power / 2) for power in range(-2, -13, -1))
_EXTENSION = tuple(10.0 ** (power / 2) for power in range(-13, -17, -1))
_DEFAULT = 1e-4
_MOST_NOTES_TURNED = 4_000  # beyond, turning costs more than it saves
_LABELS_AT_ONCE = 32
_LABELS_ON_PATH = 64  # of many notes that are not turned: the penalty is one for all labels


class TermProblem:
    """The training notes of a task in sparse features, ready to be solved at any penalty.

    Few notes are turned into the directions in which they differ: there all labels are solved
    together in a fraction of the time, and the minimum is the same. Features are not standardised:
    a rare term is not worth as much as a frequent one.
    """

    def __init__(self, features_NV: Any, targets_NK: npt.NDArray[np.int8], kind: str) -> None:
        """Turn the features; `targets_NK` as in `logistic.LabelledNotes`, one column per class."""
        self._kind, self._features_NV, self._all_NK = kind, features_NV, targets_NK
        self._taught_K = are_taught(kind, targets_NK) & bool(features_NV.shape[1])
        self._prior_K = log_prior(kind, targets_NK)
        self._turn_RN: npt.NDArray[np.float64] | None = None
        if len(targets_NK) <= _MOST_NOTES_TURNED:
            self._turn_RN, self._rotated_NR = _turned(features_NV)
            self._squares_R = self._rotated_NR.square().sum(0)
        else:
            self._rotated_NR, self._squares_R = _as_tensor(features_NV)
        self._targets_NK = torch.from_numpy(targets_NK[:, self._taught_K]).float()
        prior_K = torch.from_numpy(self._prior_K[self._taught_K])
        self._start_KD = prior_unknowns(prior_K, len(self._squares_R))
        self._unknowns_KD = self._start_KD.clone()

    @torch.no_grad()
    def solve(self, penalty: float, *, tolerance: float = _FINE) -> Linear:
        """As `logistic.HeadProblem.solve`."""
        together = self._kind == "multiclass" or self._turn_RN is not None
        size = max(1, len(self._unknowns_KD)) if together else _LABELS_AT_ONCE
        for first in range(0, len(self._unknowns_KD), size):
            labels = slice(first, first + size)
            objective = self._objective(self._targets_NK[:, labels], penalty)
            self._unknowns_KD[labels] = minimum(objective, self._unknowns_KD[labels], tolerance)
        return self._folded()

    def along_path(
        self, features_NV: Any, targets_NK: npt.NDArray[np.int8]
    ) -> tuple[Linear, Penalty]:
        """The solution at the penalty with the lowest loss on validation notes, if there are any.

        With many notes and labels, some labels choose it for all: rare and frequent ones alike.
        """
        if not len(targets_NK):
            penalty = Penalty(_DEFAULT, UNCHOSEN)
            return self.solve(penalty.value), penalty

        labels = self._all_NK.shape[1]
        if self._turn_RN is None and self._kind == "multilabel" and labels > _LABELS_ON_PATH:
            by_frequency = np.argsort(self._all_NK.sum(0), kind="stable")
            some = by_frequency[np.linspace(0, labels - 1, _LABELS_ON_PATH).astype(int)]
            of_some = TermProblem(self._features_NV, self._all_NK[:, some], self._kind)
            _, penalty = of_some.along_path(features_NV, targets_NK[:, some])
            return self.solve(penalty.value), replace(
                penalty, why=f"{penalty.why}; of {_LABELS_ON_PATH} of {labels} labels"
            )

        def loss(penalty: float) -> float:
            logits_NK = self.solve(penalty, tolerance=_ROUGH).logits(features_NV)
            summed = outcome_loss(
                self._kind, torch.from_numpy(logits_NK), torch.from_numpy(targets_NK)
            )
            return summed.item() / len(targets_NK)

        penalty = chosen(loss, _PATH, _EXTENSION)
        self._unknowns_KD = self._start_KD.clone()  # so that the way is always the same
        return self.solve(penalty.value), penalty

    def _objective(self, targets_NK: Tensor, penalty: float) -> Objective:
        return Objective(
            self._rotated_NR,
            self._squares_R,
            targets_NK,
            torch.ones_like(targets_NK),
            penalty * len(targets_NK),
            is_softmax=self._kind == "multiclass",
        )

    def _folded(self) -> Linear:
        """Weights for features as they come: turning becomes part of them."""
        weights_KR = self._unknowns_KD[:, :-1].numpy()
        if self._turn_RN is not None:
            weights_KR = (weights_KR @ self._turn_RN) @ self._features_NV
        intercept_K = self._unknowns_KD[:, -1].double()
        if self._kind == "multiclass" and len(intercept_K):
            # so that a class that nothing taught keeps its prior
            logits_NK = self._objective(self._targets_NK, 0.0).logits(self._unknowns_KD)
            intercept_K = intercept_K - logits_NK.logsumexp(1).mean()
        weight_KV = np.zeros((len(self._prior_K), self._features_NV.shape[1]), np.float32)
        bias_K = self._prior_K.copy()
        weight_KV[self._taught_K] = weights_KR
        bias_K[self._taught_K] = intercept_K.float().numpy()
        return Linear(weight_KV, bias_K)


def _turned(features_NV: Any) -> tuple[npt.NDArray[np.float64], Tensor]:
    """`(R, N)` what turns notes into directions, and `(N, R)` the notes in them.

    No weight leaves what the notes span, so the squared weights are the same in either.
    """
    exact_NV = features_NV.astype(np.float64)
    gram_NN = (exact_NV @ exact_NV.T).toarray()
    squares_R, turn_NR = np.linalg.eigh(gram_NN)
    is_kept_R = squares_R > 1e-7 * squares_R.max(initial=1e-30)
    length_R = np.sqrt(squares_R[is_kept_R])
    rotated_NR = torch.from_numpy(turn_NR[:, is_kept_R] * length_R).float()
    return (turn_NR[:, is_kept_R] / length_R).T, rotated_NR


def _as_tensor(features_NV: Any) -> tuple[Tensor, Tensor]:
    """The features, and `(V,)` their sums of squares."""
    rows, terms = map(torch.from_numpy, (features_NV.indptr, features_NV.indices))
    values = torch.from_numpy(features_NV.data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        sparse = torch.sparse_csr_tensor(
            rows, terms, values, features_NV.shape, check_invariants=True
        )
    squares_V = np.asarray(features_NV.power(2).sum(0), np.float32).ravel()
    return sparse, torch.from_numpy(squares_V)
