"""What the folder of an adapter says, ours or one that peft wrote, without loading its weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from notetune import storage
from notetune.config import Config, parse
from notetune.errors import BundleError
from notetune.model.adapters.specs import (
    AdaptationPrompt,
    AdapterSpec,
    Full,
    LoRA,
    PeftSpec,
    Prefix,
    Prompt,
    PTuning,
)
from notetune.model.backbone_folder import WEIGHTS as BACKBONE_WEIGHTS
from notetune.model.backbone_folder import sha256_once

WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
CARD = "adapter.json"
FORMAT = 1
LEAD: Final = "base_model.model."
"""What the names of tensors in a file of peft begin with."""
_KINDS = ("LORA", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "ADAPTION_PROMPT")
_CHOOSE_LAYERS = ("exclude_modules", "layers_pattern", "layers_to_transform")
_PATTERNS = ("rank_pattern", "alpha_pattern")
_UNDERSTOOD = {
    # What a specification says too.
    "adapter_layers", "adapter_len", "encoder_dropout", "encoder_hidden_size",
    "encoder_num_layers", "encoder_reparameterization_type", "lora_alpha", "lora_dropout",
    "num_virtual_tokens", "prefix_projection", "prompt_tuning_init", "prompt_tuning_init_text",
    "alpha_pattern", "r", "rank_pattern", "target_modules", "use_dora", "use_rslora",
    # Which layers it is in, which the names of the tensors tell, and how a layer holds its weights.
    "exclude_modules", "fan_in_fan_out", "layers_pattern", "layers_to_transform",
    # The shape of the backbone, which the shapes of the tensors tell.
    "num_attention_heads", "num_layers", "num_transformer_submodules", "token_dim",
    # Where it comes from and how it began: nothing that a trained adapter needs.
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_weights", "peft_type",
    "peft_version", "revision", "runtime_config", "task_type", "tokenizer_kwargs",
    "tokenizer_name_or_path",
}  # fmt: skip
_HARMLESS = {"init_lora_weights": (True, False, "gaussian", "orthogonal", "eva")}
# What peft sets where nobody does, besides nothing at all.
_UNSET = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16}


class AdapterCard(Config):
    """What we write beside the files of peft."""

    format: int = FORMAT
    backbone: str
    spec: AdapterSpec
    sha256_of_tensors: str


@dataclass(frozen=True)
class AdapterFolder:
    """What a folder says of its adapter.

    Attributes:
        weights: The file of its tensors.
        backbone: Fingerprint of the backbone it was trained on; None if the folder does not say.
        digest: Of what it does, wherever it lies: of its weights and, unless they say it, its spec.
    """

    spec: AdapterSpec
    weights: Path
    backbone: str | None
    digest: str


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, of ours or of peft."""
    return (folder / CARD).is_file() or (folder / PEFT_CONFIG).is_file()


def read_folder(folder: Path) -> AdapterFolder:
    """Read what a folder says, never a pickle.

    Raises:
        BundleError: If it holds no adapter, a file is missing or damaged, or peft's settings
            cannot be followed.
    """
    if not is_adapter(folder):
        raise BundleError(
            f"{folder} is not an adapter folder: it needs {CARD} or peft's {PEFT_CONFIG}."
        )
    if (folder / CARD).is_file():
        card = _card(folder / CARD)
        weights = folder / (BACKBONE_WEIGHTS if isinstance(card.spec, Full) else WEIGHTS)
        return AdapterFolder(card.spec, weights, card.backbone, card.sha256_of_tensors)
    origin, weights = folder / PEFT_CONFIG, folder / WEIGHTS
    settings = storage.read_json(origin)
    if not isinstance(settings, dict):
        raise BundleError(f"{origin} is no configuration of peft; restore it from a copy.")
    names = _names(weights)
    spec = _from_peft(settings, names, str(origin))
    digest = storage.fingerprint([spec, sha256_once(weights)])
    return AdapterFolder(spec, weights, None, digest)


def _card(path: Path) -> AdapterCard:
    settings = storage.read_json(path)
    if not isinstance(settings, dict):
        raise BundleError(f"{path} is no card of an adapter; restore it from a copy.")
    if settings.get("format") != FORMAT:
        raise BundleError(
            f"{path.parent} has format {settings.get('format')}; this version reads {FORMAT}."
        )
    return parse(AdapterCard, settings, str(path))


def _names(path: Path) -> list[str]:
    """The names of the tensors in a file."""
    refuse_missing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return sorted(file.keys())
    except (OSError, SafetensorError):
        raise BundleError(f"{path} is damaged; restore it from a copy.") from None


def refuse_missing(path: Path) -> None:
    """Refuse an adapter without its safetensors.

    Raises:
        BundleError: If the file is missing.
    """
    if not path.is_file():
        raise BundleError(
            f"{path} is missing; an adapter's weights are read from safetensors only, never from a "
            "pickle: load an older adapter with peft and `save_pretrained` it again."
        )


def _from_peft(settings: Mapping[str, Any], names: Iterable[str], origin: str) -> PeftSpec:
    """The specification of a configuration that peft wrote, in the file `origin`.

    `names` are those of its tensors: they say which layers a rule chose on the model that it was
    made for.

    Raises:
        BundleError: If it is of another method, or sets something that would be lost.
        ConfigError: If a value is missing or wrong.
    """
    _refuse_unread(settings, origin)
    if settings["peft_type"] == "LORA":
        _refuse_whole(names, origin)
    get = settings.get
    tokens = {"virtual_tokens": get("num_virtual_tokens")}
    match get("peft_type"):
        case "LORA":
            values = {"rank": get("r"), "alpha": get("lora_alpha"), "dropout": get("lora_dropout")}
            scaled = {"rslora": get("use_rslora", False), "dora": get("use_dora", False)}
            others = {"ranks": get("rank_pattern") or {}, "alphas": get("alpha_pattern") or {}}
            values["targets"] = _targets(settings, names)
            return parse(LoRA, {**values, **scaled, **others}, origin)
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


def _targets(settings: Mapping[str, Any], names: Iterable[str]) -> Any:
    given = settings.get("target_modules")
    of_text = given if isinstance(given, list) else [given or ""]
    if not all(isinstance(name, str) for name in of_text):
        return given  # which is refused by its type
    if isinstance(given, list) and not any(settings.get(key) for key in _CHOOSE_LAYERS):
        return sorted(given)  # peft writes a set, in any order
    return sorted({name.removeprefix(LEAD).partition(".lora_")[0] for name in names})


def _entries(value: Any) -> Iterable[Any]:
    return value if isinstance(value, dict) else ()


def _refuse_whole(names: Iterable[str], origin: str) -> None:
    if whole := [name.removeprefix(LEAD) for name in names if ".lora_" not in name]:
        raise BundleError(
            f"{origin}: its weights hold {whole[0]} of the backbone itself, as peft saves where "
            "tokens were added. If none were, save the adapter again with save_embedding_layers="
            "False; else merge it into its backbone with peft and use the result as the backbone."
        )


def _refuse_unread(settings: Mapping[str, Any], origin: str) -> None:
    kind = settings.get("peft_type")
    if kind not in _KINDS:
        raise BundleError(f"{origin}: peft type {kind} is not one of {', '.join(_KINDS)}.")
    unread = [
        key
        for key, value in settings.items()
        if (
            key not in _UNDERSTOOD
            or (key in _PATTERNS and any(str(k)[:1] == "^" for k in _entries(value)))
        )
        and value != _UNSET.get(key)
        and value not in _HARMLESS.get(key, (None, False, [], {}))
    ]
    if unread:
        raise BundleError(
            f"{origin} sets {', '.join(sorted(unread))}, which notetune cannot follow; merge that "
            "adapter into its backbone with peft and use the result as the backbone."
        )
