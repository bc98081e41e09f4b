"""THE training loop: a generator of steps."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from notetune import storage
from notetune.errors import StepError, TrainingError, TrainingMemoryError
from notetune.model.sharded import clip
from notetune.train.out_of_memory import halved, is_out_of_memory, was_too_large
from notetune.train.parallel import ALONE, Batch, BatchT, World


@dataclass(frozen=True)
class Step:
    """One optimizer update, numbered from 0.

    Attributes:
        loss: Mean loss per target, nats; targets are tokens in step 1 and notes in step 2.
        grad_norm: L2 norm of the gradient before clipping.
        learning_rate: Of the first parameter group.
        halvings: How often each row was halved to fit into memory.
        order: Fingerprint of its documents in the order they were read.
        seconds: Wall time of the update, without what the consumer does between steps.
    """

    number: int
    loss: float
    targets: int
    grad_norm: float
    learning_rate: float
    halvings: int
    order: str
    seconds: float


def train(
    step_rows: Iterable[Sequence[BatchT]],
    summed_loss: Callable[[BatchT], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    step_count: int,
    max_grad_norm: float,
    seed: int,
    first_step: int = 0,
    halvings: int = 0,
    world: World = ALONE,
) -> Iterator[Step]:
    """Yield a `Step` after each update; the gradient is that of the mean loss over its targets.

    What a step does is decided by parameters, optimizer state, its rows, its number, `seed` and
    `halvings`, so a run can go on from any step.

    Args:
        step_rows: For each step, from `first_step` on, the rows whose gradients accumulate.
        summed_loss: Loss of one row or part of a row, summed over its targets.
        optimizer: Over what is trained; every parameter must be reached by the loss. Each group
            names its `peak_lr`.
        schedule: Step number to share of the peak learning rate.
        step_count: Number of updates, those before `first_step` included.
        max_grad_norm: Gradients are clipped to it.
        seed: With the step's number it seeds torch at every step, which decides dropout.
        first_step: Where to begin.
        halvings: How often each row is halved from the start. Out of memory, the step begins again
            with one more, and so do those after it.
        world: The processes that share the rows of each step; each of them is given all rows.

    Raises:
        StepError: If loss or gradient is not finite, or one document alone does not fit into
            memory; the update of that step is not applied.
        TrainingError: If rows end early or a parameter gets no gradient.
        TrainingMemoryError: If memory does not hold the optimizer's state.
    """
    rest = iter(step_rows)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number in range(first_step, step_count):
        started = time.perf_counter()
        rows = next(rest, None)
        if rows is None:
            raise TrainingError(f"rows ended at step {number}; the run needs {step_count}.")
        targets = sum(row.target_count for row in rows)
        step_seed = np.random.SeedSequence((seed, number, world.rank)).generate_state(1, np.uint64)
        while True:
            optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(int(step_seed[0]))
            shares = world.share(halved(rows, halvings))
            losses, too_large = _accumulate(shares, summed_loss, targets, world)
            if not was_too_large(number, too_large, world):
                break
            halvings += 1
        if number == first_step:
            _refuse_idle(parameters)
        world.sum_gradients(parameters)
        (loss_sum,) = world.sums(sum(losses))
        grad_norm = clip(parameters, max_grad_norm)
        _refuse_non_finite(number, shares, losses, loss_sum, grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule(number)
        _update(optimizer, number)
        yield Step(
            number,
            loss_sum / targets,
            targets,
            grad_norm,
            optimizer.param_groups[0]["lr"],
            halvings,
            storage.fingerprint(np.concatenate([row.documents_D for row in rows])),
            time.perf_counter() - started,
        )


def _accumulate(
    shares: Sequence[tuple[BatchT, float]],
    summed_loss: Callable[[BatchT], Tensor],
    targets: int,
    world: World,
) -> tuple[list[float], BatchT | None]:
    """Add up gradients; the summed loss of each part, and the part that memory did not hold."""
    losses = []
    for part, weight in shares:
        try:
            loss = summed_loss(part) * weight
            (loss / targets).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        except RuntimeError as error:
            if world.is_sharded or not is_out_of_memory(error):
                raise
            return losses, part  # which also lets go of what the failed pass held
    return losses, None


def _update(optimizer: torch.optim.Optimizer, number: int) -> None:
    """Take the step; out of memory, no smaller rows would help, since none is in memory by now."""
    try:
        optimizer.step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingMemoryError(
            f"step {number}: the optimizer's averages, twice as large as all that trains, do not "
            "fit into memory, and its update is not whole. Train an adapter or a smaller one, take "
            "a smaller backbone, or free memory; the last checkpoint is untouched."
        ) from None


def _refuse_idle(parameters: Sequence[nn.Parameter]) -> None:
    idle = sum(parameter.grad is None for parameter in parameters)
    if idle or not parameters:
        raise TrainingError(
            f"{idle} of {len(parameters)} trainable tensors get no gradient; an adapter is not "
            "active or nothing is asked to train."
        )


def _refuse_non_finite(
    number: int,
    shares: Sequence[tuple[Batch, float]],
    losses: Sequence[float],
    loss_sum: float,
    grad_norm: float,
) -> None:
    if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
        # A gradient may be at fault in every part; a loss is in those alone where it is not finite,
        # which may be in another process.
        is_gradient = math.isfinite(loss_sum)
        of_parts = zip(shares, losses, strict=True)
        faulty = [part for (part, _), loss in of_parts if is_gradient or not math.isfinite(loss)]
        raise StepError(
            f"step {number}: loss sum {loss_sum} or gradient norm {grad_norm} is not finite, so "
            "the update was not applied. Lower optim.peak_lr or check the notes.",
            [document for part in faulty for document in part.documents_D.tolist()],
        )
