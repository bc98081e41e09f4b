"""Backbone, domain adapter, task adapter and head as one model: who is active and who trains."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from notetune.errors import BundleError
from notetune.model.adapters import (
    AdapterSpec,
    PeftModel,
    SavedAdapter,
    activate_adapters,
    adapter_off,
    adapter_tensors,
    fill_adapter,
    freeze_adapter,
    put_adapter,
    tensors_hash,
)
from notetune.model.backbone import Backbone
from notetune.model.batch import PackedBatch
from notetune.model.heads import Head, Pooling, pool
from notetune.model.losses import next_token_loss, next_token_losses

DOMAIN, TASK = "domain", "task"


@dataclass(frozen=True)
class Layer:
    """One adapter of a stack: new from a specification, or saved."""

    name: str
    adapter: AdapterSpec | SavedAdapter
    is_trained: bool

    @property
    def spec(self) -> AdapterSpec:
        """How the adapter is made."""
        return self.adapter.spec if isinstance(self.adapter, SavedAdapter) else self.adapter


@dataclass(frozen=True)
class Stack:
    """A backbone with all its adapters active.

    Attributes:
        backbone: The backbone, whose layers now hold the adapters.
        layers: The adapters, in the order they were put on.
        wrapper: peft's handle on them; None without adapters.
        frozen_hashes: Hash of each adapter that does not train, taken when it was put on.
    """

    backbone: Backbone
    layers: tuple[Layer, ...]
    wrapper: PeftModel | None
    frozen_hashes: dict[str, str]

    @property
    def reserved_per_document(self) -> int:
        """Virtual tokens that stand in front of each document; a row must have room for them."""
        return 0

    @property
    def trainable_count(self) -> int:
        """Parameters that train; the head is not counted."""
        return sum(parameter.numel() for parameter in self.parameters_by_name().values())

    @property
    def total_count(self) -> int:
        """Parameters of backbone and adapters."""
        return sum(parameter.numel() for parameter in self.backbone.model.parameters())

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Everything that trains, the head aside, always in the same order."""
        named = self.backbone.model.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Weights of one adapter."""
        return adapter_tensors(self.wrapper, name)

    def eval_mode(self) -> None:
        """Turn all dropout off."""
        self.backbone.model.eval()

    def train_mode(self) -> None:
        """Turn on the dropout of the adapters that train; the backbone stays deterministic."""
        self.eval_mode()
        trained = {layer.name for layer in self.layers if layer.is_trained}
        for path, module in self.backbone.model.named_modules():
            if isinstance(module, nn.Dropout) and path.rsplit(".", 1)[-1] in trained:
                module.train()

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """`(T, H)` last hidden states, after the final norm, of the text tokens of a packed row."""
        return self.backbone.hidden_states(batch)

    def summed_token_loss(self, batch: PackedBatch) -> Tensor:
        """Next-token negative log-likelihood of a row in nats, summed over its target tokens."""
        context_T = batch.context_T
        hidden_TH = self.hidden_states(batch)[context_T]
        return next_token_loss(self.backbone.head, hidden_TH, batch.ids_T[context_T + 1])

    def token_losses(self, batch: PackedBatch) -> Tensor:
        """What `summed_token_loss` sums: a value per target token, in order; without gradient."""
        context_T = batch.context_T
        hidden_TH = self.hidden_states(batch)[context_T]
        return next_token_losses(self.backbone.head, hidden_TH, batch.ids_T[context_T + 1])

    def features(self, batch: PackedBatch, pooling: Pooling) -> Tensor:
        """`(D, H)` pooled hidden states of a packed row."""
        return pool(self.hidden_states(batch), batch, pooling)

    def logits(self, head: Head, batch: PackedBatch, pooling: Pooling) -> Tensor:
        """`(D, K)` outcome logits of a packed row."""
        logits: Tensor = head(self.features(batch, pooling))
        return logits

    def check(self, batch: PackedBatch) -> None:
        """Refuse a stack that is not what it says.

        Raises:
            BundleError: If an adapter does not change the hidden states of `batch`, or an adapter
                that should be frozen has changed since it was put on.
        """
        for name, before in self.frozen_hashes.items():
            if tensors_hash(self.tensors(name)) != before:
                raise BundleError(f"frozen adapter {name} has changed; the run is not valid.")
        for layer in self.layers:
            if self.effect(layer.name, batch) == 0:
                raise BundleError(
                    f"adapter {layer.name} does not change the output; it is not active or was "
                    "never trained."
                )

    @torch.inference_mode()
    def effect(self, name: str, batch: PackedBatch) -> float:
        """Largest change of a hidden state of `batch` when one adapter is taken away."""
        self.eval_mode()
        with_it = self.hidden_states(batch)
        with adapter_off(self.wrapper, name):
            without_it = self.hidden_states(batch)
        return float((with_it - without_it).abs().max())


def stack(backbone: Backbone, layers: Sequence[Layer] = (), seed: int = 0) -> Stack:
    """Put adapters onto a backbone, activate all of them, and train only those that should.

    Args:
        backbone: A freshly loaded backbone; it is changed in place.
        layers: The adapters. All act together; their contributions add up.
        seed: Initialises new adapters.

    Raises:
        BundleError: If a saved adapter was trained on another backbone or does not fit.
    """
    wrapper: PeftModel | None = None
    for number, layer in enumerate(layers):
        wrapper = put_adapter(backbone, wrapper, layer.name, layer.spec, seed + number)
        if isinstance(layer.adapter, SavedAdapter):
            _refuse_foreign(layer.name, layer.adapter, backbone)
            fill_adapter(wrapper, layer.name, layer.adapter)
    if wrapper is not None:
        activate_adapters(wrapper, [layer.name for layer in layers])
        for layer in layers:
            if not layer.is_trained:
                freeze_adapter(wrapper, layer.name)
    backbone.model.eval()
    frozen_hashes = {
        layer.name: tensors_hash(adapter_tensors(wrapper, layer.name))
        for layer in layers
        if not layer.is_trained
    }
    return Stack(backbone, tuple(layers), wrapper, frozen_hashes)


def _refuse_foreign(name: str, saved: SavedAdapter, backbone: Backbone) -> None:
    if saved.backbone != backbone.fingerprint:
        raise BundleError(
            f"adapter {name} was trained on the backbone {saved.backbone}, not on {backbone.name} "
            f"({backbone.fingerprint}); use its own backbone."
        )
