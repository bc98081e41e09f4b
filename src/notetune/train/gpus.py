"""What well-known GPUs can do at most, as data for estimates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Gpu:
    """One card.

    Attributes:
        memory_gib: Its memory.
        rates: Operations per second of dense matrix products, by the type they are computed in;
            a multiplication and an addition are two. float32 is without TF32.
        bandwidth: Bytes per second to and from its memory.
        source: Which document the figures are of. They were compared with public lists of cards,
            not with the documents; the A40 and the bandwidth of the H200 with neither.
    """

    memory_gib: float
    rates: Mapping[str, float]
    bandwidth: float
    source: str


def _rates(float32: float, bfloat16: float) -> dict[str, float]:
    """From teraflops without sparsity."""
    return {"float32": float32 * 1e12, "bfloat16": bfloat16 * 1e12}


_HOPPER, _AMPERE, _ADA = _rates(67, 989), _rates(19.5, 312), _rates(91.6, 362)
GPUS: Final[dict[str, Gpu]] = {
    "h200": Gpu(141, _HOPPER, 4.8e12, "NVIDIA H200 SXM data sheet"),
    "h100": Gpu(80, _HOPPER, 3.35e12, "NVIDIA H100 SXM data sheet"),
    "a100-80": Gpu(80, _AMPERE, 2.039e12, "NVIDIA A100 data sheet"),
    "a100-40": Gpu(40, _AMPERE, 1.555e12, "NVIDIA A100 data sheet"),
    "l40s": Gpu(48, _ADA, 0.864e12, "NVIDIA L40S data sheet"),
    "a40": Gpu(48, _rates(37.4, 149.7), 0.696e12, "NVIDIA A40 data sheet"),
    "a6000": Gpu(48, _rates(38.7, 154.8), 0.768e12, "NVIDIA RTX A6000 data sheet"),
    "a10": Gpu(24, _rates(31.2, 125), 0.6e12, "NVIDIA A10 data sheet"),
    "l4": Gpu(24, _rates(30.3, 121), 0.3e12, "NVIDIA L4 data sheet"),
    "3090": Gpu(24, _rates(35.6, 71), 0.936e12, "NVIDIA Ampere GA102 white paper"),
    "4090": Gpu(24, _rates(82.6, 165.2), 1.008e12, "NVIDIA Ada architecture white paper"),
}
ASSUMED_SHARE: Final = 0.4
"""Share of the highest rate that a training is assumed to reach."""
CAPABILITY: Final = (8, 0)
"""The least compute capability of the cards."""
USABLE_SHARE: Final = 0.9
"""Share of the memory for tensors; the rest is for the driver, kernels and the allocator."""
