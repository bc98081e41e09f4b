"""The variants of the paper's Table 3: which adapters a model has, and which of them train."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

VariantName = Literal[
    "head-only",
    "task-lora",
    "domain-frozen",
    "domain-frozen+task-lora",
    "domain-trainable",
    "domain-trainable+task-lora",
    "full-domain",
]


@dataclass(frozen=True)
class Variant:
    """Which adapters a model has besides its head, and which of them train with the head.

    Attributes:
        has_domain: Whether it stands on step 1.
        trains_domain: Whether what step 1 trained trains on.
        is_full: Whether step 1 trained the whole backbone, for a variant that is of that alone.
    """

    has_domain: bool
    trains_domain: bool
    has_task: bool
    is_full: bool = False

    @property
    def trains_head_alone(self) -> bool:
        """Whether the hidden states stay the same throughout training."""
        return not (self.trains_domain or self.has_task)

    @property
    def without_domain(self) -> VariantName:
        """The variant that learns the task as this one does, but has no step 1 behind it.

        A domain adapter that trains on is an adapter of the task too, so without step 1 it is a
        task adapter.
        """
        return "task-lora" if self.has_task or self.trains_domain else "head-only"

    @property
    def without_task(self) -> VariantName | None:
        """The variant that lacks the task adapter only; None if there is no such adapter."""
        if not self.has_task:
            return None
        without = replace(self, has_task=False)
        return next((name for name, variant in VARIANTS.items() if variant == without), None)


VARIANTS: dict[VariantName, Variant] = {
    "head-only": Variant(has_domain=False, trains_domain=False, has_task=False),
    "task-lora": Variant(has_domain=False, trains_domain=False, has_task=True),
    "domain-frozen": Variant(has_domain=True, trains_domain=False, has_task=False),
    "domain-frozen+task-lora": Variant(has_domain=True, trains_domain=False, has_task=True),
    "domain-trainable": Variant(has_domain=True, trains_domain=True, has_task=False),
    "domain-trainable+task-lora": Variant(has_domain=True, trains_domain=True, has_task=True),
    "full-domain": Variant(has_domain=True, trains_domain=False, has_task=False, is_full=True),
}

HYBRID = "hybrid"
Kind = Literal["baseline", "variant", "encoder", "hybrid"]
_IN_HYBRIDS = (
    "domain-frozen+task-lora",
    "domain-trainable+task-lora",
    "domain-trainable",
    "task-lora",
    "domain-frozen",
    "full-domain",
    "lora",
    "full",
    "head-only",
)
"""Which model a hybrid joins where that is left to us: the first of them that there is."""


@dataclass(frozen=True)
class Model:
    """A model that a study scores.

    Attributes:
        kind: A baseline, a variant on a backbone, an encoder, or a hybrid.
        variant: The baseline, the variant, how the encoder trains, or `hybrid`.
        backbone: The backbone whose run folder holds it; "" in a study of one.
        encoder: The encoder that it is, or that a hybrid stands on; else "".
        stands_on: The model that a hybrid joins with words and columns.
        is_domain_taken: Whether its domain adapter is one that was brought, as it is.
    """

    kind: Kind
    variant: str
    backbone: str = ""
    encoder: str = ""
    stands_on: "Model | None" = None
    is_domain_taken: bool = False

    @property
    def name(self) -> str:
        """What its folder and its bundle are called."""
        return f"{self.encoder}+{self.variant}" if self.encoder else self.variant

    @property
    def label(self) -> str:
        """What reports call it; a baseline or an encoder has no backbone of the study."""
        is_of_backbone = self.backbone and self.kind != "baseline" and not self.encoder
        return f"{self.backbone}/{self.name}" if is_of_backbone else self.name

    @property
    def parts(self) -> Variant:
        """Its adapters, or those of what a hybrid stands on; a baseline has none."""
        if self.stands_on:
            return self.stands_on.parts
        if self.kind == "encoder" and self.variant != "head-only":
            return VARIANTS["task-lora"]
        return VARIANTS.get(self.variant, VARIANTS["head-only"])  # type: ignore[call-overload, no-any-return]

    @property
    def is_deterministic(self) -> bool:
        """Whether one run is all there is: no seed changes anything."""
        return self.parts.trains_head_alone and (self.is_domain_taken or not self.parts.has_domain)


def hybrids_of(models: Sequence[Model], given: str | None) -> Iterator[Model]:
    """A hybrid on the model of the given name; with `auto` one of the backbone and each encoder."""
    fitting = [m for m in models if m.kind != "baseline" and given in ("auto", m.name)]
    joined: dict[str, Model] = {}
    for model in sorted(fitting, key=lambda one: _IN_HYBRIDS.index(one.variant)):
        joined.setdefault(model.encoder, model)
    for encoder in dict.fromkeys(model.encoder for model in models if model.encoder in joined):
        part = joined[encoder]
        yield Model("hybrid", HYBRID, part.backbone, encoder, part, part.is_domain_taken)


def name_in_study(backbone: str, name: str) -> str:
    """What a thing of a backbone is called in a study of several: after its backbone."""
    return f"{backbone}/{name}" if backbone else name
