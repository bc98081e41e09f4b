"""The peft configuration of a specification."""

from typing import Any, assert_never

import peft

from notetune.errors import BundleError
from notetune.model.adapters.specs import (
    AdaptationPrompt,
    LoRA,
    PeftSpec,
    Prefix,
    Prompt,
    PTuning,
    lowest_layer,
)
from notetune.model.backbone import Backbone

NO_MODULE = "no module in the chosen layers has such a name"


def to_peft(spec: PeftSpec, backbone: Backbone) -> peft.PeftConfig:
    """The peft configuration of a specification on a backbone.

    Raises:
        ValueError: If a LoRA in some of the layers is on none of their modules.
    """
    match spec:
        case LoRA():
            return peft.LoraConfig(
                r=spec.rank,
                lora_alpha=spec.alpha,
                lora_dropout=spec.dropout,
                target_modules=_targets(spec, backbone),
                use_rslora=spec.rslora,
                use_dora=spec.dora,
                rank_pattern=dict(spec.ranks),
                alpha_pattern=dict(spec.alphas),
            )
        case Prefix():
            front = _in_front(spec, backbone)
            width = spec.hidden or front["token_dim"]
            projection = {"prefix_projection": spec.projection, "encoder_hidden_size": width}
            return peft.PrefixTuningConfig(**front, **projection)
        case Prompt():
            text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": spec.text}
            start = {**text, "tokenizer_name_or_path": backbone.name} if spec.init == "text" else {}
            return peft.PromptTuningConfig(**_in_front(spec, backbone), **start)
        case PTuning():
            return peft.PromptEncoderConfig(
                encoder_reparameterization_type=spec.reparameterisation.upper(),
                encoder_hidden_size=spec.hidden,
                encoder_num_layers=spec.layers,
                encoder_dropout=spec.dropout,
                **_in_front(spec, backbone),
            )
        case AdaptationPrompt():
            layers = spec.layers or backbone.layers
            return peft.AdaptionPromptConfig(
                target_modules="self_attn", adapter_len=spec.length, adapter_layers=layers
            )
        case _:
            assert_never(spec)


def _targets(spec: LoRA, backbone: Backbone) -> list[str]:
    """What peft puts a LoRA on: modules of these names, or where layers are chosen their paths.

    peft chooses layers by the last number in a path, which is not that of the layer everywhere.

    Raises:
        ValueError: As peft does, if no module in the chosen layers has such a name.
        BundleError: If layers are chosen of a backbone whose layers are not known.
    """
    if spec.layers is None:
        return list(spec.targets)
    if not backbone.blocks:
        raise BundleError(
            f"the layers of backbone {backbone.name} are not known one by one; leave the "
            "adapter's layers out."
        )
    upper = backbone.blocks[lowest_layer(spec, backbone.layers) :]
    inside = {id(module) for layer in upper for module in layer.modules()}
    ends = tuple(f".{name}" for name in spec.targets)
    paths = [
        path
        for path, module in backbone.model.named_modules()
        if id(module) in inside and f".{path}".endswith(ends)
    ]
    if not paths:
        raise ValueError(NO_MODULE)
    return paths


def _in_front(spec: Prefix | Prompt | PTuning, backbone: Backbone) -> dict[str, Any]:
    """What peft must know of tokens in front of each document."""
    shape = backbone.heads
    heads = shape.kv_heads if isinstance(spec, Prefix) else shape.heads
    width = heads * shape.head_dim if isinstance(spec, Prefix) else backbone.hidden_size
    return {
        "num_virtual_tokens": spec.virtual_tokens,
        "num_layers": backbone.layers,
        "num_attention_heads": heads,
        "token_dim": width,
        "num_transformer_submodules": 1,
    }
