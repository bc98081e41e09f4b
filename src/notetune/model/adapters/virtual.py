"""Virtual tokens: embeddings in front of a document, or keys and values in front of it."""

import warnings
from collections.abc import Iterator
from typing import Any, assert_never

import torch
from peft import PrefixEncoder, PromptEmbedding, PromptEncoder
from torch import Tensor, nn

from notetune.model.adapters.base import Adapter
from notetune.model.adapters.peft_config import to_peft
from notetune.model.adapters.specs import Prefix, Prompt, PTuning
from notetune.model.attention import Additions
from notetune.model.backbone import Backbone

_FILE_NAME = "prompt_embeddings"
_VirtualSpec = Prompt | PTuning | Prefix


class VirtualTokens(Adapter):
    """A prompt, P-tuning or a prefix, in the encoder that peft makes for it.

    While it is new it learns through its network; saved and read again it is flat: one row of
    numbers per virtual token, as in peft's file, and only those train.
    """

    def __init__(self, backbone: Backbone, spec: _VirtualSpec, *, is_flat: bool) -> None:
        self.spec = spec
        self._is_flat = is_flat or isinstance(spec, Prompt)
        self._layers, self._heads = backbone.layers, backbone.heads
        self._encoder = _encoder(backbone, spec, is_flat=self._is_flat).to(backbone.device)
        needs_no_start = is_flat or backbone.device.type == "meta"
        if isinstance(spec, Prompt) and spec.init == "text" and not needs_no_start:
            ids = (backbone.token_ids(spec.text) * spec.virtual_tokens)[: spec.virtual_tokens]
            embeddings = backbone.embeddings(torch.tensor(ids, device=backbone.device))
            self._encoder.embedding.weight.data.copy_(embeddings)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its numbers, and its network while it has one."""
        yield from self._encoder.named_parameters()

    def tensors(self) -> dict[str, Tensor]:
        """The flat numbers under peft's name."""
        return {_FILE_NAME: self._flat().detach()}

    def set_training(self, *, is_training: bool) -> None:
        """Turn the dropout of its network on or off."""
        self._encoder.train(is_training)

    def additions(self) -> Additions:
        """Slots of the row for a prompt, keys and values for a prefix."""
        if not isinstance(self.spec, Prefix):
            return Additions(slots=(self._flat(),))
        heads = self._heads
        # peft's order: per virtual token, layer after layer, its keys and then its values.
        flat = self._flat().view(-1, 2 * self._layers, heads.kv_heads, heads.head_dim)
        return Additions(prefixes=(flat.permute(1, 2, 0, 3),))

    def _flat(self) -> Tensor:
        weight: Tensor = self._encoder.embedding.weight
        if self._is_flat:
            return weight
        indices = torch.arange(len(weight), device=weight.device)
        flat: Tensor = self._encoder(indices.unsqueeze(0))
        return flat.squeeze(0)


def _encoder(backbone: Backbone, spec: _VirtualSpec, *, is_flat: bool) -> Any:
    config = to_peft(spec, backbone)
    config.inference_mode = is_flat  # peft's word for "without the network"
    match spec:
        case Prompt():
            return PromptEmbedding(config, None)
        case Prefix():
            config.prefix_projection = spec.projection and not is_flat
            return PrefixEncoder(config)
        case PTuning():
            with warnings.catch_warnings():
                # One layer has no dropout between layers; torch finds that worth a warning.
                warnings.filterwarnings("ignore", "dropout option adds dropout", UserWarning)
                return PromptEncoder(config)
        case _:
            assert_never(spec)
