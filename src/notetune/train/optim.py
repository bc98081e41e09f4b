"""AdamW and its learning-rate schedule."""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from notetune.config import Config
from notetune.model.sharded import by_kind


class OptimConfig(Config):
    """AdamW with linear warm-up, then linear decay to zero."""

    peak_lr: PositiveFloat = 3e-4
    """Learning rate at the end of warm-up."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Share of all steps spent warming up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this L2 norm."""
    targets_per_step: PositiveInt = 4096
    """Targets per step: about so many tokens in step 1, at most so many notes in step 2."""

    def schedule(self, step: int, step_count: int) -> float:
        """Share of the peak rate at step `step` (from 0) of `step_count`; nearly zero at the last.

        Example:
            >>> config = OptimConfig(warmup_fraction=0.5)
            >>> [round(config.schedule(step, 4), 2) for step in range(4)]
            [0.5, 1.0, 0.67, 0.33]
        """
        warmup_steps = round(self.warmup_fraction * step_count)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return (step_count - step) / (step_count - warmup_steps + 1)


def adamw(config: OptimConfig, *groups: tuple[Iterable[nn.Parameter], float]) -> torch.optim.AdamW:
    """The optimizer of both steps.

    Args:
        config: Its settings.
        groups: Parameters that it updates, each time with their peak learning rate.
    """
    parameter_groups = [
        {"params": kind, "lr": peak_lr, "peak_lr": peak_lr}
        for parameters, peak_lr in groups
        for kind in by_kind(parameters)
    ]
    return torch.optim.AdamW(parameter_groups, weight_decay=config.weight_decay, betas=(0.9, 0.95))
