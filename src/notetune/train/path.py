"""The penalties, from strong to weak, along which validation notes choose one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

RISES = 3
"""Points in a row above the best that end the path."""


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
    why: str
    path: tuple[PathPoint, ...] = ()


def unchosen(default: float) -> Penalty:
    """The penalty where no validation notes can choose one."""
    return Penalty(default, "no validation notes: the default")


def chosen(
    loss: Callable[[float], float], penalties: Sequence[float], extension: Sequence[float]
) -> Penalty:
    """The penalty with the lowest loss along a path, which is extended once at its weak end.

    Args:
        loss: Of the validation notes at a penalty; asked from strong to weak.
        penalties: The path.
        extension: Weaker ones, tried where the last of the path is the best.
    """
    points: list[PathPoint] = []
    best, why = _walk(penalties, loss, points), "lowest validation loss"
    if best == penalties[-1]:
        best, why = _walk(extension, loss, points), f"{why}; the path was extended"
    if best in (penalties[0], extension[-1]):
        why = f"{why}; at its {'strong' if best == penalties[0] else 'weak'} end"
    return Penalty(best, why, tuple(points))


def _walk(
    penalties: Sequence[float], loss: Callable[[float], float], points: list[PathPoint]
) -> float:
    for penalty in penalties:
        points.append(PathPoint(penalty, loss(penalty)))
        best = min(points, key=lambda point: point.loss)
        if len(points) - 1 - points.index(best) >= RISES:
            break
    return best.penalty
