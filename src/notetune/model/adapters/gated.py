"""Adaptation prompts: a second, gated attention of the topmost layers to a prompt of their own."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from notetune.errors import BundleError
from notetune.model.adapters.base import Adapter
from notetune.model.adapters.folder import LEAD
from notetune.model.adapters.specs import AdaptationPrompt
from notetune.model.attention import Additions, GatedPrompt
from notetune.model.backbone import Backbone


class GatedPrompts(Adapter):
    """One prompt and one gate per layer; the gates start at 0, so a new one changes nothing."""

    def __init__(self, backbone: Backbone, spec: AdaptationPrompt) -> None:
        self.spec = spec
        shape = (1, spec.length, backbone.hidden_size)
        self._prompts = {
            path: GatedPrompt(
                int(module.layer_idx),  # type: ignore[arg-type]
                nn.Parameter(torch.randn(shape).to(backbone.device)),
                nn.Parameter(torch.zeros(1, device=backbone.device)),
            )
            for path, module in _attention_layers(backbone, spec.layers).items()
        }

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Prompts and gates, from the lowest layer up."""
        for path, part in self._prompts.items():
            yield f"{path}.adaption_prompt", part.prompt
            yield f"{path}.adaption_gate", part.gate

    def tensors(self) -> dict[str, Tensor]:
        """Prompts and gates under peft's names."""
        return {LEAD + path: p.detach() for path, p in self.named_parameters()}

    def set_training(self, *, is_training: bool) -> None:
        """It has no dropout."""

    def additions(self) -> Additions:
        """Its prompts, for the attention of their layers."""
        return Additions(gated=tuple(self._prompts.values()))


def _attention_layers(backbone: Backbone, wanted: int | None) -> dict[str, nn.Module]:
    found = {
        path: module
        for path, module in backbone.model.named_modules()
        if hasattr(module, "layer_idx") and hasattr(module, "k_proj") and hasattr(module, "o_proj")
    }
    if not found or (wanted or 0) > len(found):
        raise BundleError(
            f"backbone {backbone.name} has {len(found)} layers that an adaptation prompt fits, not "
            f"{wanted}; lower the adapter's layers or leave the key out."
        )
    if any(module.o_proj.bias is not None for module in found.values()):
        # peft would add that bias a second time, so an adapter of ours would not be one of peft's.
        raise BundleError(
            f"backbone {backbone.name} has a bias in o_proj, which an adaptation prompt cannot "
            "have; use another adapter method."
        )
    return dict(list(found.items())[-(wanted or len(found)) :])
