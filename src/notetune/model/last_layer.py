"""The last layer for a few tokens: what the others would become there, nobody asks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from notetune.model.backbone import Backbone


@contextmanager
def last_layer_of(
    backbone: Backbone, tokens_D: Tensor, token_count: int, *, see_all: bool
) -> Iterator[None]:
    """Let only one token of each document pass the last layer.

    The others keep what they were, or mean nothing; keys and values are those of all tokens. All
    else in the layer treats every token alone, so the chosen ones become the same. A backbone whose
    layers are of another build than those of LLaMA or BERT computes all tokens; of BERT only the
    feed-forward part computes the few.

    `tokens_D` are `(D,)` indices of the tokens in the row; they and `token_count` count virtual
    tokens too. Unless they `see_all` of their documents, as the last token of a decoder does,
    attention computes all tokens.
    """

    def choose(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            x.index_select(1, tokens_D) if x.shape[1] == token_count else x for x in inputs
        )

    def spread(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        everywhere = output.new_zeros(1, token_count, output.shape[2])
        return everywhere.index_copy(1, tokens_D, output)

    def ask(_: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**options, "documents": replace(options["documents"], asked_D=tokens_D)}

    last = backbone.blocks[-1] if backbone.blocks else None
    attention: Any = getattr(last, "self_attn", None) if see_all else None
    projections = _parts(attention, "q_proj", "o_proj")
    feed_forward = _parts(last, "mlp") or _parts(last, "intermediate", "output")
    with ExitStack() as hooks:
        if projections:
            asking = attention.register_forward_pre_hook(ask, with_kwargs=True)
            hooks.callback(asking.remove)
        for part in (*projections, *feed_forward):
            hooks.callback(part.register_forward_pre_hook(choose).remove)
        # The second module of BERT's feed-forward part adds the two up.
        for part in (*projections, *feed_forward[-1:]):
            hooks.callback(part.register_forward_hook(spread).remove)
        yield


def _parts(module: Any, *names: str) -> list[Any]:
    """The modules of these names, or none if one is missing."""
    parts = [getattr(module, name, None) for name in names]
    return parts if all(isinstance(part, nn.Module) for part in parts) else []
