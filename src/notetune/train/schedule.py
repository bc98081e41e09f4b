"""What a recipe says of a training: the optimizer and its schedule, and which state is kept."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from notetune.config import Config

Criterion = Literal["auroc", "loss"]
Average = Literal["token", "batch-mean"]
"""How the perplexity of several documents is averaged."""


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


class ValidationConfig(Config):
    """How often a model meets the validation notes, and what that decides."""

    evaluations_per_epoch: PositiveInt = 2
    """Evaluations on the validation notes per pass over the training notes."""
    choose: Criterion = "auroc"
    """A state is kept for the highest macro AUROC on validation, or for the lowest loss."""
    patience: PositiveInt | None = 10
    """Stop after so many evaluations in a row without a better one; never when null."""
