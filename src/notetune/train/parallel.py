"""Several processes that train one model together, as `torchrun` starts them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from notetune.tokens.packing import Int64Array


class Batch(Protocol):
    """A row of documents that knows on the host how many targets it holds."""

    @property
    def documents_D(self) -> Int64Array:
        """Where each document stands in its store."""

    @property
    def target_count(self) -> int:
        """Tokens or notes whose loss is summed."""

    def halves(self) -> tuple[Self, ...]:
        """Its first and its second documents apart; itself if it has one document."""


BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True)
class World:
    """The processes of a training. Each reads the rows of every step and computes its share.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        is_sharded: Whether each holds only a part of the model (`model.sharded`).
    """

    rank: int = 0
    size: int = 1
    is_sharded: bool = False

    def share(self, rows: Sequence[BatchT]) -> list[tuple[BatchT, float]]:
        """What this process computes of a step, each part with its weight.

        Rows are halved while there are fewer than processes. All processes compute equally many:
        a weight of 0 fills up, so that none waits for another that has nothing to do.
        """
        while len(rows) < self.size:
            parts = [part for row in rows for part in row.halves()]
            if len(parts) == len(rows):
                break
            rows = parts
        mine = [(row, 1.0) for row in rows[self.rank :: self.size]]
        return mine + [(rows[0], 0.0)] * (math.ceil(len(rows) / self.size) - len(mine))

    def sums(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.size == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over the processes; those of a sharded model have been summed already."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if not isinstance(p.grad, DTensor | None)]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


ALONE = World()


def this_world(*, is_sharded: bool = False) -> World:
    """The processes that this one was started with; itself alone if it was started alone."""
    if dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size(), is_sharded)
    return ALONE
