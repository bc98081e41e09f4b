"""What is remembered of a training while it goes on."""

from pydantic import NonNegativeInt

from notetune.config import Config


class CurvePoint(Config):
    """One step of a learning curve; `loss` is in nats per target."""

    step: NonNegativeInt
    loss: float
    learning_rate: float


class Evaluation(Config):
    """A model after some updates of its training, on the validation notes.

    `loss` is in nats per note, `auroc` macro over the labels with both values; None without any.
    """

    steps: NonNegativeInt
    loss: float
    auroc: float | None
