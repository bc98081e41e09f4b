"""What a study asks: the comparisons that its recipe declares, and further ones."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.questions import Pair, Questions
from notetune.metrics.uncertainty import ModelRuns
from notetune.recipe.models import HYBRID, Model
from notetune.recipe.recipe import Recipe

TFIDF = ("tf-idf-all", "tf-idf")
"""What is asked against, the stronger first: the words of the other make a bundle."""
COLUMNS, PREVALENCE = "columns", "prevalence"
DOMAIN_ADAPTER, TASK_ADAPTER = "domain adapter", "task adapter"
Heads = Mapping[str, tuple[Any, ...]]
"""What a head reads of each backbone, and how it learns, by the backbone's name in the study."""


def questions(recipe: Recipe, tasks: tuple[str, ...] = ()) -> Questions:
    """All comparisons of a study on these tasks, and what the runs of its models are.

    The primary ones follow from the recipe alone, so they stand before anything is trained.
    """
    models = recipe.models
    heads = {name: _head(one) for name, one in recipe.studies.items()}
    by_label = {model.label: model for model in models}
    if recipe.evaluate.primary is None:
        primary = tuple(_default_family(models, heads))
    else:
        primary = tuple(
            Pair(one.model, one.against, one.task, _about(model, by_label[one.against], heads))
            for one in recipe.evaluate.primary
            for model in [by_label.get(one.model)]
        )
    further = [
        *_one_step_apart(models, heads),
        *_across_backbones(models),
        *_against_tfidf(models),
        *_against_its_parts(models),
    ]
    exploratory = tuple(dict.fromkeys(_pair(*two, heads) for two in further))
    return Questions(primary, exploratory, tuple(map(_runs_of, models)), tasks)


def _head(recipe: Recipe) -> tuple[Any, ...]:
    config = recipe.downstream
    how = config.features, config.max_pieces, config.class_weights
    return recipe.backbone, recipe.dtype, recipe.folder.prepared, *how


def fingerprint(asked: Questions) -> str:
    """Changes with the declared comparisons, and the tasks that they are asked of."""
    found = [(pair.model, pair.against, pair.task) for pair in asked.primary]
    found += [("", "", task) for task in asked.tasks]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def _pair(model: Model, against: Model, heads: Heads) -> Pair:
    return Pair(model.label, against.label, about=_about(model, against, heads))


def _about(model: Model | None, against: Model, heads: Heads) -> str:
    """What alone makes a model, or the best validated one (None), different from another."""
    if model is None or model.kind == "hybrid":
        word = HYBRID if model else "best validated"
        return word if _is_baseline(against, *TFIDF) else ""
    if (model.kind, against.kind) != ("variant", "variant"):
        return ""
    if model.backbone != against.backbone:
        are_heads = model.parts.trains_head_alone and against.parts.trains_head_alone
        if not are_heads or heads[model.backbone] != heads[against.backbone]:
            return ""
    if model.parts.has_domain and against.variant == model.parts.without_domain:
        return DOMAIN_ADAPTER
    return TASK_ADAPTER if against.variant == model.parts.without_task else ""


def _is_baseline(model: Model, *names: str) -> bool:
    return model.kind == "baseline" and model.variant in names


def _tfidf(models: Sequence[Model]) -> list[Model]:
    """TF-IDF of most words first."""
    found = [model for model in models if _is_baseline(model, *TFIDF)]
    return sorted(found, key=lambda model: TFIDF.index(model.variant))


def _default_family(models: Sequence[Model], heads: Heads) -> Iterator[Pair]:
    """One question for each step, the one against the strongest baseline, and the first hybrid.

    Each step is asked about where the fewest things train: the domain adapter under a head alone,
    the task adapter on the domain adapter, both with the first backbone that has such a pair.
    """
    steps = [(two, _pair(*two, heads)) for two in _one_step_apart(models, heads)]
    for subject, first_of in (
        (DOMAIN_ADAPTER, "domain-frozen"),
        (TASK_ADAPTER, "domain-frozen+task-lora"),
    ):
        of_subject = [(model, pair) for (model, _), pair in steps if pair.about == subject]
        found = sorted(of_subject, key=lambda one: one[0].variant != first_of)[:1]
        yield from (pair for _, pair in found)
    for tfidf in _tfidf(models)[:1]:
        if any(map(_is_candidate, models)):
            yield Pair(BEST_VALIDATED, tfidf.label, about=_about(None, tfidf, heads))
        hybrids = [model for model in models if model.kind == "hybrid"]
        yield from (_pair(hybrid, tfidf, heads) for hybrid in hybrids[:1])


def _one_step_apart(models: Sequence[Model], heads: Heads) -> Iterator[tuple[Model, Model]]:
    """Each model, and the one that lacks its domain adapter or its task adapter only.

    That is of the same entry of `backbones`; or, where nothing but heads train, else of the first
    whose heads read and learn the same.
    """
    variants = [model for model in models if model.kind == "variant"]
    for model in variants:
        lacking = [model.parts.without_domain] if model.parts.has_domain else []
        lacking += [model.parts.without_task] if model.parts.without_task else []
        for other in lacking:
            others = [one for one in variants if one.variant == other]
            same = [one for one in others if one.backbone == model.backbone]
            alike = [one for one in others if _about(model, one, heads)]
            yield from ((model, one) for one in (*same, *alike)[:1])


def _across_backbones(models: Sequence[Model]) -> Iterator[tuple[Model, Model]]:
    """Each variant, and the same one of the first backbone that has it."""
    first: dict[str, Model] = {}
    for model in models:
        if model.kind == "variant" and first.setdefault(model.variant, model) != model:
            yield model, first[model.variant]


def _against_tfidf(models: Sequence[Model]) -> Iterator[tuple[Model, Model]]:
    found = _tfidf(models)
    for number, tfidf in enumerate(found, start=1):
        others = [one for one in models if not _is_baseline(one, PREVALENCE)]
        yield from ((model, tfidf) for model in others if model not in found[:number])


def _against_its_parts(models: Sequence[Model]) -> Iterator[tuple[Model, Model]]:
    """Whether text adds to columns, and words to a model."""
    columns = [model for model in models if _is_baseline(model, COLUMNS)]
    for hybrid in models:
        if hybrid.stands_on:
            yield from ((hybrid, part) for part in (*columns, hybrid.stands_on))


def _is_candidate(model: Model) -> bool:
    """Whether it may be the best validated language model."""
    return model.kind in ("variant", "encoder")


def _runs_of(model: Model) -> ModelRuns:
    """Heads alone on the frozen backbone, and baselines, have one run that is always the same.

    A hybrid has the runs of the model that it stands on.
    """
    shares = None if model.is_deterministic else (model.stands_on or model).label
    if model.parts.has_domain:
        shares = f"step 1 of {model.backbone or 'the backbone'}"
    return ModelRuns(
        model.label,
        shares=shares,
        is_deterministic=model.is_deterministic,
        is_candidate=_is_candidate(model),
    )
