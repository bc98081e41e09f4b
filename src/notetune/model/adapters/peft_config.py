"""Specifications to peft's configurations and back."""

from collections.abc import Mapping
from typing import Any, assert_never

import peft

from notetune.config import parse
from notetune.errors import BundleError
from notetune.model.adapters.specs import AdaptationPrompt, LoRA, PeftSpec, Prefix, Prompt, PTuning
from notetune.model.backbone import Backbone

_CONFIGS = {
    "LORA": peft.LoraConfig,
    "PREFIX_TUNING": peft.PrefixTuningConfig,
    "PROMPT_TUNING": peft.PromptTuningConfig,
    "P_TUNING": peft.PromptEncoderConfig,
    "ADAPTION_PROMPT": peft.AdaptionPromptConfig,
}
_UNDERSTOOD = {
    # What a specification says too.
    "adapter_layers", "adapter_len", "encoder_dropout", "encoder_hidden_size",
    "encoder_num_layers", "encoder_reparameterization_type", "lora_alpha", "lora_dropout",
    "num_virtual_tokens", "prefix_projection", "prompt_tuning_init", "prompt_tuning_init_text",
    "r", "target_modules", "use_dora", "use_rslora",
    # The shape of the backbone, which the shapes of the tensors tell.
    "num_attention_heads", "num_layers", "num_transformer_submodules", "token_dim",
    # Where it comes from and how it began: nothing that a trained adapter needs.
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_weights", "peft_type",
    "peft_version", "revision", "runtime_config", "task_type", "tokenizer_kwargs",
    "tokenizer_name_or_path",
}  # fmt: skip
_HARMLESS = {"init_lora_weights": (True, False, "gaussian", "orthogonal")}


def to_peft(spec: PeftSpec, backbone: Backbone) -> peft.PeftConfig:
    """The peft configuration of a specification on a backbone."""
    match spec:
        case LoRA():
            return peft.LoraConfig(
                r=spec.rank,
                lora_alpha=spec.alpha,
                lora_dropout=spec.dropout,
                target_modules=list(spec.targets),
                use_rslora=spec.rslora,
                use_dora=spec.dora,
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
            layers = spec.layers or backbone.shape.layers
            return peft.AdaptionPromptConfig(
                target_modules="self_attn", adapter_len=spec.length, adapter_layers=layers
            )
        case _:
            assert_never(spec)


def _in_front(spec: Prefix | Prompt | PTuning, backbone: Backbone) -> dict[str, Any]:
    """What peft must know of tokens in front of each document."""
    shape = backbone.shape
    heads = shape.kv_heads if isinstance(spec, Prefix) else shape.heads
    width = heads * shape.head_dim if isinstance(spec, Prefix) else shape.hidden
    return {
        "num_virtual_tokens": spec.virtual_tokens,
        "num_layers": shape.layers,
        "num_attention_heads": heads,
        "token_dim": width,
        "num_transformer_submodules": 1,
    }


def from_peft(settings: Mapping[str, Any], origin: str) -> PeftSpec:
    """The specification of a configuration that peft wrote; `origin` names its file.

    Raises:
        BundleError: If it is of another method, or sets something that would be lost.
        ConfigError: If a value is missing or wrong.
    """
    _refuse_unread(settings, origin)
    get = settings.get
    tokens = {"virtual_tokens": get("num_virtual_tokens")}
    match get("peft_type"):
        case "LORA":
            values = {"rank": get("r"), "alpha": get("lora_alpha"), "dropout": get("lora_dropout")}
            scaled = {"rslora": get("use_rslora", False), "dora": get("use_dora", False)}
            targets = get("target_modules")  # peft writes a set, in any order
            values["targets"] = sorted(targets) if isinstance(targets, list) else targets
            return parse(LoRA, {**values, **scaled}, origin)
        case "PREFIX_TUNING":
            projection = get("prefix_projection", False)
            hidden = get("encoder_hidden_size") if projection else None
            return parse(Prefix, {**tokens, "projection": projection, "hidden": hidden}, origin)
        case "PROMPT_TUNING":
            is_text = get("prompt_tuning_init") == "TEXT"
            start = {"init": "text", "text": get("prompt_tuning_init_text")} if is_text else {}
            return parse(Prompt, {**tokens, **start}, origin)
        case "P_TUNING":
            network = str(get("encoder_reparameterization_type")).lower()
            values = {"reparameterisation": network, "hidden": get("encoder_hidden_size")}
            lstm = {"layers": get("encoder_num_layers"), "dropout": get("encoder_dropout")}
            more = lstm if network == "lstm" else {}
            return parse(PTuning, {**tokens, **values, **more}, origin)
        case _:
            values = {"length": get("adapter_len"), "layers": get("adapter_layers")}
            return parse(AdaptationPrompt, values, origin)


def _refuse_unread(settings: Mapping[str, Any], origin: str) -> None:
    kind = settings.get("peft_type")
    if kind not in tuple(_CONFIGS):  # it may be of any type
        raise BundleError(f"{origin}: peft type {kind} is not one of {', '.join(_CONFIGS)}.")
    defaults = _CONFIGS[kind]().to_dict()
    unread = [
        key
        for key, value in settings.items()
        if key not in _UNDERSTOOD
        and value != defaults.get(key)
        and value not in _HARMLESS.get(key, (None, False, [], {}))
    ]
    if unread:
        raise BundleError(
            f"{origin} sets {', '.join(sorted(unread))}, which notetune cannot follow; merge that "
            "adapter into its backbone with peft and use the result as the backbone."
        )
