"""Models against models: score tables in, the results of a task and of a whole study out.

Shapes: N notes scored, K classes, M models. All intervals resample patients; within a study one
set of draws serves every task, model and seed, so all differences are paired.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
import numpy.typing as npt

from notetune.errors import DataError
from notetune.metrics.curves import mean_calibration, mean_roc, reliability_points
from notetune.metrics.intervals import (
    PatientDraws,
    RankingReplicates,
    Replicates,
    average,
    holm,
    mean_replicates,
    patient_draws,
    ranking_replicates,
)
from notetune.metrics.ranking import auroc_score, auroc_scores
from notetune.metrics.results import (
    Comparison,
    HeadlineRow,
    LabelRow,
    ModelRow,
    TaskResult,
)
from notetune.metrics.scores import ScoreTable, TaskKind

_NO_LABEL = "no label has both values in this split"

SeedTables = dict[str, list[ScoreTable]]
"""Tables of the seeds of each model."""


def compare_models(
    tables: Sequence[ScoreTable],
    references: Sequence[tuple[str, str]] = (),
    draws: int = 2_000,
    seed: int = 0,
) -> TaskResult:
    """The result of one task.

    Args:
        tables: Of one split of one task: every model and seed, models in the order to show.
        references: Pairs (model, against) to compare; their p-values are one Holm family.
        draws: Bootstrap draws of patients.
        seed: Of the draws.

    Returns:
        AUROC is one-vs-rest macro over the labels that have both values; a draw that loses one of
        a label's values averages over the other labels. The best model is marked best only if
        every paired interval against another model excludes 0; otherwise the tie is marked.

    Raises:
        DataError: If there are no tables, they differ in task, split, classes, notes, patients or
            targets, a (model, seed) comes twice, a reference names no model, or there are fewer
            than two patients.
    """
    by_model = _aligned(tables)
    _check_references(references, by_model, tables[0].task)
    patients = patient_draws(tables[0].patient_ids_N, draws, seed)
    return _task_result(by_model, references, patients)[0]


def headline(
    tables: Sequence[ScoreTable], draws: int = 2_000, seed: int = 0
) -> tuple[HeadlineRow, ...]:
    """Mean AUROC over tasks of each model, with its interval.

    Args:
        tables: Of all tasks, models and seeds.
        draws: Bootstrap draws of patients.
        seed: Of the draws.

    Returns:
        One row per model, in order of appearance. A task without any label to evaluate counts for
        nobody; a model without scores on a task that counts has no headline.

    Raises:
        DataError: As `compare_models`.
    """
    return compare_study(tables, (), draws, seed)[1]


def compare_study(
    tables: Sequence[ScoreTable],
    references: Sequence[tuple[str, str]] = (),
    draws: int = 2_000,
    seed: int = 0,
) -> tuple[tuple[TaskResult, ...], tuple[HeadlineRow, ...]]:
    """The results of all tasks and the headline, from one set of draws over all patients.

    Args:
        tables: Of all tasks, models and seeds, tasks and models in the order to show.
        references: Pairs (model, against), compared on each task that has both.
        draws: Bootstrap draws of patients.
        seed: Of the draws.

    Raises:
        DataError: As `compare_models`; a reference must name models of some task.
    """
    tasks = {
        table.task: [other for other in tables if other.task == table.task] for table in tables
    }
    _check_references(references, {table.model: [] for table in tables}, "any task")
    if not tables:
        return (), ()
    patients = patient_draws(np.concatenate([t.patient_ids_N for t in tables]), draws, seed)
    results: list[TaskResult] = []
    macros: dict[str, dict[str, RankingReplicates]] = {}
    for task, of_task in tasks.items():
        by_model = _aligned(of_task)
        pairs = [pair for pair in references if set(pair) <= set(by_model)]
        result, macros[task] = _task_result(by_model, pairs, patients)
        results.append(result)
    models = dict.fromkeys(table.model for table in tables)
    return tuple(results), _headline_rows(list(models), macros, len(patients.patient_ids_P))


def _task_result(
    by_model: SeedTables, references: Sequence[tuple[str, str]], patients: PatientDraws
) -> tuple[TaskResult, dict[str, RankingReplicates]]:
    first = next(iter(by_model.values()))[0]
    positives_K = first.targets_NK.sum(axis=0, dtype=np.int64)
    is_evaluated_K = (positives_K > 0) & (positives_K < len(first.note_ids_N))
    evaluated, total = int(is_evaluated_K.sum()), len(first.classes)
    macros = _macros(by_model, patients, is_evaluated_K) if evaluated else {}
    aurocs = {model: macro.auroc for model, macro in macros.items()}
    drawn = by_model.values() if first.kind == "binary" and evaluated else ()
    result = TaskResult(
        task=first.task,
        kind=first.kind,
        split=first.split,
        notes=len(first.note_ids_N),
        patients=len(np.unique(first.patient_ids_N)),
        labels_evaluated=evaluated,
        labels_skipped=total - evaluated,
        labels_total=total,
        skipped_reason=_skipped_reason(total - evaluated, total, first.split),
        rows=_model_rows(by_model, macros, patients, is_evaluated_K),
        comparisons=_comparisons(aurocs, references),
        labels=_label_rows(by_model, positives_K),
        roc=tuple(mean_roc(seeds) for seeds in drawn),
        reliability=tuple(reliability_points(seeds[0]) for seeds in drawn),
    )
    return result, macros


def _headline_rows(
    models: Sequence[str], macros: Mapping[str, Mapping[str, RankingReplicates]], patients: int
) -> tuple[HeadlineRow, ...]:
    counted = {task: of_task for task, of_task in macros.items() if of_task}
    means: dict[str, Replicates] = {}
    reasons: dict[str, str] = {}
    for model in models:
        missing = [task for task, of_task in counted.items() if model not in of_task]
        if missing or not counted:
            reasons[model] = f"no scores on {', '.join(missing)}" if missing else _NO_LABEL
        else:
            means[model] = average([of_task[model].auroc for of_task in counted.values()], patients)
    leader, tied = _leader_and_tied(means)
    return tuple(
        HeadlineRow(
            model=model,
            tasks=tuple(counted),
            auroc=means[model].estimate() if model in means else None,
            is_best=model == leader and not tied,
            ties_with_best=model in tied,
            reason=reasons.get(model),
        )
        for model in models
    )


def _aligned(tables: Sequence[ScoreTable]) -> SeedTables:
    """Tables by model, notes in the order of the first table; refuses what cannot be compared."""
    if not tables:
        raise DataError("there are no score tables to compare; evaluate a model first.")
    first = tables[0]
    by_model: SeedTables = {}
    for given in tables:
        _check_same_task(first, given)
        table = given.in_note_order(first.note_ids_N)
        for column in ("patient_ids_N", "targets_NK"):
            different = int(np.sum(getattr(table, column) != getattr(first, column)))
            if different:
                raise DataError(
                    f"{table.name}: {different} values of {column} differ from the {first.name}. "
                    "Score every model on the same task table."
                )
        seeds = by_model.setdefault(table.model, [])
        if table.seed in [other.seed for other in seeds]:
            raise DataError(f"{table.name}: given twice; give each model and seed once.")
        seeds.append(table)
    return by_model


def _check_same_task(first: ScoreTable, table: ScoreTable) -> None:
    for field in ("task", "kind", "split", "classes"):
        if getattr(table, field) != getattr(first, field):
            raise DataError(
                f"{table.name}: its {field} is not that of the {first.name}. Compare tables of "
                "one split of one task."
            )


def _check_references(
    references: Iterable[tuple[str, str]], known: Mapping[str, object], where: str
) -> None:
    for name in {name for pair in references for name in pair} - set(known):
        raise DataError(
            f"reference model {name} has no scores on {where}; there are {', '.join(known)}."
        )


def _macros(
    by_model: SeedTables, patients: PatientDraws, labels_K: npt.NDArray[np.bool_]
) -> dict[str, RankingReplicates]:
    macros = {}
    for model, seeds in by_model.items():
        of_seeds = [ranking_replicates(table, patients, labels_K) for table in seeds]
        macros[model] = RankingReplicates(
            auroc=average([item.auroc for item in of_seeds]),
            average_precision=average([item.average_precision for item in of_seeds]),
        )
    return macros


def _leader_and_tied(aurocs: Mapping[str, Replicates]) -> tuple[str | None, set[str]]:
    """The model with the highest AUROC and, if it has rivals, it and all its rivals.

    A rival is a model whose paired interval against the leader contains 0.
    """
    if len(aurocs) < 2:
        return None, set()
    leader = max(aurocs, key=lambda model: aurocs[model].value)
    rivals = {
        model
        for model in aurocs
        if model != leader and aurocs[leader].minus(aurocs[model]).estimate().contains(0)
    }
    return leader, rivals | {leader} if rivals else set()


def _model_rows(
    by_model: SeedTables,
    macros: Mapping[str, RankingReplicates],
    patients: PatientDraws,
    labels_K: npt.NDArray[np.bool_],
) -> tuple[ModelRow, ...]:
    leader, tied = _leader_and_tied({model: macro.auroc for model, macro in macros.items()})
    rows = []
    for model, seeds in by_model.items():
        macro = macros.get(model)
        rows.append(
            ModelRow(
                model=model,
                seeds=tuple(table.seed for table in seeds),
                auroc=macro.auroc.estimate() if macro else None,
                auroc_per_seed=_auroc_per_seed(seeds, labels_K) if macro else (),
                auroc_micro=_auroc_micro(seeds, labels_K) if macro else None,
                average_precision=macro.average_precision.value if macro else None,
                average_precision_interval=_precision_interval(macro, seeds[0].kind),
                brier=_brier(seeds, patients).estimate(),
                calibration=mean_calibration(seeds) if seeds[0].kind == "binary" else None,
                is_best=model == leader and not tied,
                ties_with_best=model in tied,
                reason=None if macro else _NO_LABEL,
            )
        )
    return tuple(rows)


def _precision_interval(
    macro: RankingReplicates | None, kind: TaskKind
) -> tuple[float, float] | None:
    """Not over many rare labels: in simulations such an interval covered the truth in 18 %."""
    if macro is None or kind == "multilabel":
        return None
    estimate = macro.average_precision.estimate()
    return estimate.low, estimate.high


def _auroc_per_seed(
    seeds: Sequence[ScoreTable], labels_K: npt.NDArray[np.bool_]
) -> tuple[float, ...]:
    return tuple(
        fmean(auroc_scores(table.targets_NK[:, labels_K], table.scores_NK[:, labels_K]))
        for table in seeds
    )


def _auroc_micro(seeds: Sequence[ScoreTable], labels_K: npt.NDArray[np.bool_]) -> float | None:
    if seeds[0].kind != "multilabel":
        return None
    return fmean(
        auroc_score(table.targets_NK[:, labels_K].ravel(), table.scores_NK[:, labels_K].ravel())
        for table in seeds
    )


def _brier(seeds: Sequence[ScoreTable], patients: PatientDraws) -> Replicates:
    classes_averaged = len(seeds[0].classes) if seeds[0].kind == "multilabel" else 1
    return average(
        [
            mean_replicates(
                table,
                ((table.scores_NK - table.targets_NK) ** 2).sum(axis=1) / classes_averaged,
                patients,
            )
            for table in seeds
        ]
    )


def _comparisons(
    aurocs: Mapping[str, Replicates], references: Sequence[tuple[str, str]]
) -> tuple[Comparison, ...]:
    """One row per reference pair; with no label to evaluate, rows without numbers."""
    if not aurocs:
        return tuple(
            Comparison(
                model=model,
                against=against,
                difference=None,
                p_value=None,
                p_holm=None,
                reason=_NO_LABEL,
            )
            for model, against in references
        )
    differences = [aurocs[model].minus(aurocs[against]) for model, against in references]
    p_values = [difference.p_value() for difference in differences]
    return tuple(
        Comparison(
            model=model,
            against=against,
            difference=difference.estimate(),
            p_value=p_value,
            p_holm=p_holm,
        )
        for (model, against), difference, p_value, p_holm in zip(
            references, differences, p_values, holm(p_values), strict=True
        )
    )


def _label_rows(by_model: SeedTables, positives_K: npt.NDArray[np.int64]) -> tuple[LabelRow, ...]:
    means_K = {
        model: np.mean([auroc_scores(t.targets_NK, t.scores_NK) for t in seeds], axis=0)
        for model, seeds in by_model.items()
    }
    classes = next(iter(by_model.values()))[0].classes
    return tuple(
        LabelRow(
            label=label,
            positives=int(positives_K[k]),
            aurocs={
                model: None if math.isnan(mean_K[k]) else mean_K[k]
                for model, mean_K in means_K.items()
            },
        )
        for k, label in enumerate(classes)
    )


def _skipped_reason(skipped: int, total: int, split: str) -> str | None:
    if not skipped:
        return None
    return f"{skipped} of {total} labels have one value only in the {split} split"
