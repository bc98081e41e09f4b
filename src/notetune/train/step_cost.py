"""What one training step costs: the real step, run where tensors have shapes but no data."""

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from notetune.model.backbone_folder import Dtype
from notetune.model.batch import PackedBatch, packed_batch
from notetune.model.device import capability_of, computed_in
from notetune.model.stack import Stack
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig

_MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}
_TIMED_STEPS = 3
_TIMED, _AT_ONCE = 9, {"cpu": 1, "cuda": 16}
_ADAM_BYTES = 2 * 4  # two float32 averages per parameter


@dataclass(frozen=True)
class StepCost:
    """What one step on a row of `tokens` needs.

    Attributes:
        peak_bytes: All tensors alive at its worst moment: weights, adapters, activations,
            gradients, optimizer state, and temporaries between operations.
        flops: Multiplications and additions of its matrix products.
    """

    peak_bytes: int
    flops: float
    tokens: int


def step_cost(
    model: Stack,
    loss: Callable[[PackedBatch], Tensor],
    lengths_D: tuple[int, ...],
    *,
    trains: bool = True,
) -> StepCost:
    """Count one step on one row; no weights are needed and nothing is computed.

    The model is a stack on an outlined backbone; the documents of the row have `lengths_D` tokens.
    Unless it `trains`, the step neither goes back nor updates.
    """
    batch, parameters = _row(lengths_D, "meta"), list(model.parameters_by_name().values())
    with _Counter() as counter, _FusedAttention(counter), torch.set_grad_enabled(trains):
        result = loss(batch)
        if trains:
            _backward(result)
            # From the second step on, the optimizer's state is there all the time.
            counter.peak += _ADAM_BYTES * sum(parameter.numel() for parameter in parameters)
            adamw(OptimConfig(), (parameters, 0.0)).step()
    return StepCost(counter.peak, counter.flops, sum(lengths_D))


def _backward(loss: Tensor) -> None:
    """What `loss.backward()` does, which would put function modes aside while it recomputes."""
    engine: Any = torch.autograd.Variable._execution_engine
    ones = (torch.ones_like(loss),)
    engine.run_backward(
        (loss,), ones, False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def step_seconds(
    model: Stack,
    loss: Callable[[PackedBatch], Tensor],
    lengths_D: tuple[int, ...],
    *,
    trains: bool = True,
) -> float:
    """Seconds that such a step takes where the model is; arguments as of `step_cost`, with weights.

    The update of the weights is not among them.
    """
    batch = _row(lengths_D, model.backbone.device)
    parameters = list(model.parameters_by_name().values())

    def step() -> None:
        with torch.set_grad_enabled(trains):
            result = loss(batch)
        if trains:
            torch.autograd.grad(result, parameters)
        result.item()  # waits for the device

    return _median_seconds(step, _TIMED_STEPS)


def _row(lengths_D: tuple[int, ...], device: torch.device | str) -> PackedBatch:
    documents = [np.zeros(length, np.int64) for length in lengths_D]
    return packed_batch(documents, range(len(documents)), device)


def _median_seconds(work: Callable[[], None], times: int) -> float:
    """Of what is done some times, after once to warm up."""
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def matrix_rate(device: torch.device, dtype: Dtype) -> float:
    """Operations per second of a large product of random matrices: the median of a few.

    In the type that weights of a type are computed in.
    """
    size, at_once = _MATRIX_SIZE[device.type], _AT_ONCE[device.type]
    matrix = torch.randn(size, size, device=device)
    matrix = matrix.to(getattr(torch, computed_in(dtype, capability_of(device))))

    def work() -> None:
        for _ in range(at_once):  # a GPU works through them while more are asked for
            product = matrix @ matrix
        product[0, 0].item()  # waits for the device

    return 2 * size**3 * at_once / _median_seconds(work, _TIMED)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, and so every tensor that is alive and every matrix product."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self.flops = 0, 0.0
        self._alive: dict[int, int] = {}
        self._bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        for tensor in tree_leaves((args, given, result)):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        if count := flop_registry.get(func.overloadpacket):
            self.flops += count(*args, **given, out_val=result)
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self._bytes += storage.nbytes()
            self.peak = max(self.peak, self._bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._bytes -= self._alive.pop(key)


class _FusedAttention(TorchFunctionMode):
    """Attention that keeps no scores, as on a device; on meta, torch takes one that does."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **given)
        query, key, value = args
        share = 0.5 if given.get("is_causal") else 1.0
        product = 2 * share * query.numel() * key.shape[-2]
        self._counter.flops += 2 * product  # scores, and their product with the values
        return _Attention.apply(query, key, value, self._counter, product)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Shapes alone."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, counter: _Counter, product: float
    ) -> Tensor:
        ctx.counter, ctx.product = counter, product
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        ctx.counter.flops += 5 * ctx.product
        gradients = [torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]]
        return *gradients, None, None
