"""Adapters added to the weights of their backbone, where the method is an addition to weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from notetune.errors import BundleError
from notetune.model.adapters.full import FullAdapter
from notetune.model.adapters.lora import LoRAAdapter, merge_together, refuse_tied
from notetune.model.adapters.specs import Full, traits
from notetune.model.stack import Stack, probe

_TOLERANCE = 1e-4  # of the largest hidden state


@dataclass(frozen=True)
class Merged:
    """Weights of a plain backbone."""

    tensors: dict[str, Tensor]
    """Under the names that transformers gives them."""
    adapters: tuple[str, ...]
    """Names of what was merged."""
    difference: float
    """Largest change of a hidden state of a few tokens."""


@torch.inference_mode()
def merge_adapters(model: Stack) -> Merged:
    """Weights that compute alone what backbone and adapters compute together.

    The stack is merged in place and of no other use afterwards.

    Raises:
        BundleError: If a method adds something else than weights, or the merged weights do not
            compute the same.
    """
    for layer in model.layers:
        if not traits(layer.spec).merges:
            raise BundleError(
                f"adapter {layer.name} is of kind {layer.spec.kind}, which adds virtual tokens and "
                "not weights, so it cannot be merged; use it as it is. lora and full can be merged."
            )
    if not model.backbone.has_plain_weights:
        raise BundleError(
            f"the weights of {model.backbone.name} are quantised, so they cannot take an adapter "
            "in; merge into the same backbone with plain weights."
        )
    refuse_tied(model.backbone)
    row = probe(model.backbone)
    model.eval_mode()
    before = model.hidden_states(row)
    merge_together([each for each in model.adapters.values() if isinstance(each, LoRAAdapter)])
    difference = float((model.hidden_states(row) - before).abs().max())
    if not difference <= _TOLERANCE * before.abs().max():  # NaN is no agreement
        raise BundleError(
            f"the merged weights change a hidden state by {difference:.1e}, so nothing is written; "
            "use the adapters as they are."
        )
    names = tuple(layer.name for layer in model.layers)
    return Merged(FullAdapter(model.backbone, Full()).tensors(), names, difference)
