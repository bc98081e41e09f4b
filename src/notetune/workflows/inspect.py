"""What the trainings of a recipe need, from the backbone's config.json alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from notetune.model.adapters.files import SavedAdapter
from notetune.model.adapters.specs import AdapterSpec, Full, Prompt
from notetune.model.backbone import Backbone, outline_backbone
from notetune.model.batch import PackedBatch
from notetune.model.layers import Pooling
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.train.cost import StepCost, matrix_rate, step_cost
from notetune.workflows import encoders, methods
from notetune.workflows.intake import assumed_longest
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import TokensPerRow, row_of
from notetune.workflows.training import peak_memory_mib, restart_peak_memory
from notetune.workflows.variants import VARIANTS

STEP_1 = "pretrain · "


@dataclass(frozen=True)
class TrainingNeeds:
    """What one training needs.

    Attributes:
        name: Stage with its method, or variant of step 2.
        trainable_parameters: Of its adapters; a head adds `Needs.head_per_class` per class.
        total_parameters: Of backbone and adapters.
        memory_mib: Highest memory of a step.
        flops_per_token: Operations of matrix products per token.
        least_seconds: For a million tokens, if all of them ran at `Needs.matrix_rate`.
    """

    name: str
    trainable_parameters: int
    total_parameters: int
    memory_mib: float
    flops_per_token: float
    least_seconds: float


@dataclass(frozen=True)
class Needs:
    """The trainings of a recipe, and what the estimates are based on.

    Attributes:
        backbone: Its name.
        parameters: Of the backbone.
        dtype: Type of its weights.
        device: Where the recipe would compute.
        matrix_rate: Operations per second that a large matrix product just reached there.
        document_tokens: Tokens of each document of the row that was counted.
        head_per_class: Parameters of a head per class.
        trainings: Step 1 by method, then the variants of step 2.
    """

    backbone: str
    parameters: int
    dtype: str
    device: str
    matrix_rate: float
    document_tokens: int
    head_per_class: int
    trainings: tuple[TrainingNeeds, ...]


def needs(recipe: Recipe) -> Needs:
    """Count parameters, memory and operations of every training of a recipe.

    One step of each runs on the meta device, with the code of the real step, on a row full of the
    longest documents. Its memory is that of all tensors alive at the worst moment (weights,
    adapters, activations, gradients, optimizer state and temporaries); on a CPU, that of this
    process without any is added. Not counted is what a kernel uses within one operation, and what
    an allocator keeps: glibc's heap has been seen to grow to twice what was alive. Where the recipe
    leaves `max_tokens` to the notes, the longest documents are as long as they can get.

    Raises:
        BackboneError: If the folder has no usable configuration.
    """
    device = recipe.torch_device
    backbone = outline_backbone(recipe.backbone, recipe.dtype)
    parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    restart_peak_memory()
    process_mib = peak_memory_mib() if device.type == "cpu" else 0.0
    rate = matrix_rate(device, recipe.dtype)
    trainings, longest = [], assumed_longest(recipe)
    for name, model, cost in steps(recipe, longest):
        per_token = cost.flops / cost.tokens
        trainings.append(
            TrainingNeeds(
                name,
                model.trainable_count,
                model.total_count,
                process_mib + cost.peak_bytes / 2**20,
                per_token,
                1e6 * per_token / rate,
            )
        )
    return Needs(
        backbone.name,
        parameters,
        recipe.dtype,
        str(device),
        rate,
        longest,
        backbone.hidden_size + 1,
        tuple(trainings),
    )


def steps(recipe: Recipe, longest: int) -> Iterator[tuple[str, Stack, StepCost]]:
    """A step of every training: what it is called, its model and its cost.

    An encoder that the recipe makes itself is left out where it learns to guess hidden tokens.

    Args:
        recipe: What to do.
        longest: Tokens of a document.
    """
    domain: SavedAdapter | None = None
    for name, one in methods.recipes(recipe).items():
        backbone = outline_backbone(recipe.backbone, recipe.dtype)
        adapter = without_text(one.pretrain.adapter)
        model = stack(backbone, [Layer(DOMAIN, adapter, is_trained=True)])
        lengths = _lengths(longest, model, recipe.pretrain.tokens_per_row)
        yield f"{STEP_1}{name}", model, step_cost(model, model.summed_token_loss, lengths)
        domain = domain or _as_saved(model)
    for variant in recipe.downstream.variants:
        parts = VARIANTS[variant]
        layers = []
        if parts.has_domain and domain:
            layers.append(Layer(DOMAIN, domain, is_trained=parts.trains_domain))
        if parts.has_task:
            layers.append(Layer(TASK, recipe.downstream.adapter, is_trained=True))
        backbone = outline_backbone(recipe.backbone, recipe.dtype)
        model = stack(backbone, layers, predicts_tokens=False)
        lengths = _lengths(longest, model, recipe.downstream.tokens_per_row)
        loss = _features_sum(model, recipe.downstream.features.pooling)
        yield variant, model, step_cost(model, loss, lengths, trains=not parts.trains_head_alone)
    for name in recipe.encoders.models:
        for encoder_variant in recipe.encoders.variants:
            adapter = Full() if encoder_variant == "full" else recipe.encoders.adapter
            trains = encoder_variant != "head-only"
            layers = [Layer(TASK, adapter, is_trained=True)] if trains else []
            outline = encoders.outline(recipe, name)
            model = stack(outline, layers)
            most = min(longest, outline.max_positions)
            lengths = _lengths(most, model, recipe.encoders.tokens_per_row)
            loss = _features_sum(model, recipe.encoders.features.pooling)
            yield f"{name}+{encoder_variant}", model, step_cost(model, loss, lengths, trains=trains)


def forward_flops(backbone: Backbone, pooling: Pooling, document_tokens: int) -> float:
    """Operations per token to score a document with a backbone that has no adapters."""
    model = stack(backbone)
    cost = step_cost(model, _features_sum(model, pooling), (document_tokens,), trains=False)
    return cost.flops / cost.tokens


def _as_saved(model: Stack) -> SavedAdapter:
    """The domain adapter as step 2 reads it: without a network that it learnt through."""
    adapter = model.adapters[DOMAIN]
    return SavedAdapter(adapter.spec, adapter.tensors(), model.backbone.fingerprint)


def _lengths(longest: int, model: Stack, tokens_per_row: TokensPerRow) -> tuple[int, ...]:
    size = longest + model.reserved_per_document
    return (longest,) * max(1, row_of(tokens_per_row, size) // size)


def _features_sum(model: Stack, pooling: Pooling) -> Callable[[PackedBatch], Tensor]:
    """A loss on the pooled features; a head is too small to count."""
    return lambda batch: model.features(batch, pooling).sum()


def without_text(adapter: AdapterSpec) -> AdapterSpec:
    """The same adapter at the same cost, but no tokenizer is needed to start it."""
    if isinstance(adapter, Prompt):
        return adapter.model_copy(update={"init": "random"})
    return adapter
