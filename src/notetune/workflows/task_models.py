"""What each model of step 2 is made of, and how it learns: variants of the backbone, encoders."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from notetune import runs
from notetune.model.adapters.files import read_adapter
from notetune.model.adapters.specs import AdapterSpec, Full
from notetune.model.backbone import Backbone, Dtype
from notetune.model.heads import Pooling
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.tokens.store import TokenStore
from notetune.train.choice import ValidationConfig
from notetune.train.optim import OptimConfig
from notetune.workflows import encoders, pretrain
from notetune.workflows.prepare import Prepared, TaskTable, open_corpus
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import MASKED
from notetune.workflows.variants import Variant, variant_of

# What holds for encoders as for the backbone.
_PROTOCOL = (
    *ValidationConfig.model_fields,
    "class_weights",
    "max_pieces",
    "head_first",
    "head_epochs",
    "head_optim",
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
        max_tokens: Longest document.
        max_pieces: Most documents of one note.
        tokens_per_row: Row budget.
        epochs: Passes over the training notes.
        optim: How adapters learn, or the head where it learns alone.
        domain_lr: Peak learning rate of the domain adapter, if it trains on.
        head_lr: Peak learning rate of the head beside adapters.
        as_it_starts: The model without what trains below the head; None where only the head does.
    """

    name: str
    backbone: str
    dtype: Dtype
    store: TokenStore
    parts: Variant
    adapter: AdapterSpec
    pooling: Pooling
    max_tokens: int
    max_pieces: int
    tokens_per_row: int
    epochs: float
    optim: OptimConfig
    domain_lr: float
    head_lr: float
    as_it_starts: "TaskModel | None" = None

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
        model = _of_backbone(recipe, prepared, name)
    else:
        model = _of_encoder(
            recipe, name, encoder, store or encoders.open_tokens(recipe, prepared, encoder)
        )
    config, parts = recipe.downstream, replace(model.parts, trains_domain=False, has_task=False)
    as_it_starts = replace(
        model,
        parts=parts,
        epochs=config.head_epochs,
        optim=config.head_optim,
        head_lr=config.head_optim.peak_lr,
    )
    if model.parts.trains_head_alone:
        return as_it_starts
    return replace(model, as_it_starts=as_it_starts)


def _of_backbone(recipe: Recipe, prepared: Prepared, name: str) -> TaskModel:
    config = recipe.downstream
    return TaskModel(
        name=name,
        backbone=recipe.backbone,
        dtype=recipe.dtype,
        store=prepared.store,
        parts=variant_of(name),
        adapter=config.adapter,
        pooling=config.pooling,
        max_tokens=recipe.prepare.max_tokens,
        max_pieces=config.max_pieces,
        tokens_per_row=config.tokens_per_row,
        epochs=config.epochs,
        optim=config.optim,
        domain_lr=config.domain_lr or config.optim.peak_lr,
        head_lr=config.head_lr,
    )


def _of_encoder(recipe: Recipe, name: str, encoder: str, store: TokenStore) -> TaskModel:
    is_full, config = name == f"{encoder}+full", recipe.encoders
    return TaskModel(
        name=name,
        backbone=encoders.backbone_folder(recipe, encoder),
        dtype=encoders.weights_dtype(recipe),
        store=store,
        parts=variant_of(name),
        adapter=Full() if is_full else config.adapter,
        pooling=config.pooling,
        max_tokens=encoders.max_tokens(recipe, encoder),
        max_pieces=recipe.downstream.max_pieces,
        tokens_per_row=config.tokens_per_row,
        epochs=config.epochs,
        optim=config.full_optim if is_full else config.lora_optim,
        domain_lr=0.0,
        head_lr=config.head_lr,
    )


def inputs(recipe: Recipe, prepared: Prepared, name: str) -> dict[str, Any]:
    """What a model depends on besides task and seed."""
    if _encoder_of(recipe, name) is None:
        unread = {"variants", "seeds", "tasks"}
        if recipe.downstream.domain_lr is None or not variant_of(name).trains_domain:
            unread.add("domain_lr")
        config = recipe.downstream.model_dump(mode="json", exclude=unread)
    else:
        config = recipe.encoders.model_dump(mode="json", exclude={"models", "variants", "mlm"})
    return {
        **made_from(recipe, prepared, name),
        "stage": "downstream",
        "config": config,
        "protocol": recipe.downstream.model_dump(mode="json", include=set(_PROTOCOL)),
    }


def made_from(recipe: Recipe, prepared: Prepared, name: str) -> dict[str, Any]:
    """The finished stages that a model stands on, and the type of its backbone's weights."""
    encoder, dtype = _encoder_of(recipe, name), recipe.dtype
    if encoder is not None:
        folder, dtype = encoders.stage_folder(recipe, encoder), encoders.weights_dtype(recipe)
    else:
        folder = recipe.folder.domain if variant_of(name).has_domain else prepared.folder
    of_tasks = {}
    if recipe.corpus is not recipe:  # else the domain adapter depends on the notes of the tasks
        of_tasks = {"prepared": upstream(prepared.folder)}
    return {**of_tasks, "upstream": upstream(folder), "dtype": dtype}


def is_ready(recipe: Recipe, prepared: Prepared, name: str) -> bool:
    """Whether the stages that a model stands on are finished, from what the recipe says now."""
    if variant_of(name).has_domain:
        corpus = open_corpus(recipe, prepared)
        return runs.was_made_from(recipe.folder.domain, pretrain.inputs(recipe, corpus))
    encoder = _encoder_of(recipe, name)
    return encoder is None or runs.was_made_from(
        encoders.stage_folder(recipe, encoder), encoders.inputs(recipe, prepared, encoder)
    )


def pretrained_folder(recipe: Recipe, name: str) -> Path | None:
    """What the notes of step 1 trained below a model: a domain adapter, or an encoder from here."""
    if variant_of(name).has_domain:
        return recipe.folder.domain
    encoder = _encoder_of(recipe, name)
    if encoder is not None and recipe.encoders.models[encoder] == MASKED:
        return recipe.folder.encoder(encoder)
    return None


def upstream(folder: Path) -> tuple[str, dict[str, str]]:
    """What a finished stage was made from, and the sha256 of its files."""
    manifest = runs.read_json(folder / runs.MANIFEST)
    return manifest["inputs"], manifest["files"]


def new_stack(recipe: Recipe, model: TaskModel, backbone: Backbone, seed: int) -> Stack:
    """A model's stack before its training; the domain adapter comes from the run folder."""
    layers = []
    if model.parts.has_domain:
        saved = read_adapter(recipe.folder.domain)
        layers.append(Layer(DOMAIN, saved, is_trained=model.parts.trains_domain))
    if model.parts.has_task:
        layers.append(Layer(TASK, model.adapter, is_trained=True))
    return stack(backbone, layers, seed, predicts_tokens=False)


def _encoder_of(recipe: Recipe, name: str) -> str | None:
    encoder = name.rpartition("+")[0]
    return encoder if encoder in recipe.encoders.models else None
