"""Activations that are computed again in the backward pass, so that they need not be kept."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from notetune.model.backbone import Backbone


def recompute_layers(backbone: Backbone) -> None:
    """Have each layer keep its input alone, and compute the rest again for its gradients.

    Adapters may be put on before or after. The last layer keeps all: its activations are the first
    that the backward pass needs, so nothing would be saved.
    """
    for layer in backbone.blocks[:-1]:
        layer.forward = functools.partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
