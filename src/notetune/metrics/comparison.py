"""Models against models: score tables in, the results of all tasks of a study out.

Shapes: N notes scored, K classes. One set of draws of patients serves every task, model and run,
so all differences are paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from notetune.errors import DataError
from notetune.metrics.best import Standing, standings
from notetune.metrics.bootstrap import Estimate, PatientDraws, average, patient_draws
from notetune.metrics.curves import mean_calibration, mean_roc, reliability_points
from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.questions import Questions, answers
from notetune.metrics.ranking import auroc_scores
from notetune.metrics.results import Comparison, HeadlineRow, LabelRow, ModelRow, TaskResult
from notetune.metrics.scores import ScoreTable
from notetune.metrics.task_scores import RunTables, TaskScores, aligned, labels_of
from notetune.metrics.uncertainty import (
    ModelRuns,
    ModelScores,
    auroc_interval,
    check_runs,
    interval,
)

VALIDATION = "validation"


def compare_study(
    tables: Sequence[ScoreTable],
    questions: Questions = Questions(),  # noqa: B008 (frozen)
    draws: int = 2_000,
    seed: int = 0,
) -> tuple[tuple[TaskResult, ...], tuple[HeadlineRow, ...]]:
    """The results of all tasks and the headline, from one set of draws over all patients.

    The tables are of all tasks, models and runs, in the order to show. Those of the split
    `validation` only serve to choose the best validated model.

    Returns:
        AUROC is one-vs-rest, macro over the labels that can be judged, mean over the runs of a
        model. A task without any label to evaluate counts for nobody in the headline; a model
        without scores on a task that counts has none.

    Raises:
        DataError: If tables of a task differ in split, classes, notes, patients or targets, a
            (model, run) comes twice, or there are fewer than two patients.
    """
    tests = [table for table in tables if table.split != VALIDATION]
    if not tests:
        return (), ()
    about = check_runs(dict.fromkeys(table.model for table in tests), questions.runs)
    if BEST_VALIDATED in about:
        raise DataError(f"no model may be called {BEST_VALIDATED}: that names a choice of models.")
    patients = patient_draws(np.concatenate([t.patient_ids_N for t in tests]), draws, seed)
    tasks = _tasks(tests, about, patients)
    validation = {
        task: [t for t in tables if t.task == task and t.split == VALIDATION] for task in tasks
    }
    every = questions.tasks or tuple(tasks)
    primary = answers(questions.primary, tasks, validation, family_of=every)
    declared = {(task, item.model, item.against) for task, item in primary}
    others = [
        (task, item)
        for task, item in answers(questions.exploratory, tasks, validation)
        if (task, item.model, item.against) not in declared
    ]
    results = tuple(
        _task_result(
            scores,
            tuple(item for name, item in primary if name == task),
            tuple(item for name, item in others if name == task),
            seed,
        )
        for task, scores in tasks.items()
    )
    return results, _headline(list(about), tasks, patients, seed)


def _tasks(
    tests: Sequence[ScoreTable], about: Mapping[str, ModelRuns], patients: PatientDraws
) -> dict[str, TaskScores]:
    """The models of each task, in order of appearance."""
    tasks = {}
    for task in dict.fromkeys(table.task for table in tests):
        by_model = aligned([table for table in tests if table.task == task])
        first = next(iter(by_model.values()))[0]
        counts_NB = patients.counts_of(first.patient_ids_N)
        tasks[task] = TaskScores(by_model, about, counts_NB, labels_of(first))
    return tasks


def _task_result(
    scores: TaskScores,
    primary: tuple[Comparison, ...],
    exploratory: tuple[Comparison, ...],
    seed: int,
) -> TaskResult:
    first, labels = scores.first, scores.labels
    evaluated, total = int(labels.evaluated_K.sum()), len(first.classes)
    skipped = total - evaluated
    why_skipped = f"{skipped} of {total} labels have one value only in the {first.split} split"
    drawn = scores.tables.values() if first.kind == "binary" and evaluated else ()
    return TaskResult(
        task=first.task,
        kind=first.kind,
        split=first.split,
        notes=len(first.note_ids_N),
        unit=first.unit,
        patients=scores.patients,
        labels_evaluated=evaluated,
        labels_skipped=skipped,
        labels_total=total,
        labels_judged=int(labels.judged_K.sum()),
        rarer_patients=labels.rarest,
        why_not_judged=labels.why_not,
        skipped_reason=why_skipped if skipped else None,
        rows=_model_rows(scores, seed),
        primary=primary,
        exploratory=exploratory,
        labels=_label_rows(scores.tables),
        roc=tuple(map(mean_roc, drawn)),
        reliability=tuple(reliability_points(runs[0]) for runs in drawn),
    )


def _model_rows(scores: TaskScores, seed: int) -> tuple[ModelRow, ...]:
    aurocs, standing = scores.aurocs, dict[str, Standing | None]()
    if scores.why_not is None:
        places = standings(list(aurocs.values()), scores.labels.rarer - 1, seed)
        standing = dict(zip(aurocs, places, strict=True))
    rows = []
    for model, runs in scores.tables.items():
        auroc, precision = aurocs.get(model), scores.average_precision(model)
        low_high = None
        if precision and precision.mean.draws_B.size:
            of_precision = interval(precision, scores.patients)
            low_high = of_precision.low, of_precision.high
        rows.append(
            ModelRow(
                model=model,
                runs=tuple(table.seed for table in runs),
                is_deterministic=scores.about[model].is_deterministic,
                auroc=scores.auroc_interval(model) if auroc else None,
                auroc_per_run=auroc.per_run if auroc else (),
                average_precision=precision.mean.value if precision else None,
                average_precision_interval=low_high,
                brier=interval(scores.brier(model), scores.patients, most=math.inf),
                calibration=mean_calibration(runs) if runs[0].kind == "binary" else None,
                standing=standing.get(model),
                reason=None if auroc else scores.why_not,
                **scores.means(model),
            )
        )
    return tuple(rows)


def _headline(
    models: Sequence[str], tasks: Mapping[str, TaskScores], patients: PatientDraws, seed: int
) -> tuple[HeadlineRow, ...]:
    """Mean AUROC over the tasks that can be judged."""
    counted = {task: scores for task, scores in tasks.items() if scores.why_not is None}
    missing = {
        model: [task for task, scores in counted.items() if model not in scores.aurocs]
        for model in models
    }
    means = {
        model: _over_tasks([scores.aurocs[model] for scores in counted.values()])
        for model in models
        if counted and not missing[model]
    }
    unjudged = dict.fromkeys(scores.why_not for scores in tasks.values() if scores.why_not)
    why_not = {
        model: f"no scores on {', '.join(on_tasks)}" if on_tasks else "; ".join(unjudged)
        for model, on_tasks in missing.items()
    }
    rarer = min((scores.labels.rarer for scores in counted.values()), default=0)
    places = dict(zip(means, standings(list(means.values()), rarer - 1, seed), strict=True))
    if len(counted) == 1:
        (only,) = counted.values()
        intervals = {model: only.auroc_interval(model) for model in means}
    else:
        of_tasks, total = list(counted.values()), len(patients.patient_ids_P)
        intervals = {m: _mean_interval(m, mean, of_tasks, total) for m, mean in means.items()}
    return tuple(
        HeadlineRow(
            model=model,
            tasks=tuple(counted),
            auroc=intervals.get(model),
            standing=places.get(model),
            reason=None if model in means else why_not[model],
        )
        for model in models
    )


def _mean_interval(
    model: str, mean: ModelScores, tasks: Sequence[TaskScores], patients: int
) -> Estimate:
    """That of a mean over tasks: as sure as with the harmonic means of their patients, together."""
    if all(scores.is_constant(model) for scores in tasks):
        return interval(mean, patients)
    positives, negatives = np.transpose([scores.labels.sizes for scores in tasks])
    sizes = tuple(len(tasks) ** 2 / (1 / of_tasks).sum() for of_tasks in (positives, negatives))
    are_few = any(scores.labels.are_few for scores in tasks)
    return auroc_interval(mean, patients, sizes, are_few=are_few)


def _over_tasks(of_tasks: Sequence[ModelScores]) -> ModelScores:
    """The mean over tasks of a model, run by run: a run is the same training of step 1."""
    mean = average([scores.mean for scores in of_tasks])
    runs = [run for run in of_tasks[0].runs if all(run in scores.runs for scores in of_tasks)]
    if not runs:
        return replace(of_tasks[0], mean=mean, runs=(0,), per_run=(mean.value,))
    per_run = np.mean(
        [[scores.per_run[scores.runs.index(run)] for run in runs] for scores in of_tasks], axis=0
    )
    return replace(of_tasks[0], mean=mean, runs=tuple(runs), per_run=tuple(per_run.tolist()))


def _label_rows(tables: RunTables) -> tuple[LabelRow, ...]:
    means_K = {
        model: np.mean([auroc_scores(t.targets_NK, t.scores_NK) for t in runs], axis=0)
        for model, runs in tables.items()
    }
    first = next(iter(tables.values()))[0]
    positives_K = first.targets_NK.sum(axis=0, dtype=np.int64)
    return tuple(
        LabelRow(
            label=label,
            positives=int(positives_K[k]),
            aurocs={m: None if np.isnan(mean_K[k]) else mean_K[k] for m, mean_K in means_K.items()},
        )
        for k, label in enumerate(first.classes)
    )
