"""Layers that are left out: those below give what was computed before, those above nothing new."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from notetune.model.batch import PackedBatch


@dataclass(frozen=True)
class EnteringStates:
    """Hidden states that enter a layer, computed before.

    Attributes:
        first: That layer, counted from 0.
        of: From a packed row to `(T, H)` states of its tokens.
    """

    first: int
    of: Callable[[PackedBatch], Tensor]

    @contextmanager
    def in_place_of(self, layers: Sequence[Any], batch: PackedBatch) -> Iterator[None]:
        """Let them enter, without a layer below; `layers` are those of the backbone, from below."""
        states_1TH = self.of(batch).unsqueeze(0)
        with _replaced(layers[: self.first], lambda *_, **__: states_1TH):
            yield


@contextmanager
def only_below(layers: Sequence[Any], first: int) -> Iterator[None]:
    """Leave out the layers from `first` on, as where nobody asks for more than what enters them."""
    with _replaced(layers[first:], lambda hidden, *_, **__: hidden):
        yield


@contextmanager
def _replaced(layers: Sequence[Any], forward: Callable[..., Tensor]) -> Iterator[None]:
    before = [vars(layer).get("forward") for layer in layers]  # as where activations are recomputed
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own
