"""Where to compute."""

import os
from typing import TYPE_CHECKING, Literal

from notetune.errors import ConfigError
from notetune.model.backbone_folder import Dtype

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
Recompute = Literal["auto"] | bool
"""Whether activations are computed again in the backward pass."""
_FIRST_WITH_BFLOAT16 = (8, 0)


def torch_device(name: DeviceName) -> "torch.device":
    """The device of a name; `auto` is a CUDA device where there is one.

    Raises:
        ConfigError: If a CUDA device is asked for and there is none.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("device cuda: no CUDA device is available; use device=cpu or auto.")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def capability_of(device: "torch.device") -> tuple[int, int] | None:
    """The compute capability of a CUDA device; None of all others."""
    import torch

    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def computed_in(dtype: Dtype, capability: tuple[int, int] | None) -> Literal["float32", "bfloat16"]:
    """The type that products with weights of a type are computed in, by compute capability.

    Cards before Ampere have no products in bfloat16. A CPU has, but slow ones, so it unpacks nf4
    to float32.
    """
    if dtype == "float32" or (capability is not None and capability < _FIRST_WITH_BFLOAT16):
        return "float32"
    return "float32" if dtype == "nf4" and capability is None else "bfloat16"


def memory_bytes(device: "torch.device") -> int | None:
    """The memory of a CUDA device, or of this machine where the system tells it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such call
        return None


def gpu_count() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def use_threads(count: int) -> None:
    """Let this process compute with so many threads."""
    import torch

    torch.set_num_threads(count)
