"""THE training loop: a generator of steps."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from notetune.errors import TrainingError


class HasTargets(Protocol):
    """A batch that knows on the host how many targets it holds."""

    @property
    def target_count(self) -> int:
        """Tokens or notes whose loss is summed."""
        ...


BatchT = TypeVar("BatchT", bound=HasTargets)


@dataclass(frozen=True)
class Step:
    """One optimizer update.

    Attributes:
        number: From 0.
        loss: Mean loss per target, nats.
        targets: Target tokens in step 1, target notes in step 2.
        grad_norm: L2 norm of the gradient before clipping.
        learning_rate: Of this update, of the first parameter group.
        seconds: Wall time of the update, without what the consumer does between steps.
    """

    number: int
    loss: float
    targets: int
    grad_norm: float
    learning_rate: float
    seconds: float


def train(
    step_batches: Iterable[Sequence[BatchT]],
    summed_loss: Callable[[BatchT], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    step_count: int,
    max_grad_norm: float,
) -> Iterator[Step]:
    """Yield a `Step` after each update; the gradient is that of the mean loss over its targets.

    Args:
        step_batches: For each step the micro-batches whose gradients accumulate.
        summed_loss: Loss of one micro-batch, summed over its targets.
        optimizer: Over what is trained; every parameter must be reached by the loss. Each group
            names its `peak_lr`.
        schedule: Step number to share of the peak learning rate.
        step_count: Number of updates.
        max_grad_norm: Clipping norm.

    Raises:
        TrainingError: If batches end early, a parameter gets no gradient, or loss or gradient is
            not finite; the update of that step is not applied.
    """
    batches = iter(step_batches)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number in range(step_count):
        started = time.perf_counter()
        micro_batches = next(batches, None)
        if micro_batches is None:
            raise TrainingError(f"batches ended at step {number}; the run needs {step_count}.")
        targets = sum(batch.target_count for batch in micro_batches)
        loss_sum = 0.0
        for batch in micro_batches:
            loss = summed_loss(batch)
            (loss / targets).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.item()
        if number == 0:
            _refuse_idle(parameters)
        grad_norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm).item()
        _refuse_non_finite(number, loss_sum, grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule(number)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        yield Step(number, loss_sum / targets, targets, grad_norm, rate, seconds)


def _refuse_idle(parameters: Sequence[nn.Parameter]) -> None:
    idle = sum(parameter.grad is None for parameter in parameters)
    if idle or not parameters:
        raise TrainingError(
            f"{idle} of {len(parameters)} trainable tensors get no gradient; an adapter is not "
            "active or nothing is asked to train."
        )


def _refuse_non_finite(number: int, loss_sum: float, grad_norm: float) -> None:
    total = torch.tensor([loss_sum, grad_norm])
    if not bool(torch.isfinite(total).all()):
        raise TrainingError(
            f"step {number}: loss sum {loss_sum} or gradient norm {grad_norm} is not finite, so "
            "the update was not applied. Lower optim.peak_lr or check the notes of this step."
        )
