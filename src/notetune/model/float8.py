"""Linear layers that do not train, computed in float8.

A row here is a row of a matrix: a token of an activation or of a gradient, or a channel of a
weight. Each has a scale of its own that maps its largest value onto the largest of float8.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from notetune.errors import BackboneError

_FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FLOAT8).max
_SMALLEST_PEAK = torch.finfo(torch.float32).tiny * _LARGEST  # its scale is still a normal float32
_MULTIPLE = 16  # the kernel's matrices have sizes that this divides, but for the number of tokens
_FIRST_CAPABILITY = (8, 9)


def quantise(rows_MK: Tensor) -> tuple[Tensor, Tensor]:
    """`(M, K)` float8 values and `(M, 1)` float32 scales, whose product is about `rows_MK`.

    A value differs by at most 2^-4 of itself or 2^-10 of its scale. What is not finite stays so.
    """
    peak_M1 = torch.linalg.vector_norm(rows_MK, math.inf, dim=1, keepdim=True, dtype=torch.float32)
    scale_M1 = peak_M1.clamp(min=_SMALLEST_PEAK) / _LARGEST
    return (rows_MK / scale_M1).to(_FLOAT8).contiguous(), scale_M1


def product_of(
    left_MK: Tensor, left_scale_M1: Tensor, right_NK: Tensor, right_scale_N1: Tensor
) -> Tensor:
    """`(M, N)` bfloat16: a quantised matrix times the transpose of another."""
    return torch._scaled_mm(
        left_MK,
        right_NK.t(),
        scale_a=left_scale_M1,
        scale_b=right_scale_N1.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


class Float8Linear(nn.Linear):
    """A frozen linear layer; its weight and the transpose are quantised once.

    Forward each output channel has a scale, backward each input channel, so that either product
    runs in float8. Nothing of the activation is kept for the backward pass.
    """

    compute_dtype = torch.bfloat16
    """What peft makes an adapter for, in place of the type of `weight`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight.detach()
        values, scale = quantise(weight)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.bias = linear.bias
        transposed, transposed_scale = quantise(weight.t())
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("transposed", transposed, persistent=False)
        self.register_buffer("transposed_scale", transposed_scale, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """`(..., out_features)` in the type of the input."""
        rows = input.reshape(-1, self.in_features)
        own, own_scale = quantise(rows.detach())
        product: Tensor = _frozen_product(
            rows, own, own_scale, self.weight, self.scale, self.transposed, self.transposed_scale
        )
        result = product if self.bias is None else product + self.bias
        return result.view(*input.shape[:-1], self.out_features).to(input.dtype)


@torch.library.custom_op("notetune::frozen_product", mutates_args=())
def _frozen_product(
    rows_MK: Tensor,
    own_MK: Tensor,
    own_scale_M1: Tensor,
    values_NK: Tensor,
    scale_N1: Tensor,
    transposed_KN: Tensor,
    transposed_scale_K1: Tensor,
) -> Tensor:
    """The product of quantised rows; its gradient goes to the rows before they were quantised.

    A compiler leaves the product to its kernel and fuses the quantising around it. It cannot
    follow a `torch.autograd.Function` whose number of rows changes (torch 2.13).
    """
    return product_of(own_MK, own_scale_M1, values_NK, scale_N1)


@_frozen_product.register_fake
def _shape_of_product(rows_MK: Tensor, own_MK: Tensor, *rest: Tensor) -> Tensor:
    return rows_MK.new_empty((own_MK.shape[0], rest[1].shape[0]), dtype=torch.bfloat16)


def _keep_transposed(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[-2:])


def _gradient_of_rows(ctx: Any, gradient_MN: Tensor) -> tuple[Tensor | None, ...]:
    return product_of(*quantise(gradient_MN), *ctx.saved_tensors), *[None] * 6


_frozen_product.register_autograd(_gradient_of_rows, setup_context=_keep_transposed)


@register_flop_formula(torch.ops.notetune.frozen_product)
def _operations(
    rows: torch.Size, own: torch.Size, scale: Any, values: torch.Size, *_: Any, **__: Any
) -> int:
    return 2 * rows.numel() * values[0]


def quantise_layers(body: nn.Module, device: torch.device) -> None:
    """Put a `Float8Linear` in place of every linear layer of a size that the kernel takes.

    Raises:
        BackboneError: If there is none, or the device has no such kernel.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY:
        raise BackboneError(
            f"{torch.cuda.get_device_name(device)} has no float8 matrix products, which begin "
            "with compute capability 8.9; set dtype: bfloat16."
        )
    linears = [
        (parent, name, module)
        for parent in body.modules()
        for name, module in parent.named_children()
        if isinstance(module, nn.Linear)
        and not (module.in_features % _MULTIPLE or module.out_features % _MULTIPLE)
    ]
    if not linears:
        raise BackboneError(
            f"no layer of the backbone has sizes that are multiples of {_MULTIPLE}, as float8 "
            "needs; set dtype: bfloat16."
        )
    for parent, name, module in linears:
        setattr(parent, name, Float8Linear(module))


def is_float8(model: nn.Module) -> bool:
    """Whether any layer of a model computes in float8."""
    return any(isinstance(module, Float8Linear) for module in model.modules())
