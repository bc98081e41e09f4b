"""What a backbone does with a row of documents, found by running it, not by its name.

Shapes as in `batch`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from notetune.errors import BackboneError
from notetune.model.attention import PACKED_ATTENTION, Additions, DocumentLayout

_EXACT_LAYERS = {"full_attention", "sliding_attention"}
_LENGTHS = (3, 5, 2)  # the last of them stands as far on as a document can be long
_FARTHEST = 1 << 20
# What a model may raise that was not made for a row, or for what stands beside its ids.
FAULTS = (
    BackboneError, TypeError, AttributeError, RuntimeError, ValueError, LookupError,
    AssertionError,
)  # fmt: skip


class TokenHead(nn.Module):
    """The last layer of a decoder, from hidden states to logits, with what follows it."""

    def __init__(self, layer: nn.Module, factor: float = 1.0, cap: float | None = None) -> None:
        super().__init__()
        self.layer, self._factor, self._cap = layer, factor, cap

    def forward(self, hidden_TH: Tensor) -> Tensor:
        """`(T, H)` hidden states to `(T, V)` next-token logits."""
        logits: Tensor = self.layer(hidden_TH) * self._factor
        return logits if self._cap is None else self._cap * (logits / self._cap).tanh()


class Reach(NamedTuple):
    """What a token of a row sees."""

    packs_to: int
    """Longest document that may share a row; 0 where documents would see each other, or attention
    is of a kind that rows do not have, so that each document is computed alone."""
    sees_ahead: bool
    """Whether a token sees what follows it."""


def measured_reach(model: Any, most: int, tolerance: float) -> Reach:
    """Compare a row of short documents with what the whole model gives for each alone.

    Alone they are computed by the attention that transformers gives the model. It keeps that one
    where it cannot have packed rows, and has ours everywhere else. `most` is how many positions it
    was built for; `tolerance` is what is rounding, as a share of the largest output.

    Raises:
        BackboneError: If it cannot be run, or its next tokens are not those of its last states.
    """
    own, kind = model.config._attn_implementation, model.config.model_type
    documents = list(_documents(model))
    try:
        alone = [whole_output(model, ids) for ids in documents]
        changed = documents[1].clone()
        changed[-1] = documents[2][-1]
        moved = _differs(whole_output(model, changed)[:-1], alone[1][:-1], tolerance)
        states = [_outputs(model, body_of(model)(ids[None], use_cache=False)) for ids in documents]
    except FAULTS as error:
        raise BackboneError(
            f"a model of type {kind} cannot be run on token ids alone ({type(error).__name__}); "
            "choose another backbone."
        ) from None
    if any(_differs(*pair, tolerance) for pair in zip(states, alone, strict=True)):
        raise BackboneError(
            f"a model of type {kind} makes its logits in a way that is not known here; choose "
            "another backbone."
        )
    model.set_attn_implementation(PACKED_ATTENTION)
    expected = torch.cat(alone[:2])
    for limit in (most, _border(model, most)):
        if limit and _keeps_apart(model, documents, expected, limit, tolerance):
            return Reach(limit, moved)
    model.set_attn_implementation(own)
    return Reach(0, moved)


def expected_reach(model: Any, most: int, *, sees_ahead: bool) -> Reach:
    """What `measured_reach` will probably find of a model without data, from what it calls.

    `sees_ahead` is the answer where no layer says more.
    """
    model.set_attn_implementation(PACKED_ATTENTION)
    layout = DocumentLayout(_LENGTHS[:2], Additions(), model.device)
    is_whole = True
    try:
        _packed(model, list(_documents(model))[:2], most, layout)
    except RuntimeError:
        is_whole = False  # a router of experts asks for data; what is after it was not seen
    except FAULTS:
        return Reach(0, sees_ahead)
    calls = layout.attended
    if calls:
        sees_ahead = not all(is_causal for is_causal, _ in calls)
    if not calls or not _says_all(model, layout, is_whole=is_whole):
        return Reach(0, sees_ahead)
    return Reach(_border(model, most) or most, sees_ahead)


def first_position(model: Any) -> int:
    """The position of a document's first token: beyond that of padding where that has one."""
    most = setting(model, "max_position_embeddings")
    for name, module in model.named_modules():
        is_table = isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
        if is_table and module.padding_idx is not None and module.num_embeddings == most:
            return int(module.padding_idx) + 1
    return 0


def setting(model: Any, name: str, default: Any = None) -> Any:
    """What the configuration of a model, or of its text model, says; `default` where nothing."""
    try:
        value = getattr(model.config.get_text_config(decoder=True), name, None)
    except RuntimeError:  # transformers, where layers differ in it
        return default
    return default if value is None else value


def body_of(model: Any) -> Any:
    """The part of a model that makes its hidden states."""
    candidates: list[Any] = [model.get_decoder(), model.base_model, getattr(model, "model", None)]
    for body in candidates:
        if hasattr(body, "get_output_embeddings") and body.get_output_embeddings() is None:
            return body
    return model


def head_of(model: Any) -> TokenHead | None:
    """The layer from hidden states to logits; None of a model without."""
    layer = model.get_output_embeddings()
    if layer is None:
        return None
    factor = setting(model, "logit_scale", 1.0) / setting(model, "logits_scaling", 1.0)
    return TokenHead(layer, factor, setting(model, "final_logit_softcapping"))


def whole_output(model: Any, ids_T: Tensor) -> Tensor:
    """`(T, V)` logits of one document as transformers has them; of a model without, its states."""
    output = model(ids_T[None], use_cache=False)
    whole: Tensor = output.logits if head_of(model) else output.last_hidden_state
    return whole[0].float()


def _documents(model: Any) -> Iterator[Tensor]:
    """Token ids of short documents, none of which is padding."""
    size, pad = len(model.get_input_embeddings().weight), setting(model, "pad_token_id")
    ids = torch.tensor([n for n in range(min(size, 2 * sum(_LENGTHS))) if n != pad])
    yield from torch.split(ids[: sum(_LENGTHS)].to(model.device), list(_LENGTHS))


def _keeps_apart(
    model: Any, documents: Sequence[Tensor], expected: Tensor, limit: int, tolerance: float
) -> bool:
    layout = DocumentLayout(_LENGTHS, Additions(), model.device)
    try:
        found = _packed(model, documents, limit, layout)[: len(expected)]
    except FAULTS:
        return False
    return _says_all(model, layout) and not _differs(found, expected, tolerance)


def _packed(model: Any, documents: Sequence[Tensor], limit: int, layout: DocumentLayout) -> Tensor:
    """The outputs of a row, whose third document ends where a document can end."""
    far, first = min(limit, _FARTHEST), first_position(model)
    starts = (0, 0, far - first - _LENGTHS[2])
    positions = [
        torch.arange(len(ids), device=ids.device) + start + first
        for ids, start in zip(documents, starts, strict=False)
    ]
    output = body_of(model)(
        torch.cat(tuple(documents))[None],
        position_ids=torch.cat(positions)[None],
        use_cache=False,
        documents=layout,
    )
    return _outputs(model, output)


def _says_all(model: Any, layout: DocumentLayout, *, is_whole: bool = True) -> bool:
    """Whether the attention that was called is all that the configuration tells of layers."""
    kinds = set(setting(model, "layer_types", ()))
    has_window = "sliding_attention" in kinds if kinds else setting(model, "sliding_window")
    if has_window and is_whole and all(width is None for _, width in layout.attended):
        return False
    least = int(setting(model, "num_hidden_layers", 1)) if is_whole else 1
    return kinds <= _EXACT_LAYERS and len(layout.attended) >= least


def _border(model: Any, most: int) -> int:
    """Where the angles of positions change for a whole row, if they do; else 0."""
    angles = setting(model, "rope_parameters", {})
    of_layers = [angles, *(part for part in angles.values() if isinstance(part, dict))]
    changing = [part for part in of_layers if part.get("rope_type") in ("longrope", "dynamic")]
    borders = [int(part.get("original_max_position_embeddings") or 0) for part in changing]
    border = min(borders, default=0)
    return border if border < most else 0


def _outputs(model: Any, output: Any) -> Tensor:
    head, states = head_of(model), output.last_hidden_state[0]
    outputs: Tensor = head(states) if head else states
    return outputs.float()


def _differs(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Also where one of them is no number."""
    if found.shape != expected.shape:
        return True
    return not bool((found - expected).abs().max() <= tolerance * expected.abs().max())
