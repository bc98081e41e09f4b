"""What well-known GPUs can do at most, as data for estimates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Gpu:
    """One card.

    Attributes:
        memory_gib: Its memory.
        rates: Operations per second of dense matrix products, by the type of the weights; a
            multiplication and an addition are two. float32 is without TF32.
        source: Where the figures are from.
    """

    memory_gib: float
    rates: Mapping[str, float]
    source: str


_HOPPER = {"float32": 67e12, "bfloat16": 989e12, "float8": 1979e12}
_AMPERE = {"float32": 19.5e12, "bfloat16": 312e12}
_ADA = {"float32": 91.6e12, "bfloat16": 362e12, "float8": 733e12}
GPUS: Final[dict[str, Gpu]] = {
    "h200": Gpu(141, _HOPPER, "NVIDIA H200 SXM data sheet"),
    "h100": Gpu(80, _HOPPER, "NVIDIA H100 SXM data sheet"),
    "a100-80": Gpu(80, _AMPERE, "NVIDIA A100 data sheet"),
    "a100-40": Gpu(40, _AMPERE, "NVIDIA A100 data sheet"),
    "l40s": Gpu(48, _ADA, "NVIDIA L40S data sheet"),
    "a10": Gpu(24, {"float32": 31.2e12, "bfloat16": 125e12}, "NVIDIA A10 data sheet"),
}
ASSUMED_SHARE: Final = 0.4
"""Share of the highest rate that a training is assumed to reach."""
USABLE_SHARE: Final = 0.9
"""Share of the memory for tensors; the rest is for the driver, kernels and the allocator."""
