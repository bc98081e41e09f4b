"""How a workflow tells how far it is: it wraps the steps it goes through."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Passes steps through and shows them; a terminal brings its own."""

    def __call__(
        self,
        label: str,
        steps: Iterable[T],
        total: int,
        describe: Callable[[T], str],
        done: int = 0,
    ) -> Iterator[T]:
        """Yield every step.

        Args:
            label: What is being done, such as `pretrain`.
            steps: What to go through.
            total: How many there are, those that an earlier process did included.
            describe: A few figures of one step, such as its loss; never note text.
            done: How many an earlier process did.
        """
        ...


def silent(label: str, steps: Iterable[T], *_: Any, **__: Any) -> Iterator[T]:
    """Show nothing."""
    yield from steps


def named(track: Track, name: str) -> Track:
    """The same track with a name in front of every label; none in front of them if it is empty."""

    def tracked(label: str, *about: Any, **more: Any) -> Iterator[Any]:
        return track(f"{name} · {label}", *about, **more)

    return tracked if name else track


def in_one_step(track: Track, label: str, make: Callable[[], T]) -> T:
    """Do what has no steps of its own, shown while it lasts."""
    (made,) = track(label, (step() for step in (make,)), 1, lambda _: "")
    return made
