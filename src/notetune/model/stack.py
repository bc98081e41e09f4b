"""Backbone, domain adapter, task adapter and head as one model: who is active and who trains."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor, nn

from notetune.errors import BundleError
from notetune.model.adapters.base import Adapter
from notetune.model.adapters.files import SavedAdapter, adapter_tensors, tensors_hash
from notetune.model.adapters.full import FullAdapter
from notetune.model.adapters.gated import GatedPrompts
from notetune.model.adapters.lora import LoRAAdapter
from notetune.model.adapters.specs import (
    AdaptationPrompt,
    AdapterSpec,
    Full,
    LoRA,
    Prefix,
    Prompt,
    PTuning,
    lowest_layer,
    traits,
)
from notetune.model.adapters.virtual import VirtualTokens
from notetune.model.attention import Additions
from notetune.model.backbone import Backbone
from notetune.model.batch import PackedBatch, packed_batch
from notetune.model.entering import EnteringStates, only_below
from notetune.model.heads import pool
from notetune.model.last_layer import last_layer_of
from notetune.model.layers import Layers, Pooling, chosen_layers
from notetune.model.losses import next_token_loss, next_token_losses

DOMAIN, TASK = "domain", "task"
_Reads = Callable[[PackedBatch], Tensor]
_PROBE_TOKENS = 16


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
    """A backbone, whose layers may hold adapters now, with all its adapters active."""

    backbone: Backbone
    layers: tuple[Layer, ...]
    """What was asked for, in the order in which it was put on."""
    adapters: dict[str, Adapter]
    """What was put on, by name."""
    frozen_hashes: dict[str, str]
    """Of each that does not train, as it was put on; none for an outline without weights."""

    @property
    def reserved_per_document(self) -> int:
        """Virtual tokens that stand in front of each document; a row must have room for them."""
        return sum(traits(layer.spec).row_tokens for layer in self.layers)

    @property
    def trainable_count(self) -> int:
        """Parameters that train; the head is not counted."""
        return sum(parameter.numel() for parameter in self.parameters_by_name().values())

    @property
    def total_count(self) -> int:
        """Parameters of backbone and adapters."""
        adapters = [p for adapter in self.adapters.values() for _, p in adapter.named_parameters()]
        everything = {id(p): p for p in [*self.backbone.model.parameters(), *adapters]}
        # nf4 has two weights in each byte.
        return sum(p.numel() * (1 + (p.dtype == torch.uint8)) for p in everything.values())

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Everything that trains, the head aside, always in the same order."""
        return {
            f"{layer.name}.{name}": parameter
            for layer in self.layers
            if layer.is_trained
            for name, parameter in self.adapters[layer.name].named_parameters()
            if parameter.requires_grad
        }

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Weights of one adapter."""
        return adapter_tensors(self.adapters[name])

    def eval_mode(self) -> None:
        """Turn all dropout off."""
        self.backbone.model.eval()
        for adapter in self.adapters.values():
            adapter.set_training(is_training=False)

    def train_mode(self) -> None:
        """Turn on the dropout of what trains; all else stays deterministic."""
        self.eval_mode()
        for layer in self.layers:
            if layer.is_trained:
                self.adapters[layer.name].set_training(is_training=True)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """`(T, H)` last hidden states, after the final norm, of the text tokens of a packed row."""
        return self.backbone.hidden_states(batch, self._additions())

    def summed_token_loss(self, batch: PackedBatch) -> Tensor:
        """Next-token negative log-likelihood of a row in nats, summed over its target tokens."""
        return next_token_loss(self.backbone.head, *self._predicted(batch))

    def token_losses(self, batch: PackedBatch) -> Tensor:
        """What `summed_token_loss` sums: a value per target token, in order; without gradient."""
        return next_token_losses(self.backbone.head, *self._predicted(batch))

    def _predicted(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Hidden states, and the token that follows each of them."""
        context_T = batch.context_T
        return self.hidden_states(batch)[context_T], batch.ids_T[context_T + 1]

    def features(
        self,
        batch: PackedBatch,
        pooling: Pooling,
        layers: Layers = "last",
        entering: EnteringStates | None = None,
    ) -> Tensor:
        """`(N, H)` pooled hidden states of the notes of a packed row, those of layers side by side.

        With `entering` states those of layers below are left out.

        Raises:
            ConfigError: If the backbone lacks one of the layers.
        """
        chosen = chosen_layers(layers, self.backbone.layers)
        chosen = tuple(n for n in chosen if entering is None or n >= entering.first)
        additions = self._additions()
        shortcut: AbstractContextManager[None] = nullcontext()
        if pooling != "mean" and self.backbone.shares_row(batch, additions):
            tokens_D = batch.first_D if pooling == "first" else batch.last_D
            numbers_D = torch.arange(1, len(tokens_D) + 1, device=tokens_D.device)
            asked_D = tokens_D + additions.slot_count * numbers_D
            token_count = len(batch.ids_T) + additions.slot_count * len(tokens_D)
            see_all = pooling == "last"
            shortcut = last_layer_of(self.backbone, asked_D, token_count, see_all=see_all)
        with shortcut:
            hidden_TH = self.backbone.hidden_states(batch, additions, chosen, entering)
        return pool(hidden_TH, batch, pooling)

    def states_entering(self, first: int, batch: PackedBatch) -> Tensor:
        """`(T, H)` hidden states that enter a layer, counted from 0."""
        with only_below(self.backbone.blocks, first):
            return self.backbone.hidden_states(batch, self._additions(), (first,))

    def runs_from(self, first: int) -> bool:
        """Whether the layers from one on run alone; some read more than what enters them."""
        batch, weights = probe(self.backbone), self.backbone.embeddings.weight
        states_TH = weights.new_zeros(len(batch.ids_T), self.backbone.hidden_size)
        try:
            with torch.no_grad():
                self.features(batch, "mean", entering=EnteringStates(first, lambda _: states_TH))
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError):
            return False
        return True

    @property
    def lowest_trained(self) -> int:
        """The lowest layer that anything which trains acts in, from 0; 0 where none is known."""
        if not self.backbone.blocks:
            return 0
        trained = [layer.spec for layer in self.layers if layer.is_trained]
        return min((lowest_layer(spec, self.backbone.layers) for spec in trained), default=0)

    def check(
        self, batch: PackedBatch, reads: _Reads | None = None, names: Collection[str] | None = None
    ) -> None:
        """Refuse a stack that is not what it says, by what a head `reads` of a few documents.

        Without a head all hidden states count; without `names` all adapters are looked at.

        Raises:
            BundleError: If an adapter does not change what is read of `batch`, or an adapter that
                should be frozen has changed since it was put on.
        """
        for name in self.adapters if names is None else names:
            before = self.frozen_hashes.get(name)
            if before is not None and tensors_hash(self.tensors(name)) != before:
                raise BundleError(f"frozen adapter {name} has changed; the run is not valid.")
            if self.effect(name, batch, reads) == 0:
                raise BundleError(
                    f"adapter {name} does not change the output; it is not active or was never "
                    "trained."
                )

    @torch.inference_mode()
    def effect(self, name: str, batch: PackedBatch, reads: _Reads | None = None) -> float:
        """Largest change of what is read of `batch`, as of `check`, without one adapter."""
        reads = reads or self.hidden_states
        self.eval_mode()
        with_it = reads(batch)
        with self.adapters[name].off():
            return float((with_it - reads(batch)).abs().max())

    def _additions(self) -> Additions:
        active = (adapter for adapter in self.adapters.values() if adapter.is_on)
        return sum((adapter.additions() for adapter in active), Additions())


def stack(
    backbone: Backbone,
    layers: Sequence[Layer] = (),
    seed: int = 0,
    *,
    predicts_tokens: bool = True,
) -> Stack:
    """Put adapters onto a backbone, activate all of them, and train only those that should.

    The backbone is freshly loaded, and changed in place. The contributions of all adapters add up;
    virtual tokens of later ones stand nearer to the text. An outcome loss does not reach the layer
    that predicts tokens, so without `predicts_tokens` nothing in that layer trains.

    Raises:
        BundleError: If a saved adapter was trained on another backbone or does not fit, or if two
            adapters are the weights themselves.
    """
    if sum(traits(layer.spec).is_backbone for layer in layers) > 1:
        raise BundleError(
            "two adapters of kind full are the same weights; one of them must be another method."
        )
    adapters: dict[str, Adapter] = {}
    for number, layer in enumerate(layers):
        saved = layer.adapter if isinstance(layer.adapter, SavedAdapter) else None
        on_meta: Any = backbone.device if backbone.device.type == "meta" else nullcontext()
        with torch.random.fork_rng(devices=[]), on_meta:
            torch.manual_seed(seed + number)
            adapter = _put(backbone, layer, adapters.values())
        if saved is not None:
            if saved.backbone not in (None, backbone.fingerprint):
                raise BundleError(
                    f"adapter {layer.name} was trained on the backbone {saved.backbone}, not on "
                    f"{backbone.name} ({backbone.fingerprint}); use its own backbone."
                )
            adapter.fill(saved.tensors)
        adapters[layer.name] = adapter
    for layer in layers:
        adapters[layer.name].set_trained(is_trained=layer.is_trained)
    if not (predicts_tokens or backbone.is_encoder):
        _freeze_token_head(backbone)
    frozen_hashes = {
        layer.name: tensors_hash(adapter_tensors(adapters[layer.name]))
        for layer in layers
        if not layer.is_trained and backbone.device.type != "meta"
    }
    model = Stack(backbone, tuple(layers), adapters, frozen_hashes)
    model.eval_mode()
    return model


def probe(backbone: Backbone) -> PackedBatch:
    """A document of the first tokens of the vocabulary, to look at a stack without notes."""
    ids = np.arange(_PROBE_TOKENS) % len(backbone.embeddings.weight)
    return packed_batch([ids], [0], backbone.device)


def _put(backbone: Backbone, layer: Layer, others: Collection[Adapter]) -> Adapter:
    spec = layer.spec
    if traits(spec).reads_weights and not backbone.has_plain_weights:
        raise BundleError(
            f"adapter {layer.name} ({spec.kind}) works on the weights themselves, which a "
            "quantised backbone hides; set dtype: bfloat16 on a backbone with plain weights, or "
            "take LoRA without dora."
        )
    if traits(spec).is_in_attention and not backbone.reach.packs_to:
        raise BundleError(
            f"adapter {layer.name} ({spec.kind}) acts within attention, which backbone "
            f"{backbone.name} computes in a way of its own; take lora, full, prompt or p-tuning."
        )
    match spec:
        case LoRA():
            loras = [other for other in others if isinstance(other, LoRAAdapter)]
            lora = LoRAAdapter(backbone, layer.name, spec, loras)
            if not isinstance(layer.adapter, SavedAdapter) and not backbone.is_encoder:
                lora.tell_idle_names(spec, backbone)
            return lora
        case Prompt() | PTuning() | Prefix():
            is_flat = isinstance(layer.adapter, SavedAdapter)
            return VirtualTokens(backbone, spec, is_flat=is_flat)
        case AdaptationPrompt():
            return GatedPrompts(backbone, spec)
        case Full():
            if layer.is_trained:
                backbone.model.float()  # before saved weights come, which bfloat16 would round
            return FullAdapter(backbone, spec)
        case _:
            assert_never(spec)


def _freeze_token_head(backbone: Backbone) -> None:
    tied = {id(parameter) for parameter in backbone.embeddings.parameters()}
    for parameter in backbone.head.parameters():
        if id(parameter) not in tied:
            parameter.requires_grad = False
