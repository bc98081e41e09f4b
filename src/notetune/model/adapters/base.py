"""What every adapter can do once it was put onto a backbone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from notetune.errors import BundleError
from notetune.model.adapters.specs import AdapterSpec
from notetune.model.attention import Additions


class Adapter(ABC):
    """An adapter on a backbone.

    Attributes:
        spec: How it is made.
    """

    spec: AdapterSpec

    @abstractmethod
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters, always in the same order."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Its weights under the names of its file; detached, but not copied."""

    @abstractmethod
    def set_training(self, *, is_training: bool) -> None:
        """Turn its own dropout on or off."""

    @abstractmethod
    def off(self) -> AbstractContextManager[None]:
        """Take its contribution away for a while, whatever the others do."""

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
        wrong = [
            key
            for key in own.keys() | saved.keys()
            if key not in own or key not in saved or own[key].shape != saved[key].shape
        ]
        if wrong:
            raise BundleError(
                f"the {self.spec.kind} adapter does not fit the backbone: {len(wrong)} tensors are "
                f"missing, left over or of another shape, {min(wrong)} first."
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(saved[key])
