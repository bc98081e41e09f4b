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
from notetune.metrics.curves import mean_calibration, mean_roc, reliability_points
from notetune.metrics.intervals import PatientDraws, average, patient_draws
from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.questions import Questions, answers, corrected
from notetune.metrics.ranking import auroc_scores
from notetune.metrics.results import Comparison, HeadlineRow, LabelRow, ModelRow, TaskResult
from notetune.metrics.scores import ScoreTable
from notetune.metrics.task_scores import RunTables, TaskScores, aligned, labels_of
from notetune.metrics.uncertainty import ModelRuns, ModelScores, check_runs, interval

VALIDATION = "validation"
_NO_LABEL = "no label has both values in this split"


def compare_study(
    tables: Sequence[ScoreTable],
    questions: Questions = Questions(),  # noqa: B008 (frozen)
    draws: int = 2_000,
    seed: int = 0,
) -> tuple[tuple[TaskResult, ...], tuple[HeadlineRow, ...]]:
    """The results of all tasks and the headline, from one set of draws over all patients.

    Args:
        tables: Of all tasks, models and runs, in the order to show. Those of the split
            `validation` only serve to choose the best validated model.
        questions: What is compared, and what the runs of each model are.
        draws: Of patients.
        seed: Of the draws.

    Returns:
        AUROC is one-vs-rest, macro over the labels that can be judged, mean over the runs of a
        model, with an interval over patients and runs. A task without any label to evaluate counts
        for nobody in the headline; a model without scores on a task that counts has none.

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
    found = _comparisons(questions, tasks, validation)
    results = tuple(
        _task_result(scores, seed).model_copy(update=found[task]) for task, scores in tasks.items()
    )
    return results, _headline(list(about), tasks, patients, seed)


def _comparisons(
    questions: Questions,
    tasks: Mapping[str, TaskScores],
    validation: Mapping[str, Sequence[ScoreTable]],
) -> dict[str, dict[str, tuple[Comparison, ...]]]:
    """Those of each task, as its `TaskResult` has them; all primary ones are one family."""
    family = answers(questions.primary, tasks, validation)
    primary = list(zip((a.task for a in family), corrected(family), strict=True))
    others = answers(questions.exploratory, tasks, validation)
    return {
        task: {
            "primary": tuple(item for name, item in primary if name == task),
            "exploratory": tuple(a.as_comparison() for a in others if a.task == task),
        }
        for task in tasks
    }


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


def _task_result(scores: TaskScores, seed: int) -> TaskResult:
    first, labels = scores.first, scores.labels
    evaluated, total = int(labels.evaluated_K.sum()), len(first.classes)
    drawn = scores.tables.values() if first.kind == "binary" and evaluated else ()
    return TaskResult(
        task=first.task,
        kind=first.kind,
        split=first.split,
        notes=len(first.note_ids_N),
        patients=scores.patients,
        labels_evaluated=evaluated,
        labels_skipped=total - evaluated,
        labels_total=total,
        labels_judged=int(labels.judged_K.sum()),
        rarer_patients=labels.rarer,
        why_not_judged=labels.why_not,
        skipped_reason=_skipped_reason(total - evaluated, total, first.split),
        rows=_model_rows(scores, seed),
        labels=_label_rows(scores.tables),
        roc=tuple(mean_roc(runs) for runs in drawn),
        reliability=tuple(reliability_points(runs[0]) for runs in drawn),
    )


def _model_rows(scores: TaskScores, seed: int) -> tuple[ModelRow, ...]:
    labels, aurocs = scores.labels, scores.aurocs
    places: list[Standing | None] = [None] * len(aurocs)
    if labels.why_not is None:
        places = standings(list(aurocs.values()), labels.rarer - 1, seed)
    standing = dict(zip(aurocs, places, strict=True))
    rows = []
    for model, runs in scores.tables.items():
        auroc, precision = aurocs.get(model), scores.average_precision(model)
        has_interval = precision is not None and scores.first.kind != "multilabel"
        of_precision = interval(precision, scores.patients) if has_interval and precision else None
        rows.append(
            ModelRow(
                model=model,
                runs=tuple(table.seed for table in runs),
                is_deterministic=scores.about[model].is_deterministic,
                auroc=scores.auroc_interval(model) if auroc else None,
                auroc_per_run=auroc.per_run if auroc else (),
                auroc_all_labels=scores.auroc_all_labels(model),
                auroc_micro=scores.auroc_micro(model),
                average_precision=precision.mean.value if precision else None,
                average_precision_interval=(
                    (of_precision.low, of_precision.high) if of_precision else None
                ),
                brier=interval(scores.brier(model), scores.patients, most=math.inf),
                calibration=mean_calibration(runs) if runs[0].kind == "binary" else None,
                standing=standing.get(model),
                reason=None if auroc else labels.why_not or _NO_LABEL,
            )
        )
    return tuple(rows)


def _headline(
    models: Sequence[str], tasks: Mapping[str, TaskScores], patients: PatientDraws, seed: int
) -> tuple[HeadlineRow, ...]:
    """Mean AUROC over the tasks that can be judged."""
    counted = {
        task: scores
        for task, scores in tasks.items()
        if scores.aurocs and scores.labels.why_not is None
    }
    rarer = min((scores.labels.rarer for scores in counted.values()), default=0)
    means: dict[str, ModelScores] = {}
    reasons: dict[str, str] = {}
    for model in models:
        missing = [task for task, scores in counted.items() if model not in scores.aurocs]
        if missing or not counted:
            reasons[model] = f"no scores on {', '.join(missing)}" if missing else _NO_LABEL
        else:
            means[model] = _over_tasks([scores.aurocs[model] for scores in counted.values()])
    places = dict(zip(means, standings(list(means.values()), rarer - 1, seed), strict=True))
    total, only = len(patients.patient_ids_P), next(iter(counted.values()), None)
    intervals = {
        model: only.auroc_interval(model)
        if only is not None and len(counted) == 1
        else interval(mean, total, rarer)
        for model, mean in means.items()
    }
    return tuple(
        HeadlineRow(
            model=model,
            tasks=tuple(counted),
            auroc=intervals.get(model),
            standing=places.get(model),
            reason=reasons.get(model),
        )
        for model in models
    )


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
            aurocs={
                model: None if math.isnan(mean_K[k]) else mean_K[k]
                for model, mean_K in means_K.items()
            },
        )
        for k, label in enumerate(first.classes)
    )


def _skipped_reason(skipped: int, total: int, split: str) -> str | None:
    if not skipped:
        return None
    return f"{skipped} of {total} labels have one value only in the {split} split"
