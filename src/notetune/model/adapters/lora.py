"""LoRA, in the layers that peft makes for it."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from notetune.errors import BundleError, RunWarning
from notetune.model.adapters.base import Adapter
from notetune.model.adapters.folder import LEAD
from notetune.model.adapters.peft_config import NO_MODULE, to_peft
from notetune.model.adapters.specs import LoRA
from notetune.model.backbone import Backbone


class LoRAAdapter(Adapter):
    """Low-rank additions inside the backbone's layers; several can stand beside each other.

    Attributes:
        name: peft's key for it in every layer.
        wrapper: peft's handle on all LoRAs of the backbone.
    """

    def __init__(
        self, backbone: Backbone, name: str, spec: LoRA, others: Sequence["LoRAAdapter"]
    ) -> None:
        self.spec, self.name, self._model = spec, name, backbone.model
        with warnings.catch_warnings():
            # peft 0.21 reads a property that transformers 5.23 has renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            # Of a new adapter, `tell_idle_names` says it.
            warnings.filterwarnings("ignore", "The following .*_pattern keys", RuntimeWarning)
            # Merging is where that matters; `refuse_tied` stands there.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings", UserWarning)
            try:
                config = to_peft(spec, backbone)
                if others:
                    self.wrapper: PeftModel = others[0].wrapper
                    self.wrapper.add_adapter(name, config)
                    # `PeftModel.set_adapter` takes one name and switches the others off.
                    together = [*(other.name for other in others), name]
                    self.wrapper.base_model.set_adapter(together)
                else:
                    self.wrapper = PeftModel(backbone.model, config, adapter_name=name)
            except ValueError as error:
                raise BundleError(_why_not(spec, backbone, str(error))) from None

    def tell_idle_names(self, spec: LoRA, backbone: Backbone) -> None:
        """Warn of names in the specification that no layer bears, which peft passes over."""
        reached, config = list(self._layers()), self.wrapper.peft_config[self.name]
        # What peft takes for parameters of experts is no name of a layer any more.
        named = config.target_modules if config.target_parameters else spec.targets
        targets = [(f"(.*\\.)?{re.escape(name)}", name) for name in spec.targets if name in named]
        others = [(f"(.*\\.)?({name})", name) for name in (*spec.ranks, *spec.alphas)]
        for pattern, name in (*targets, *others):
            if not any(re.fullmatch(pattern, path) for path in reached):
                said = f"backbone {backbone.name} has no layer named {name} that LoRA is put on"
                warnings.warn(
                    RunWarning(f"{said}; look at the adapter's targets, ranks or alphas."),
                    stacklevel=2,
                )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its matrices, layer by layer."""
        for path, parameter in self._model.named_parameters():
            parts = path.split(".")
            if any(a.startswith("lora_") and b == self.name for a, b in pairwise(parts)):
                yield path.replace(f".{self.name}", ""), parameter

    def tensors(self) -> dict[str, Tensor]:
        """Its matrices under the names that peft gives them in a file."""
        # peft keeps a magnitude in a module but names it like a parameter.
        magnitude = "lora_magnitude_vector"
        return {
            LEAD + path.replace(f"{magnitude}.weight", magnitude): p.detach()
            for path, p in self.named_parameters()
        }

    def fill(self, saved: Mapping[str, Tensor]) -> None:
        """As `Adapter.fill`, also with weights of a model that was loaded without token head."""
        whole = f"{LEAD}{self._model.base_model_prefix}."
        bare = [not any(name.startswith(whole) for name in one) for one in (saved, self.tensors())]
        if bare == [True, False]:
            saved = {name.replace(LEAD, whole, 1): tensor for name, tensor in saved.items()}
        super().fill(saved)

    def set_training(self, *, is_training: bool) -> None:
        """Turn its dropout on or off."""
        for layer in self._layers().values():
            layer.lora_dropout[self.name].train(is_training)

    def set_trained(self, *, is_trained: bool) -> None:
        """Train it, or freeze it; its dropout goes too, so that it is deterministic."""
        super().set_trained(is_trained=is_trained)
        if not is_trained:
            for layer in self._layers().values():
                layer.lora_dropout[self.name] = nn.Identity()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave it out of every layer for a while."""
        active = [(layer, layer.active_adapters) for layer in self._layers().values()]
        for layer, names in active:
            # `set_adapter` would do the same and thaw the others.
            layer._active_adapter = [name for name in names if name != self.name]
        try:
            yield
        finally:
            for layer, names in active:
                layer._active_adapter = names

    def _layers(self) -> dict[str, LoraLayer]:
        return {
            path: module
            for path, module in self._model.named_modules()
            if isinstance(module, LoraLayer) and self.name in module.scaling
        }


def merge_together(adapters: Sequence[LoRAAdapter]) -> None:
    """Add all LoRAs of a backbone to the weights of their layers; they cannot train any more."""
    for module in adapters[0].wrapper.modules() if adapters else ():
        if isinstance(module, LoraLayer):
            module.merge()


def _why_not(spec: LoRA, backbone: Backbone, said: str) -> str:
    """Why peft put a LoRA on no layer; it says so itself where some bear a name."""
    if "not found in the base model" not in said and said != NO_MODULE:
        return f"LoRA on backbone {backbone.name}: peft says: {said.splitlines()[0]}"
    return (
        f"backbone {backbone.name} has no layer named {', '.join(spec.targets)}; set the adapter's "
        "targets to linear layers of this backbone."
    )


def refuse_tied(backbone: Backbone) -> None:
    """Refuse to merge into a matrix that embeds and tells next tokens; LoRA changes one of both.

    Raises:
        BundleError: If LoRA is on embeddings that are the last layer's weights too, or on that.
    """
    both = backbone.embeddings, backbone.model.get_output_embeddings()
    has_lora = any(isinstance(one, LoraLayer) for one in both)
    if has_lora and both[1] is not None and both[1].weight is both[0].weight:
        raise BundleError(
            f"backbone {backbone.name} has one matrix for embeddings and next tokens, and LoRA on "
            "either changes that alone, so it cannot be merged; use it as it is."
        )
