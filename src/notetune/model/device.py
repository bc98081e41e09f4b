"""Where to compute."""

from typing import TYPE_CHECKING, Literal

from notetune.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]


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


def gpu_count() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def use_threads(count: int) -> None:
    """Let this process compute with so many threads."""
    import torch

    torch.set_num_threads(count)
