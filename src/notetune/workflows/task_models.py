"""What each model of step 2 is made of, and how it learns: variants of the backbone, encoders."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from notetune import runs
from notetune.model.adapters.files import read_adapter
from notetune.model.adapters.specs import AdapterSpec, Full, reserved_per_document
from notetune.model.backbone import Backbone
from notetune.model.backbone_folder import Dtype, backbone_fingerprint, resolve_backbone
from notetune.model.layers import Layers, Pooling
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.tokens.store import TokenStore, open_store
from notetune.train.settings import OptimConfig, ValidationConfig
from notetune.workflows import encoders, pretrain
from notetune.workflows.prepare import Prepared, TaskTable, documents_digest, open_corpus
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import row_of
from notetune.workflows.variants import Variant, variant_of

# What holds for encoders as for the backbone.
_PROTOCOL = (
    *ValidationConfig.model_fields,
    "class_weights",
    "max_pieces",
)


@dataclass(frozen=True)
class TaskModel:
    """A model of step 2 before its training.

    Attributes:
        name: What reports call it.
        backbone: Folder of its backbone, or the name of the shipped one.
        dtype: Type of the backbone's weights.
        store: The notes in the backbone's tokens.
        parts: Which adapters it has, and which of them train.
        adapter: Its task adapter, if it has one.
        pooling: How a document becomes one vector.
        layers: Those whose hidden states stand side by side in it.
        max_tokens: Longest document.
        max_pieces: Most documents of one note.
        tokens_per_row: Row budget.
        epochs: Passes over the training notes.
        optim: How adapters learn.
        domain_lr: Peak learning rate of the domain adapter, if it trains on.
        head_lr: Peak learning rate of the head beside adapters.
    """

    name: str
    backbone: str
    dtype: Dtype
    store: TokenStore
    parts: Variant
    adapter: AdapterSpec
    pooling: Pooling
    layers: Layers
    max_tokens: int
    max_pieces: int
    tokens_per_row: int
    epochs: float
    optim: OptimConfig
    domain_lr: float
    head_lr: float

    @property
    def as_it_starts(self) -> "TaskModel":
        """The model without what trains below its head."""
        return replace(self, parts=replace(self.parts, trains_domain=False, has_task=False))

    def steps_per_epoch(self, task: TaskTable) -> int:
        """Steps of one pass over the training notes of a task."""
        return math.ceil(len(task.rows("train")) / self.optim.targets_per_step)

    def step_count(self, task: TaskTable) -> int:
        """Steps of its training on a task, if it does not stop early."""
        return max(1, round(self.epochs * self.steps_per_epoch(task)))


def names(recipe: Recipe) -> list[str]:
    """All models of step 2: the variants of the backbone, then each encoder in its variants."""
    return list(recipe.models_of_step_2)


def task_model(
    recipe: Recipe, prepared: Prepared, name: str, store: TokenStore | None = None
) -> TaskModel:
    """The model of a name; an encoder must be ready, or its tokens given."""
    encoder = _encoder_of(recipe, name)
    if encoder is None:
        return _of_backbone(recipe, prepared, name)
    tokens = store or open_store(recipe.folder.encoder_tokens(encoder))
    return _of_encoder(recipe, name, encoder, tokens)


def _of_backbone(recipe: Recipe, prepared: Prepared, name: str) -> TaskModel:
    config, pieces = recipe.downstream, prepared.max_pieces(recipe)
    adapters = (recipe.pretrain.adapter, config.adapter)
    longest = prepared.store.max_tokens + sum(map(reserved_per_document, adapters))
    return TaskModel(
        name=name,
        backbone=recipe.backbone,
        dtype=recipe.dtype,
        store=prepared.store,
        parts=variant_of(name),
        adapter=config.adapter,
        pooling=config.features.pooling,
        layers=config.features.layers,
        max_tokens=prepared.store.max_tokens,
        max_pieces=pieces,
        tokens_per_row=row_of(config.tokens_per_row, pieces * longest),
        epochs=config.epochs,
        optim=config.optim,
        domain_lr=config.domain_lr or config.optim.peak_lr,
        head_lr=config.head_lr,
    )


def _of_encoder(recipe: Recipe, name: str, encoder: str, store: TokenStore) -> TaskModel:
    is_full, config = name == f"{encoder}+full", recipe.encoders
    pieces = encoders.max_pieces(recipe, store)
    return TaskModel(
        name=name,
        backbone=config.models[encoder],
        dtype=encoders.weights_dtype(recipe),
        store=store,
        parts=variant_of(name),
        adapter=Full() if is_full else config.adapter,
        pooling=config.features.pooling,
        layers=config.features.layers,
        max_tokens=store.max_tokens,
        max_pieces=pieces,
        tokens_per_row=row_of(config.tokens_per_row, pieces * store.max_tokens),
        epochs=config.epochs,
        optim=config.full_optim if is_full else config.lora_optim,
        domain_lr=0.0,
        head_lr=config.head_lr,
    )


def seeds(recipe: Recipe, name: str) -> range:
    """The runs of a model, by their seeds: one where no seed changes anything."""
    parts = variant_of(name)
    is_always_the_same = parts.trains_head_alone and not parts.has_domain
    return range(1 if is_always_the_same else recipe.seeds)


def inputs(recipe: Recipe, prepared: Prepared, name: str, seed: int) -> dict[str, Any]:
    """What a model depends on besides the task."""
    parts, is_encoder = variant_of(name), _encoder_of(recipe, name) is not None
    section = recipe.encoders if is_encoder else recipe.downstream
    unread = {"models"} if is_encoder else {"tasks", "domain_lr"}
    config = section.model_dump(mode="json", exclude={"variants", *unread})
    if parts.trains_head_alone:
        config = section.model_dump(mode="json", include={"features"})
    elif parts.trains_domain and recipe.downstream.domain_lr is not None:
        config["domain_lr"] = recipe.downstream.domain_lr
    protocol = {"class_weights", "max_pieces"} if parts.trains_head_alone else set(_PROTOCOL)
    return {
        **made_from(recipe, prepared, name, seed),
        "stage": "downstream",
        "config": config,
        "max_pieces": prepared.max_pieces(recipe),
        "protocol": recipe.downstream.model_dump(mode="json", include=protocol),
    }


def made_from(recipe: Recipe, prepared: Prepared, name: str, seed: int) -> dict[str, Any]:
    """The finished stages that a model stands on, and the type of its backbone's weights."""
    encoder = _encoder_of(recipe, name)
    if encoder is not None:
        tokens = upstream(recipe.folder.encoder_tokens(encoder))
        return {"upstream": tokens, "dtype": encoders.weights_dtype(recipe)}
    adapter = {}
    if variant_of(name).has_domain:
        adapter = {"adapter": upstream(recipe.folder.domain(seed))[1]}
    return {
        **adapter,
        "backbone": backbone_fingerprint(resolve_backbone(recipe.backbone)),
        "documents": documents_digest(prepared, of_step_1=False),
        "dtype": recipe.dtype,
    }


def is_ready(recipe: Recipe, prepared: Prepared, name: str, seed: int) -> bool:
    """Whether the stages that a model stands on are finished, from what the recipe says now."""
    if variant_of(name).has_domain:
        corpus = open_corpus(recipe, prepared)
        depends_on = pretrain.inputs(recipe, corpus, seed)
        return runs.was_made_from(recipe.folder.domain(seed), depends_on)
    encoder = _encoder_of(recipe, name)
    return encoder is None or runs.was_made_from(
        recipe.folder.encoder_tokens(encoder), encoders.inputs(recipe, prepared, encoder)
    )


def upstream(folder: Path) -> tuple[str, dict[str, str]]:
    """What a finished stage was made from, and the sha256 of its files."""
    manifest = runs.read_json(folder / runs.MANIFEST)
    return manifest["inputs"], manifest["files"]


def new_stack(recipe: Recipe, model: TaskModel, backbone: Backbone, seed: int) -> Stack:
    """A model's stack before its training; the domain adapter is that of the run."""
    layers = []
    if model.parts.has_domain:
        saved = read_adapter(recipe.folder.domain(seed))
        layers.append(Layer(DOMAIN, saved, is_trained=model.parts.trains_domain))
    if model.parts.has_task:
        layers.append(Layer(TASK, model.adapter, is_trained=True))
    return stack(backbone, layers, seed, predicts_tokens=False)


def _encoder_of(recipe: Recipe, name: str) -> str | None:
    encoder = name.rpartition("+")[0]
    return encoder if encoder in recipe.encoders.models else None
