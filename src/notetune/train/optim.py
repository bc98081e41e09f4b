"""AdamW over groups of parameters, each with its peak learning rate."""

from collections.abc import Iterable

import torch
from torch import nn

from notetune.model.sharded import by_kind
from notetune.train.schedule import OptimConfig


def adamw(config: OptimConfig, *groups: tuple[Iterable[nn.Parameter], float]) -> torch.optim.AdamW:
    """The optimizer of both steps, over groups of parameters with their peak learning rate."""
    parameter_groups = [
        {"params": kind, "lr": peak_lr, "peak_lr": peak_lr}
        for parameters, peak_lr in groups
        for kind in by_kind(parameters)
    ]
    return torch.optim.AdamW(parameter_groups, weight_decay=config.weight_decay, betas=(0.9, 0.95))
