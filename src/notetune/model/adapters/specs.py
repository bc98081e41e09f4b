"""The adapter methods as values. The union is closed: a `match` over it must name every method."""

import math
import re
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, assert_never

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from notetune.config import Config

_Dropout = Annotated[float, Field(ge=0, lt=1)]

_Size = Annotated[PositiveInt, Field(le=65_536)]

TopShare = Literal["top quarter", "top third", "top half"]
_PARTS: dict[TopShare, int] = {"top quarter": 4, "top third": 3, "top half": 2}


class LoRA(Config):
    """Low-rank additions to linear layers.

    Source: Hu et al. 2021 (arXiv 2106.09685); rslora: Kalajdzievski 2023 (arXiv 2312.03732);
        dora: Liu et al. 2024 (arXiv 2402.09353).
    """

    kind: Literal["lora"] = "lora"
    rank: _Size = 8
    """Rank of each addition."""
    alpha: PositiveFloat = 16
    """The addition is scaled by alpha / rank."""
    dropout: _Dropout = 0.0
    """Dropout on the input of the addition, while it trains."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers that get one."""
    layers: _Size | TopShare | None = None
    """The topmost layers of the backbone that have them, a number or a share; all by default."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    dora: bool = False
    """Learn the length of each weight column apart from its direction."""
    ranks: dict[str, PositiveInt] = Field(default_factory=dict)
    """Other ranks, by the name of a layer as in `targets`, or an expression for its end."""
    alphas: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Other alphas, by the same."""
    AS_BEFORE: ClassVar[dict[str, Any]] = {"ranks": {}, "alphas": {}, "layers": None}

    @field_validator("ranks", "alphas")
    @classmethod
    def _name_layers(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            try:
                re.compile(name)
            except re.error:
                raise ValueError(f"{name} is no name of layers and no expression") from None
        return values


class Prefix(Config):
    """Keys and values in front of each document, in every layer.

    Source: Li and Liang 2021 (arXiv 2101.00190).
    """

    kind: Literal["prefix"] = "prefix"
    virtual_tokens: _Size = 20
    projection: bool = False
    """Learn them through a two-layer network, which is not kept after training."""
    hidden: _Size | None = None
    """Width of that network; by default that of the keys."""

    @model_validator(mode="after")
    def _has_network(self) -> "Prefix":
        if self.hidden is not None and not self.projection:
            raise ValueError("hidden is the width of the projection; set projection: true")
        return self


class Prompt(Config):
    """Embeddings in front of each document.

    Source: Lester et al. 2021 (arXiv 2104.08691).
    """

    kind: Literal["prompt"] = "prompt"
    virtual_tokens: _Size = 15
    init: Literal["random", "text"] = "random"
    """Start from random embeddings, or from those of `text`, repeated or cut to fit."""
    text: str = "Finish this clinical note:"

    @model_validator(mode="after")
    def _has_text(self) -> "Prompt":
        if self.init == "text" and not self.text.strip():
            raise ValueError("init: text needs a text; give one, or leave the key out")
        return self


class PTuning(Config):
    """Embeddings in front of each document, learned through a network that is not kept.

    Source: Liu et al. 2021 (arXiv 2103.10385).
    """

    kind: Literal["p-tuning"] = "p-tuning"
    virtual_tokens: _Size = 20
    reparameterisation: Literal["mlp", "lstm"] = "mlp"
    hidden: _Size = 256
    """Width of the network."""
    layers: _Size = 2
    """Layers of an LSTM."""
    dropout: _Dropout = 0.0
    """Dropout between the layers of an LSTM, while it trains."""

    @model_validator(mode="after")
    def _fits_network(self) -> "PTuning":
        if self.reparameterisation == "mlp" and (self.layers, self.dropout) != (2, 0):
            raise ValueError(
                "layers and dropout are read for reparameterisation: lstm only; leave them out"
            )
        return self


class AdaptationPrompt(Config):
    """Prompts of the topmost layers, attended to apart and added through a gate that starts at 0.

    Source: Zhang et al. 2023, LLaMA-Adapter (arXiv 2303.16199).
    """

    kind: Literal["adaptation-prompt"] = "adaptation-prompt"
    length: _Size = 10
    """Virtual tokens of each layer's prompt."""
    layers: _Size | None = None
    """How many of the topmost layers get one; all by default."""


class Full(Config):
    """Every parameter of the backbone; no adapter, but handled like one."""

    kind: Literal["full"] = "full"


PeftSpec = LoRA | Prefix | Prompt | PTuning | AdaptationPrompt
AdapterSpec = Annotated[PeftSpec | Full, Field(discriminator="kind")]


class Traits(NamedTuple):
    """What the rest of the product must know of a method."""

    row_tokens: int = 0
    """Tokens of a row that it takes in front of each document."""
    positions: int = 0
    """Positions that it takes there."""
    reads_weights: bool = False
    """Whether it trains or reads weights of linear layers, which quantised ones hide."""
    is_backbone: bool = False
    """Whether it is the weights themselves, so that it is saved as a backbone."""
    is_in_attention: bool = False
    """Whether it adds to what attention reads, which must be ours then."""
    merges: bool = False
    """Whether it can be added to the weights of its backbone."""


def traits(spec: AdapterSpec) -> Traits:
    """The traits of a method with its settings."""
    match spec:
        case LoRA():
            return Traits(reads_weights=spec.dora, merges=True)
        case Prefix():
            return Traits(positions=spec.virtual_tokens, is_in_attention=True)
        case Prompt() | PTuning():
            return Traits(row_tokens=spec.virtual_tokens, positions=spec.virtual_tokens)
        case AdaptationPrompt():
            return Traits(is_in_attention=True)
        case Full():
            return Traits(reads_weights=True, is_backbone=True, merges=True)
        case _:
            assert_never(spec)


def lowest_layer(spec: AdapterSpec, layers: int) -> int:
    """The lowest of so many layers of a backbone that a method acts in, counted from 0.

    Example:
        >>> lowest_layer(LoRA(layers="top quarter"), 30), lowest_layer(LoRA(), 30)
        (22, 0)
    """
    wanted = spec.layers if isinstance(spec, LoRA | AdaptationPrompt) else None
    if wanted is None:
        return 0
    count = math.ceil(layers / _PARTS[wanted]) if isinstance(wanted, str) else wanted
    return max(0, layers - count)
