"""Names of types that several layers use."""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
TaskKind: TypeAlias = Literal["binary", "multiclass", "multilabel"]
Join: TypeAlias = Literal["none", "by time"]
"""Whether the notes of one stay are one note, the newest last."""
Combine: TypeAlias = Literal["none", "mean", "max", "last"]
"""How the scores of the notes of one stay become one."""
