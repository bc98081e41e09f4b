"""Full fine-tuning: all weights of the backbone, saved as a backbone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from notetune.model.adapters.base import Adapter
from notetune.model.adapters.specs import Full
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.sharded import spread_like


class FullAdapter(Adapter):
    """The backbone's own parameters, treated as an adapter."""

    def __init__(self, backbone: Backbone, spec: Full) -> None:
        self.spec, self._backbone = spec, backbone

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of the backbone, without those of adapters inside its layers."""
        for path, parameter in self._backbone.model.named_parameters():
            if ".lora_" not in path:
                yield path.replace(".base_layer", ""), parameter

    def tensors(self) -> dict[str, Tensor]:
        """All weights under the names that transformers gives them; tied ones once.

        Some models keep learned values, such as the biases of experts, in buffers; these come along
        and do not train.
        """
        model = self._backbone.model
        saved = model.state_dict().keys()  # not what is computed anew, such as rotary frequencies
        buffers = [
            (n.replace(".base_layer", ""), b) for n, b in model.named_buffers() if n in saved
        ]
        return {name: tensor.detach() for name, tensor in (*self.named_parameters(), *buffers)}

    def set_training(self, *, is_training: bool) -> None:
        """Turn the dropout of the backbone on or off."""
        self._backbone.model.train(is_training)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Bring the weights back for a while that the backbone came with, from its folder."""
        # Tensors of a sharded model cannot be copied in inference mode.
        with torch.inference_mode(mode=False), torch.no_grad():
            before = load_backbone(str(self._backbone.folder))
            came_with = dict(before.model.named_parameters())
            trained = {name: _aside(parameter) for name, parameter in self.named_parameters()}
            for name, parameter in self.named_parameters():
                parameter.copy_(spread_like(came_with[name].detach(), parameter))
            try:
                yield
            finally:
                for name, parameter in self.named_parameters():
                    parameter.copy_(trained[name])


def _aside(parameter: nn.Parameter) -> Tensor:
    """A copy on the host, since a device may not hold all weights twice; a shard stays there."""
    tensor = parameter.detach()
    return tensor.clone() if isinstance(tensor, DTensor) else tensor.to("cpu", copy=True)
