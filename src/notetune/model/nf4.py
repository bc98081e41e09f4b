"""Linear layers that do not train, their weights kept in four bits (NF4) by bitsandbytes.

Blocks of weights share a scale, and blocks of these scales another one (Dettmers et al. 2023,
arXiv 2305.14314). A weight is unpacked for each product and forgotten after it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notetune.errors import BackboneError

_BLOCK, _BLOCK_OF_SCALES = 64, 256
UNPACKING_BYTES = 2.5
"""Read and written for a weight each time that it is unpacked to bfloat16."""


class Nf4Linear(nn.Linear):
    """A frozen linear layer; products are computed in the type of their input.

    bitsandbytes has such a layer too. This one computes the same with and without gradients, on
    rows of any number, and has its shape on the meta device, where bitsandbytes is not needed.

    Attributes:
        weight: `(out * in / 2, 1)` uint8, two weights a byte.
        scales: `(out * in / 64)` uint8, with `scale_of_scales` and their mean, `offset`.
    """

    scales: Tensor
    scale_of_scales: Tensor
    offset: Tensor

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.bias = linear.bias
        packed = _packed(linear.weight.detach(), device)
        self.weight = nn.Parameter(packed[0], requires_grad=False)
        for name, tensor in zip(("scales", "scale_of_scales", "offset"), packed[1:], strict=True):
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """`(..., out_features)` in the type of the input."""
        product: Tensor = _FrozenProduct.apply(input, self)  # type: ignore[no-untyped-call]
        return product

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """`(out_features, in_features)` its weight."""
        shape = (self.out_features, self.in_features)
        # Each is looked at, so that what counts tensors on the meta device sees them.
        held = (self.weight, self.scales, self.scale_of_scales, self.offset)
        weight, inner, outer, offset = (tensor.detach() for tensor in held)
        if weight.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device=weight.device)
        functional = _bitsandbytes()
        scales = functional.dequantize_blockwise(inner, absmax=outer, blocksize=_BLOCK_OF_SCALES)
        state = functional.QuantState(
            scales + offset, shape=shape, dtype=dtype, blocksize=_BLOCK, quant_type="nf4"
        )
        unpacked: Tensor = functional.dequantize_4bit(weight, state)
        return unpacked


class _FrozenProduct(torch.autograd.Function):
    """Autograd would keep the unpacked weight until the backward pass, which unpacks it again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(rows, layer.unpacked(rows.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[0] @ ctx.layer.unpacked(gradient[0].dtype), None


def quantise_layers(body: nn.Module, device: torch.device) -> None:
    """Put an `Nf4Linear` on a device in place of each linear layer that has whole blocks.

    One layer after the other, so that no more than one is there in float32.

    Raises:
        BackboneError: If there is none, or bitsandbytes is not installed.
    """
    linears = [
        (parent, name, module)
        for parent in body.modules()
        for name, module in parent.named_children()
        if isinstance(module, nn.Linear) and module.weight.numel() % _BLOCK == 0
    ]
    if not linears:
        raise BackboneError(
            f"no linear layer of the backbone has a multiple of {_BLOCK} weights, as nf4 needs; "
            "set dtype: bfloat16."
        )
    for parent, name, module in linears:
        setattr(parent, name, Nf4Linear(module, device))


def is_nf4(model: nn.Module) -> bool:
    """Whether any layer of a model has its weights in four bits."""
    return any(isinstance(module, Nf4Linear) for module in model.modules())


def _packed(weight: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """What `Nf4Linear` keeps of a weight.

    It is rounded from float32 whatever the device computes in, so to the same bits everywhere.
    """
    if weight.device.type == "meta":
        blocks = weight.numel() // _BLOCK
        packed, scales = weight.numel() // 2, -(-blocks // _BLOCK_OF_SCALES)
        kinds = ((packed, 1), torch.uint8), ((blocks,), torch.uint8), ((scales,), torch.float32)
        held = [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in kinds]
        return (*held, torch.empty((), device="meta"))
    values, state = _bitsandbytes().quantize_4bit(
        weight.to(device, torch.float32),
        blocksize=_BLOCK,
        compress_statistics=True,
        quant_type="nf4",
    )
    return values, state.absmax, state.state2.absmax, state.offset


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import functional
    except ImportError:
        raise BackboneError(
            "dtype nf4 needs bitsandbytes, which is not installed; install notetune[4bit], or set "
            "dtype: bfloat16."
        ) from None
    return functional
