"""The clocks of a dry run: how many operations a second a card makes, or this machine."""

from collections.abc import Callable

from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import Dtype
from notetune.model.device import computed_in, torch_device
from notetune.model.nf4 import UNPACKING_BYTES
from notetune.recipe.recipe import Recipe
from notetune.study.counts import CountedStep
from notetune.train.gpus import ASSUMED_SHARE, CAPABILITY, GPUS
from notetune.train.step_cost import step_seconds


def clock(recipe: Recipe, gpu: str | None) -> tuple[str, float | None, str]:
    """Its name, its memory, and how its rate is known."""
    if gpu is None:
        rate = "their rate measured on one row of each backbone on this machine"
        return str(torch_device(recipe.device)), None, rate
    card = GPUS[gpu]
    rate = f"{card.source}; {ASSUMED_SHARE:.0%} of the card's highest rate, which is assumed"
    return gpu, card.memory_gib, rate


def rate_on(gpu: str, step: CountedStep) -> float:
    """Operations per second on a card."""
    backbone, card, operations = step.model.backbone, GPUS[gpu], step.cost.flops
    dtype = computed_in(backbone.dtype, CAPABILITY)  # weights that train are float32
    seconds = operations / (ASSUMED_SHARE * card.rates[dtype])
    if backbone.dtype == "nf4":
        passes = 1 + step.trains + step.recomputes
        seconds += passes * UNPACKING_BYTES * step.model.total_count / card.bandwidth
    return operations / seconds


def rate_here() -> Callable[[CountedStep], float]:
    """Operations per second on this machine: of the first step of each backbone in each type."""
    found: dict[tuple[str, Dtype], float] = {}

    def rate(step: CountedStep) -> float:
        place, weights = step.job.place, (step.job.place.backbone, step.dtype)
        if weights not in found:
            backbone = load_backbone(place.backbone, step.dtype, torch_device(place.device))
            model = step.model_on(backbone)
            seconds = step_seconds(model, step.loss_of(model), step.lengths, trains=step.trains)
            found[weights] = step.cost.flops / seconds
        return found[weights]

    return rate
