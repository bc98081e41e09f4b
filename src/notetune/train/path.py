"""The penalties, from strong to weak, along which validation notes choose one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

RISES = 3
"""Points in a row above the best that end the path."""
UNCHOSEN = "no validation notes: the default"


@dataclass(frozen=True)
class PathPoint:
    """One penalty that was tried, and its loss in nats per validation note."""

    penalty: float
    loss: float


@dataclass(frozen=True)
class Penalty:
    """A penalty per training note, why it is that one, and those that were tried, in order.

    The `C` of scikit-learn is 1 / (value * N).
    """

    value: float
    why: str = ""
    path: tuple[PathPoint, ...] = ()


def chosen(
    loss: Callable[[float], float], penalties: Sequence[float], extension: Sequence[float]
) -> Penalty:
    """The penalty with the lowest validation loss along a path from strong to weak.

    The weaker ones of its `extension` are tried where the last of the path is the best.
    """
    points: list[PathPoint] = []
    for part in (penalties, extension):
        for penalty in part:
            points.append(PathPoint(penalty, loss(penalty)))
            best = min(points, key=lambda point: point.loss)
            if len(points) - 1 - points.index(best) >= RISES:
                break
        if best.penalty != penalties[-1]:
            break
    why = "lowest validation loss"
    if len(points) > len(penalties):
        why += "; the path was extended"
    if best.penalty in (penalties[0], extension[-1]):
        why += f"; at its {'strong' if best.penalty == penalties[0] else 'weak'} end"
    return Penalty(best.penalty, why, tuple(points))
