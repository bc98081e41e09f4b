"""The last layer for a few tokens: what the others would become there, nobody asks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from notetune.model.backbone import Backbone


@contextmanager
def last_feed_forward_of(backbone: Backbone, tokens_P: Tensor, token_count: int) -> Iterator[None]:
    """Let only some tokens of a row pass the last layer's feed-forward part.

    It adds nothing to the others, so their last hidden states mean nothing. It treats every token
    alone, so those of the chosen tokens are the same. A backbone whose layers are of another build
    than those of LLaMA or BERT computes all tokens.

    Args:
        backbone: The backbone, adapters inside it included.
        tokens_P: `(P,)` indices of the tokens in the row, virtual tokens counted.
        token_count: Tokens of the row, virtual tokens included.
    """

    def choose(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            x.index_select(1, tokens_P) if x.shape[1] == token_count else x for x in inputs
        )

    def spread(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        everywhere = output.new_zeros(1, token_count, output.shape[2])
        return everywhere.index_copy(1, tokens_P, output)

    parts = _feed_forward(backbone.model)
    with ExitStack() as stack:
        for part in parts:
            stack.callback(part.register_forward_pre_hook(choose).remove)
        for part in parts[-1:]:
            stack.callback(part.register_forward_hook(spread).remove)
        yield


def _feed_forward(model: Any) -> list[nn.Module]:
    """The modules of the last layer's feed-forward part, in the order in which they are called.

    Each takes hidden states of tokens; that of BERT has a second module, which adds them up.
    """
    body = model.get_decoder()
    layers = getattr(body, "layers", None) or getattr(getattr(body, "encoder", None), "layer", None)
    last = layers[-1] if layers else None
    for names in (("mlp",), ("intermediate", "output")):
        if all(isinstance(getattr(last, name, None), nn.Module) for name in names):
            return [getattr(last, name) for name in names]
    return []
