"""Which state of a training is kept: the best on validation notes, and when to stop looking."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from notetune.errors import TrainingError
from notetune.metrics.learning import Evaluation
from notetune.train.schedule import Criterion, ValidationConfig


def best_of(evaluations: Sequence[Evaluation], choose: Criterion) -> Evaluation:
    """The evaluation to keep. Of equal AUROCs the one of lower loss; of equal ones the first."""
    if choose == "loss":
        return min(evaluations, key=lambda one: one.loss)
    return max(evaluations, key=lambda one: (one.auroc or 0.0, -one.loss))


@dataclass
class Choice:
    """Keeps the best state of one training while it goes on.

    Attributes:
        config: How to choose.
        parameters: All that trains, by name.
        evaluate: Loss and AUROC on the validation notes, after so many steps as were just made.
        steps_per_epoch: Steps of a pass over the training notes.
        step_count: Steps of the whole training; it ends with an evaluation.
        evaluations: Those so far.
        best: A copy, on the host, of the parameters as they were at the best of them.
    """

    config: ValidationConfig
    parameters: Mapping[str, Tensor]
    evaluate: Callable[[int], tuple[float, float | None]]
    steps_per_epoch: int
    step_count: int
    evaluations: tuple[Evaluation, ...] = ()
    best: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.best = {name: p.detach().cpu().clone() for name, p in self.parameters.items()}

    @property
    def best_steps(self) -> int:
        """Updates that made the best state."""
        return best_of(self.evaluations, self.config.choose).steps

    @property
    def is_over(self) -> bool:
        """Whether the last `patience` evaluations are all no better than one before them."""
        if not self.evaluations or self.config.patience is None:
            return False
        best = self.evaluations.index(best_of(self.evaluations, self.config.choose))
        return len(self.evaluations) - 1 - best >= self.config.patience

    def see(self, steps: int) -> None:
        """Evaluate after `steps` steps if it is time to, and keep the parameters if they are best.

        It is time before the first step too: what a training starts from is only left for better.

        Raises:
            TrainingError: If the validation loss is not finite.
        """
        per_epoch = self.config.evaluations_per_epoch
        done, before = (n * per_epoch // self.steps_per_epoch for n in (steps, steps - 1))
        if done == before and steps not in (0, self.step_count):
            return
        loss, auroc = self.evaluate(steps)
        if not math.isfinite(loss):
            raise TrainingError(
                f"after {steps} steps the validation loss is {loss}. Lower optim.peak_lr."
            )
        self.evaluations += (Evaluation(steps=steps, loss=loss, auroc=auroc),)
        if self.best_steps == steps:
            _copy(self.parameters, self.best)

    def restore_best(self) -> None:
        """Put the parameters back to the best state."""
        _copy(self.best, self.parameters)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
