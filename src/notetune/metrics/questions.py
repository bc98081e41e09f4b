"""The comparisons of a study: which were declared, and how each comes out on each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from notetune.metrics.holm import holm
from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.results import Comparison
from notetune.metrics.scores import ScoreTable
from notetune.metrics.task_scores import TaskScores, macro_of_defined
from notetune.metrics.uncertainty import (
    LEVEL,
    ONE_RUN,
    Difference,
    ModelRuns,
    difference,
    difference_of,
    spread_of_runs,
)


@dataclass(frozen=True)
class Pair:
    """A model and what it is held against.

    Attributes:
        model: Its name, or `best-validated`.
        against: What it is held against.
        task: The only task to compare them on; None for all.
        about: What makes the two different.
    """

    model: str
    against: str
    task: str | None = None
    about: str = ""


@dataclass(frozen=True)
class Questions:
    """What a study asks.

    Attributes:
        primary: Declared before the test scores were seen; one family for Holm's correction.
        exploratory: All others.
        runs: What the runs of each model are.
    """

    primary: tuple[Pair, ...] = ()
    exploratory: tuple[Pair, ...] = ()
    runs: tuple[ModelRuns, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A comparison on one task, before the correction for its family."""

    pair: Pair
    task: str
    found: Difference | None = None
    patients: int = 0
    chosen: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    def as_comparison(self, family: int = 1) -> Comparison:
        """With its interval, and the smallest difference that could have been found."""
        item = Comparison(
            model=self.pair.model,
            against=self.pair.against,
            about=self.pair.about,
            chosen=dict(self.chosen),
            reason=self.reason,
        )
        if self.found is None:
            return item
        return item.model_copy(
            update={
                "difference": self.found.estimate(self.patients),
                "p_value": self.found.p_value,
                "detectable": self.found.detectable(family),
                "reason": self.found.why_untested,
            }
        )


def answers(
    pairs: Sequence[Pair],
    tasks: Mapping[str, TaskScores],
    validation: Mapping[str, Sequence[ScoreTable]],
) -> list[Answer]:
    """Each pair on each of its tasks, in the order of pairs."""
    return [
        _answer(pair, task, tasks.get(task), validation.get(task, ()))
        for pair in pairs
        for task in (tasks if pair.task is None else (pair.task,))
    ]


def corrected(family: Sequence[Answer]) -> list[Comparison]:
    """The primary comparisons, corrected for all of them: one that has no p-value counts as 1."""
    found = [answer.as_comparison(len(family)) for answer in family]
    adjusted = holm([item.p_value for item in found])
    return [
        item.model_copy(
            update={"p_holm": p, "family": len(family), "is_found": p is not None and p < LEVEL}
        )
        for item, p in zip(found, adjusted, strict=True)
    ]


def _answer(
    pair: Pair, task: str, scores: TaskScores | None, validation: Sequence[ScoreTable]
) -> Answer:
    answer = Answer(pair, task)
    if scores is None:
        return replace(answer, reason=f"no scores on {task}")
    missing = [m for m in (pair.model, pair.against) if m not in (*scores.tables, BEST_VALIDATED)]
    if missing:
        return replace(answer, reason=f"no scores of {missing[0]}")
    if scores.labels.why_not is not None or not scores.aurocs:
        why = scores.labels.why_not or "no label has both values in this split"
        return replace(answer, reason=why)
    answer = replace(answer, patients=scores.patients)
    if pair.model == BEST_VALIDATED:
        return _best_validated(answer, scores, validation)
    one, other = scores.aurocs[pair.model], scores.aurocs[pair.against]
    return replace(answer, found=difference(one, other, scores.labels.rarer))


def _best_validated(answer: Answer, scores: TaskScores, validation: Sequence[ScoreTable]) -> Answer:
    """The choice is made for each run on the validation scores of the other runs.

    Validation and test share the runs: a model chosen on the runs that it is then judged by would
    seem better than it is.
    """
    against = answer.pair.against
    by_model = {m: one for m, one in _validated(scores, validation).items() if m != against}
    if not by_model:
        return replace(answer, reason="no model that may be chosen has all its validation scores")
    runs = max((tuple(of_model) for of_model in by_model.values()), key=len)
    candidates = {
        model: of_model
        for model, of_model in by_model.items()
        if set(of_model) == set(runs) or scores.aurocs[model].is_fixed
    }
    other = scores.aurocs[against]
    if set(other.runs) != set(runs) and not other.is_fixed:
        return replace(answer, reason=f"{against} has not all runs")
    chosen = [_choice(candidates, run) for run in runs]
    counts = {model: chosen.count(model) for model in dict.fromkeys(chosen)}
    tables = [_table_of(scores, model, run) for model, run in zip(chosen, runs, strict=True)]
    others = [_table_of(scores, against, run) for run in runs]
    paired = scores.auroc_mean(tables).minus(scores.auroc_mean(others))
    per_run = [
        one - other
        for one, other in zip(
            scores.auroc_per_run(tables), scores.auroc_per_run(others), strict=True
        )
    ]
    is_single = any(scores.aurocs[model].has_unknown_spread for model in (*candidates, against))
    why = ONE_RUN if is_single else None
    found = difference_of(paired, spread_of_runs(per_run), scores.labels.rarer, why)
    return replace(answer, chosen=counts, found=found)


def _validated(scores: TaskScores, validation: Sequence[ScoreTable]) -> dict[str, dict[int, float]]:
    """Macro AUROC on validation by model and run, of candidates that have all their runs there."""
    by_model: dict[str, dict[int, float]] = {}
    for table in validation:
        known = scores.about.get(table.model)
        if known is not None and known.is_candidate and table.model in scores.aurocs:
            by_model.setdefault(table.model, {})[table.seed] = macro_of_defined(table)
    return {
        model: of_model
        for model, of_model in by_model.items()
        if set(of_model) == set(scores.aurocs[model].runs)
        and all(value == value for value in of_model.values())
    }


def _choice(candidates: Mapping[str, Mapping[int, float]], run: int) -> str:
    """The model with the highest mean over the other runs; of a single run, over that."""
    return max(
        candidates,
        key=lambda model: fmean(
            [v for number, v in candidates[model].items() if number != run]
            or candidates[model].values()
        ),
    )


def _table_of(scores: TaskScores, model: str, run: int) -> ScoreTable:
    tables: dict[int, ScoreTable] = {table.seed: table for table in scores.tables[model]}
    return tables.get(run, scores.tables[model][0])
