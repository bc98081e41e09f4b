"""Names of types that several layers use."""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
TaskKind: TypeAlias = Literal["binary", "multiclass", "multilabel"]
