"""The variants of the paper's Table 3: which adapters a model has, and which of them train."""

from dataclasses import dataclass
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
    """Which adapters a model has besides its head, and which of them train with the head."""

    has_domain: bool
    trains_domain: bool
    has_task: bool

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
        if not self.has_domain:
            return "head-only"
        return "domain-trainable" if self.trains_domain else "domain-frozen"


VARIANTS: dict[VariantName, Variant] = {
    "head-only": Variant(has_domain=False, trains_domain=False, has_task=False),
    "task-lora": Variant(has_domain=False, trains_domain=False, has_task=True),
    "domain-frozen": Variant(has_domain=True, trains_domain=False, has_task=False),
    "domain-frozen+task-lora": Variant(has_domain=True, trains_domain=False, has_task=True),
    "domain-trainable": Variant(has_domain=True, trains_domain=True, has_task=False),
    "domain-trainable+task-lora": Variant(has_domain=True, trains_domain=True, has_task=True),
    # A head on the fully fine-tuned backbone; only for `pretrain.adapter` of kind full.
    "full-domain": Variant(has_domain=True, trains_domain=False, has_task=False),
}

HYBRID = "hybrid"
_TASK_ALONE = Variant(has_domain=False, trains_domain=False, has_task=True)


def variant_of(model: str) -> Variant:
    """The parts of a model of step 2: one of `VARIANTS`, or an encoder such as `bert+full`."""
    if model.endswith("+head-only"):
        return VARIANTS["head-only"]
    return next((parts for name, parts in VARIANTS.items() if name == model), _TASK_ALONE)


def name_in_study(backbone: str, name: str) -> str:
    """What a thing is called in a study: after its backbone, where there are several."""
    return f"{backbone}/{name}" if backbone else name


def model_in_study(backbone: str, model: str) -> str:
    """What a model is called in a study; a baseline or an encoder has no backbone of the study."""
    return name_in_study(backbone, model) if model in {*VARIANTS, HYBRID} else model
