"""A model whose layers are spread over processes (FSDP2), and its tensors as wholes."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(body: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Spread the layers that `body` calls over the processes; what is outside them stays whole."""
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    outside = {parameter for parameter in body.parameters() if id(parameter) not in inside}
    for layer in layers:
        # Gradients are summed, not averaged: the loop divides by the targets of all processes.
        sharded = fully_shard(layer)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(enable=True)
    fully_shard(body, ignored_params=outside)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor that every process has, the part that `like` has here; else itself."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    on_device = tensor.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def by_kind(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Those that are whole and those in parts, as torch updates no list of both; none is empty."""
    kinds: dict[bool, list[nn.Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault(isinstance(parameter, DTensor), []).append(parameter)
    return list(kinds.values())


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Shorten the gradient of all parameters together to a norm; the norm it had."""
    kinds = by_kind(parameters)
    gradients = [[p.grad for p in kind if p.grad is not None] for kind in kinds]
    norms = [whole(nn.utils.get_total_norm(kind)) for kind in gradients]
    norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm.item()
