"""What is remembered of a training while it goes on."""

from pydantic import NonNegativeInt

from notetune.config import Config


class CurvePoint(Config):
    """One step of a learning curve; `loss` is in nats per target."""

    step: NonNegativeInt
    loss: float
    learning_rate: float


class Evaluation(Config):
    """A model in the middle of its training, on the validation notes.

    Attributes:
        steps: Updates before it.
        loss: Nats per note.
        auroc: Macro over the labels with both values; None if there is none.
    """

    steps: NonNegativeInt
    loss: float
    auroc: float | None
