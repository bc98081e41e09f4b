"""The comparisons of a study: which were declared, and how each comes out on each task."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from notetune.metrics.holm import holm
from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.ranking import macro_auroc
from notetune.metrics.results import Comparison
from notetune.metrics.scores import ScoreTable
from notetune.metrics.task_scores import TaskScores
from notetune.metrics.uncertainty import (
    LEVEL,
    ONE_RUN,
    Difference,
    ModelRuns,
    difference,
    difference_of,
)


@dataclass(frozen=True)
class Pair:
    """A model, or `best-validated`, and what it is held against.

    Attributes:
        task: The only task to compare them on; None for all.
    """

    model: str
    against: str
    task: str | None = None
    about: str = ""


@dataclass(frozen=True)
class Questions:
    """What a study asks, and what the runs of each model are.

    `primary` was declared before the test scores were seen: one family for Holm's correction, on
    all `tasks`, also those without scores; those of the scores where none is named.
    """

    primary: tuple[Pair, ...] = ()
    exploratory: tuple[Pair, ...] = ()
    runs: tuple[ModelRuns, ...] = ()
    tasks: tuple[str, ...] = ()


def answers(
    pairs: Sequence[Pair],
    tasks: Mapping[str, TaskScores],
    validation: Mapping[str, Sequence[ScoreTable]],
    family_of: Sequence[str] | None = None,
) -> list[tuple[str, Comparison]]:
    """Each pair on each of its tasks, with the name of the task, in the order of pairs.

    `validation` tables choose the best validated model. A family, asked on the tasks `family_of`,
    is corrected for all its answers, of which one that has no p-value counts as 1.
    """
    every = tuple(tasks) if family_of is None else family_of
    asked = [(task, p) for p in pairs for task in (every if p.task is None else [p.task])]
    family = 1 if family_of is None else len(asked)
    found = [
        (task, _answer(pair, task, tasks.get(task), validation.get(task, ()), family))
        for task, pair in asked
    ]
    if family_of is None:
        return found
    corrected = []
    for (task, item), p in zip(found, holm([item.p_value for _, item in found]), strict=True):
        changes = {"p_holm": p, "family": family, "is_found": p is not None and p < LEVEL}
        corrected.append((task, item.model_copy(update=changes)))
    return corrected


def _answer(
    pair: Pair, task: str, scores: TaskScores | None, tables: Sequence[ScoreTable], family: int
) -> Comparison:
    found: Difference | str
    choice: dict[str, Any] = {}
    if scores is None:
        found = f"no scores on {task}"
    elif missing := [
        m for m in (pair.model, pair.against) if m not in (*scores.tables, BEST_VALIDATED)
    ]:
        found = f"no scores of {missing[0]}"
    elif scores.why_not is not None:
        found = scores.why_not
    elif pair.model == BEST_VALIDATED:
        found, choice = _best_validated(pair.against, scores, tables)
    else:
        one, other = scores.aurocs[pair.model], scores.aurocs[pair.against]
        found = difference(one, other, scores.labels.rarer)
    if scores is None or isinstance(found, str):
        figures: dict[str, Any] = {"reason": found}
    else:
        figures = {
            "reason": found.why_untested,
            "difference": found.estimate(scores.patients),
            "p_value": found.p_value,
            "detectable": found.detectable(family),
        }
    return Comparison(model=pair.model, against=pair.against, about=pair.about, **choice, **figures)


def _best_validated(
    against: str, scores: TaskScores, validation: Sequence[ScoreTable]
) -> tuple[Difference | str, dict[str, Any]]:
    """The difference, or why there is none; how often each model was chosen, and from which not.

    The choice is made for each run on the validation scores of the other runs. Validation and test
    share the runs: a model chosen on the runs that it is then judged by would seem better than it
    is.
    """
    validated = _validated(scores, validation)
    candidates = {model: one for model, one in validated.items() if model != against}
    if not candidates:
        return "no model that may be chosen has a validation AUROC in each of its runs", {}
    fixed = {model for model in candidates if scores.aurocs[model].is_fixed}
    runs = _shared_runs([one for model, one in candidates.items() if model not in fixed])
    candidates = {m: one for m, one in candidates.items() if m in fixed or one.keys() >= {*runs}}
    other = scores.aurocs[against]
    if fixed >= candidates.keys() and not other.is_fixed:
        runs = sorted(other.runs)
    if not other.is_fixed and not set(other.runs) >= set(runs):
        return f"{against} has not all runs", {}
    chosen = [_choice(candidates, run, runs) for run in runs]
    tables = [_table_of(scores, model, run) for model, run in zip(chosen, runs, strict=True)]
    others = [_table_of(scores, against, run) for run in runs]
    paired = scores.auroc_mean(tables).minus(scores.auroc_mean(others))
    both = zip(scores.auroc_per_run(tables), scores.auroc_per_run(others), strict=True)
    over_runs = [[one - other for one, other in both]]
    is_single = len(runs) == 1 and not (other.is_fixed and fixed >= candidates.keys())
    why = ONE_RUN if is_single else None
    named = [m for m in scores.aurocs if scores.about[m].is_candidate and m != against]
    return difference_of(paired, over_runs, scores.labels.rarer, why), {
        "chosen": {model: chosen.count(model) for model in dict.fromkeys(chosen)},
        "left_out": tuple(model for model in named if model not in candidates),
    }


def _shared_runs(of_models: Sequence[Mapping[int, float]]) -> list[int]:
    """The runs that all models have which have several; of single runs, the most common."""
    several = [set(runs) for runs in of_models if len(runs) > 1]
    if shared := set.intersection(*several) if several else None:
        return sorted(shared)
    counts = Counter(run for runs in of_models for run in runs)
    return [max(counts, key=counts.__getitem__)] if counts else [0]


def _validated(scores: TaskScores, validation: Sequence[ScoreTable]) -> dict[str, dict[int, float]]:
    """Macro AUROC on validation by model and run, of candidates that have all their runs there."""
    by_model: dict[str, dict[int, float]] = {}
    for table in validation:
        if table.model in scores.aurocs and scores.about[table.model].is_candidate:
            auroc = macro_auroc(table.targets_NK, table.scores_NK)
            if not math.isnan(auroc):
                by_model.setdefault(table.model, {})[table.seed] = auroc
    return {
        model: of_model
        for model, of_model in by_model.items()
        if set(of_model) == set(scores.aurocs[model].runs)
    }


def _choice(candidates: Mapping[str, Mapping[int, float]], run: int, runs: Sequence[int]) -> str:
    """The model with the highest mean over the other runs; of a single run, over that."""
    others = [number for number in runs if number != run] or [run]

    def mean(model: str) -> float:
        of_model = candidates[model]
        return fmean(of_model.get(number, of_model[min(of_model)]) for number in others)

    return max(candidates, key=mean)


def _table_of(scores: TaskScores, model: str, run: int) -> ScoreTable:
    tables = {table.seed: table for table in scores.tables[model]}
    return tables.get(run, scores.tables[model][0])
