"""What a study asks: the comparisons that its recipe declares, and further ones."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.questions import Pair, Questions
from notetune.metrics.uncertainty import ModelRuns
from notetune.workflows.recipe import Recipe
from notetune.workflows.variants import (
    HYBRID,
    VARIANTS,
    VariantName,
    model_in_study,
    variant_of,
)

PREVALENCE, TFIDF, COLUMNS = "prevalence", "tf-idf", "columns"
_NO_CANDIDATES = (PREVALENCE, TFIDF, "tf-idf-cut", COLUMNS)
DOMAIN_ADAPTER, TASK_ADAPTER = "domain adapter", "task adapter"


def questions(recipe: Recipe) -> Questions:
    """All comparisons of a study, and what the runs of its models are.

    The primary ones follow from the recipe alone, so they stand before anything is trained.
    """
    models = recipe.models
    hybrids = {
        model_in_study(backbone, name): model_in_study(backbone, model)
        for backbone, one in recipe.studies.items()
        for name, model in one.hybrids.items()
    }
    declared = recipe.evaluate.primary
    if declared is None:
        primary = tuple(_default_family(models, list(hybrids)))
    else:
        primary = tuple(
            Pair(one.model, one.against, one.task, about(one.model, one.against))
            for one in declared
        )
    everywhere = {(pair.model, pair.against) for pair in primary if pair.task is None}
    further = [
        *_one_step_apart(models),
        *_across_backbones(models),
        *_against_tfidf(models),
        *_against_its_parts(models, hybrids),
    ]
    exploratory = tuple(
        Pair(*pair, about=about(*pair)) for pair in dict.fromkeys(further) if pair not in everywhere
    )
    baselines: set[str] = {*next(iter(recipe.studies.values())).baselines}
    runs = tuple(_runs_of(model, hybrids.get(model, model), baselines) for model in models)
    return Questions(primary, exploratory, runs)


def fingerprint(primary: Sequence[Pair]) -> str:
    """Changes with the declared comparisons."""
    found = [(pair.model, pair.against, pair.task) for pair in primary]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def about(model: str, against: str) -> str:
    """What makes two models different, if that is one thing that has a name."""
    if model == BEST_VALIDATED:
        return "best validated"
    if model.endswith(HYBRID) and against == TFIDF:
        return HYBRID
    one, other = _variant(model), _variant(against)
    if one is None or other is None:
        return ""
    if VARIANTS[one].has_domain and other == VARIANTS[one].without_domain:
        return DOMAIN_ADAPTER
    return TASK_ADAPTER if other == VARIANTS[one].without_task else ""


def _default_family(models: Sequence[str], hybrids: Sequence[str]) -> Iterator[Pair]:
    """One question for each step, the one against the strongest baseline, and the first hybrid.

    Each step is asked about where the fewest things train: the domain adapter under a head alone,
    the task adapter on the domain adapter, both with the first backbone that has such a pair.
    """
    steps = [Pair(*pair, about=about(*pair)) for pair in _one_step_apart(models)]
    for subject, first_of in (
        (DOMAIN_ADAPTER, "domain-frozen"),
        (TASK_ADAPTER, "domain-frozen+task-lora"),
    ):
        of_subject = [pair for pair in steps if pair.about == subject]
        yield from sorted(of_subject, key=lambda pair: _variant(pair.model) != first_of)[:1]
    if TFIDF in models:
        if set(models) - {*_NO_CANDIDATES, *hybrids}:
            yield Pair(BEST_VALIDATED, TFIDF, about=about(BEST_VALIDATED, TFIDF))
        for hybrid in hybrids[:1]:
            yield Pair(hybrid, TFIDF, about=HYBRID)


def _one_step_apart(models: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each model, and the one that lacks its domain adapter or its task adapter only.

    That is of the same backbone, or else of the first that has it.
    """
    for model in models:
        variant = _variant(model)
        if variant is None:
            continue
        parts = VARIANTS[variant]
        lacking = [parts.without_domain] if parts.has_domain else []
        lacking += [parts.without_task] if parts.without_task else []
        for other in lacking:
            others = [one for one in models if _variant(one) == other]
            same = model.removesuffix(variant) + other
            if others:
                yield model, same if same in others else others[0]


def _across_backbones(models: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each variant, and the same one of the first backbone that has it."""
    first: dict[VariantName, str] = {}
    for model in models:
        variant = _variant(model)
        if variant is not None and first.setdefault(variant, model) != model:
            yield model, first[variant]


def _against_tfidf(models: Sequence[str]) -> Iterator[tuple[str, str]]:
    if TFIDF in models:
        yield from ((model, TFIDF) for model in models if model not in (PREVALENCE, TFIDF))


def _against_its_parts(
    models: Sequence[str], hybrids: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Whether text adds to columns, and words to a model."""
    for hybrid, model in hybrids.items():
        yield from ((hybrid, part) for part in (COLUMNS, model) if part in models)


def _variant(model: str) -> VariantName | None:
    """The variant that a model of the backbone is; None for others."""
    last = model.rpartition("/")[2]
    return next((name for name in VARIANTS if name == last), None)


def _runs_of(model: str, stands_on: str, baselines: set[str]) -> ModelRuns:
    """Heads alone on the frozen backbone, and baselines, have one run that is always the same.

    A hybrid has the runs of the model that it stands on.
    """
    backbone, _, last = stands_on.rpartition("/")
    parts = variant_of(last)
    is_solved = parts.trains_head_alone and not parts.has_domain
    return ModelRuns(
        model,
        shares=f"step 1 of {backbone or 'the backbone'}" if parts.has_domain else None,
        is_deterministic=model in baselines or is_solved,
        is_candidate=model == stands_on and model not in _NO_CANDIDATES,
    )
