"""A linear model of a note's features, and what its logits mean.

Shapes: N notes, F features, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import expit, logit, softmax

from notetune.aliases import FloatArray
from notetune.errors import BundleError

# Scores reach 0 and 1, where a logit has no end.
_LEAST_SCORE = 1e-6


@dataclass(frozen=True)
class Linear:
    """Weights and intercepts."""

    weight_KF: npt.NDArray[np.float32]
    bias_K: npt.NDArray[np.float32]

    def logits(self, features_NF: Any) -> FloatArray:
        """`(N, K)` for dense features or a sparse matrix of them; those of a note are its own."""
        products_NK: FloatArray = np.asarray(features_NF @ self.weight_KF.T, np.float64)
        return products_NK + self.bias_K

    @property
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is saved of it."""
        return {"weight": np.ascontiguousarray(self.weight_KF), "bias": self.bias_K}


def probabilities(kind: str, logits_NK: FloatArray) -> FloatArray:
    """`(N, K)`: softmax over classes for `multiclass`, otherwise a sigmoid per label."""
    is_multiclass = kind == "multiclass"
    scores_NK: FloatArray = softmax(logits_NK, axis=1) if is_multiclass else expit(logits_NK)
    return scores_NK


def log_odds(
    kind: str,
    scores_NK: FloatArray,
    least: float = _LEAST_SCORE,
    most: float = 1 - _LEAST_SCORE,
) -> FloatArray:
    """`(N, K)` logits of scores, which are cut at `least` and `most`.

    They are those of each label, or the log scores of classes.
    """
    clipped_NK = np.clip(scores_NK, least, most)
    logits_NK: FloatArray = np.log(clipped_NK) if kind == "multiclass" else logit(clipped_NK)
    return logits_NK


def load_tensors(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Arrays of a safetensors file.

    Raises:
        BundleError: If the file cannot be read, lacks one of them, or holds a number that is not
            finite.
    """
    try:
        tensors = load_file(path)
        found = [tensors[name] for name in names]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise BundleError(f"{path} cannot be read; restore it from a copy.") from None
    if not all(np.isfinite(array).all() for array in found):
        raise BundleError(f"{path} holds numbers that are not finite; restore it from a copy.")
    return found
