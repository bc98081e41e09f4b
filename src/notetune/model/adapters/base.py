"""What every adapter can do once it was put onto a backbone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from notetune.errors import BundleError
from notetune.model.adapters.specs import AdapterSpec
from notetune.model.attention import Additions


class Adapter(ABC):
    """An adapter on a backbone; `spec` says how it is made."""

    spec: AdapterSpec
    is_on = True
    """Whether its additions count."""

    @abstractmethod
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters, always in the same order."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Its weights under the names of its file; detached, but not copied."""

    @abstractmethod
    def set_training(self, *, is_training: bool) -> None:
        """Turn its own dropout on or off."""

    @contextmanager
    def off(self) -> Iterator[None]:
        """Take its contribution away for a while, whatever the others do."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def additions(self) -> Additions:
        """What it adds to a forward pass besides changed layers."""
        return Additions()

    def set_trained(self, *, is_trained: bool) -> None:
        """Train it, or freeze it for good."""
        for _, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained)

    def fill(self, saved: Mapping[str, Tensor]) -> None:
        """Give it saved weights.

        Raises:
            BundleError: If a tensor is missing, left over or of another shape.
        """
        own = self.tensors()
        shapes, wanted = ({k: t.shape for k, t in part.items()} for part in (saved, own))
        if wrong := {key for key, _ in shapes.items() ^ wanted.items()}:
            raise BundleError(
                f"the {self.spec.kind} adapter does not fit the backbone: {len(wrong)} tensors are "
                f"missing, left over or of another shape, {min(wrong)} first."
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(saved[key])
