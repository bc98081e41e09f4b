"""Scores of all finished cells to one `Results` value, the source of every report."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from notetune import runs
from notetune.errors import RunError
from notetune.metrics.comparison import compare_study
from notetune.metrics.results import (
    Cost,
    CurvePoint,
    Evaluation,
    FlowStage,
    KeptState,
    LeakageFinding,
    MethodRow,
    PerplexityRow,
    Results,
    SplitCount,
)
from notetune.metrics.scores import ScoreTable, read_scores
from notetune.notes import overlap
from notetune.workflows import baselines, encoders, task_models
from notetune.workflows.features import features_cost
from notetune.workflows.finished import Finished, model_in_study, name_in_study
from notetune.workflows.methods import method_rows, perplexity_rows
from notetune.workflows.notices import compat_switches, notices
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.provenance import corpus_findings
from notetune.workflows.recipe import Recipe
from notetune.workflows.training import TrainingRecord, read_record
from notetune.workflows.variants import variant_of

_BASELINES = ("prevalence", "tf-idf", "tf-idf-cut", "columns")
_DOMAIN_STAGE = "domain adapter"


def evaluate(recipe: Recipe, finished: Mapping[str, Finished]) -> Results:
    """Estimate, compare and collect everything that the report shows.

    Args:
        recipe: The whole study.
        finished: What was made with each of its backbones, by the names of `recipe.studies`.

    Raises:
        RunError: If no cell of the recipe is finished.
    """
    first = next(iter(finished.values()))
    prepared, config = first.prepared, recipe.evaluate
    tables = _test_tables(recipe, finished)
    models = list(dict.fromkeys(table.model for table in tables))
    tasks, headline = compare_study(tables, _references(models), config.draws, config.seed)
    listed, _ = compare_study(_of_listed_patients(recipe, tables), (), config.draws, config.seed)
    step_1 = {**_domain_records(finished), **encoders.read_pretrained(first.recipe)}
    trained = _records(finished)
    seeds = recipe.downstream.seeds
    return Results(
        title=recipe.title or recipe.name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        recipe=recipe.as_json(),
        seeds=seeds,
        baselines=tuple(name for name in recipe.baselines if name != baselines.HYBRID),
        domain_pairs=tuple(_domain_pairs(models)),
        flow=tuple(_flow(first)),
        splits=tuple(row for task in prepared.tasks.values() for row in _split_counts(task)),
        methods=tuple(_methods(finished)),
        perplexity=tuple(_perplexities(finished)),
        learning_curves=_learning_curves({**step_1, **trained}),
        kept=tuple(_kept_states(trained)),
        tasks=tasks,
        listed_patients=listed,
        headline=headline,
        costs=(*_costs(step_1, "pretrain"), *_feature_costs(finished), *_costs(trained)),
        leakage=tuple(_leakage(first)),
        compat_switches=tuple(compat_switches(recipe)),
        notices=tuple(notices(recipe, finished)),
        provenance=_provenance(recipe, prepared),
    )


def _methods(finished: Mapping[str, Finished]) -> Iterator[MethodRow]:
    for name, one in finished.items():
        for row in method_rows(one.methods):
            yield row.model_copy(update={"method": name_in_study(name, row.method)})


def _perplexities(finished: Mapping[str, Finished]) -> Iterator[PerplexityRow]:
    for name, one in finished.items():
        for row in perplexity_rows(one.methods):
            yield PerplexityRow(**{**asdict(row), "model": name_in_study(name, row.model)})


def _learning_curves(records: dict[str, TrainingRecord]) -> dict[str, tuple[CurvePoint, ...]]:
    return {
        name: tuple(CurvePoint(**asdict(point)) for point in record.curve)
        for name, record in records.items()
    }


def _leakage(first: Finished) -> Iterator[LeakageFinding]:
    of_corpus = corpus_findings(first.recipe.folder.domain, first.prepared)
    for finding in (*first.prepared.findings, *of_corpus):
        yield LeakageFinding(**asdict(finding))


def _flow(first: Finished) -> Iterator[FlowStage]:
    for stage in first.prepared.flow:
        yield FlowStage(**asdict(stage))
    if first.corpus is not first.prepared:
        for stage in first.corpus.flow:
            yield FlowStage(**{**asdict(stage), "stage": f"corpus of step 1: {stage.stage}"})


def _test_tables(recipe: Recipe, finished: Mapping[str, Finished]) -> list[ScoreTable]:
    """Test scores of baselines and cells, task by task, in the order to show."""
    tables = []
    for task in dict.fromkeys(name for one in finished.values() for name in one.prepared.tasks):
        for backbone, one in finished.items():
            paths = [folder / "test.parquet" for folder in _trained_folders(one, task)]
            found = [read_scores(path) for path in paths if path.is_file()]
            tables += [
                replace(table, model=model_in_study(backbone, table.model)) for table in found
            ]
    if not tables:
        raise RunError(
            f"{recipe.folder.root} holds no scores yet; run `notetune downstream` or "
            "`notetune study run` with this recipe first."
        )
    return tables


def _trained_folders(one: Finished, task: str) -> Iterator[Path]:
    """Folders of the baselines and cells of a task, made as the recipe says now."""
    folder = one.recipe.folder
    yield from baselines.made_folders(one.recipe, one.prepared, task)
    for cell in one.cells:
        if cell.task == task:
            yield folder.cell(task, cell.variant, cell.seed)


def _of_listed_patients(recipe: Recipe, tables: list[ScoreTable]) -> list[ScoreTable]:
    """The scores on the patients that the recipe lists; none without a list."""
    listed = recipe.evaluate.listed_patients
    if listed is None:
        return []
    notes = pl.concat(
        pl.DataFrame({"note_id": table.note_ids_N, "patient_id": table.patient_ids_N})
        for table in tables
    )
    path = recipe.data / listed.file
    kept = overlap.notes_of_listed_patients(notes, path, listed.column).to_numpy().astype(np.str_)
    return [part for table in tables if (part := table.of_notes(kept)) is not None]


def _references(models: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs to test: of each backbone, every model against the one before it and the first.

    Then every variant against the one without step 1, every variant against the same one of the
    first backbone that has it, and every model against TF-IDF.
    """
    variants = [model for model in models if model not in _BASELINES]
    by_backbone: dict[str, list[str]] = {}
    by_variant: dict[str, list[str]] = {}
    for model in variants:
        backbone, _, variant = model.rpartition("/")
        by_backbone.setdefault(backbone, []).append(model)
        by_variant.setdefault(variant, []).append(model)
    pairs = [(b, a) for of_one in by_backbone.values() for a, b in pairwise(of_one)]
    pairs += [pair for pair in _domain_pairs(models) if pair not in pairs]
    for first, *later in [*by_backbone.values(), *by_variant.values()]:
        pairs += [(model, first) for model in later if (model, first) not in pairs]
    if "tf-idf" in models:
        pairs += [(model, "tf-idf") for model in variants]
    return pairs


def _domain_pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """Each model with a domain adapter, and the one that learns the task without step 1.

    That is of the same backbone, or else of the first that has it.
    """
    pairs = []
    for model in models:
        backbone, slash, variant = model.rpartition("/")
        parts = variant_of(variant)
        same = backbone + slash + parts.without_domain
        others = [one for one in models if one.rpartition("/")[2] == parts.without_domain]
        if parts.has_domain and others:
            pairs.append((model, same if same in others else others[0]))
    return pairs


def _records(finished: Mapping[str, Finished]) -> dict[str, TrainingRecord]:
    records = {}
    for backbone, one in finished.items():
        for cell in one.cells:
            path = one.recipe.folder.cell(cell.task, cell.variant, cell.seed) / TRAINING
            label = replace(cell, variant=model_in_study(backbone, cell.variant)).label
            records[label] = read_record(path)
    return records


def _kept_states(records: dict[str, TrainingRecord]) -> Iterator[KeptState]:
    for run, record in records.items():
        if record.kept is not None:
            evaluations = tuple(Evaluation(**asdict(one)) for one in record.kept.evaluations)
            yield KeptState(
                run=run,
                steps=record.kept.steps,
                all_steps=record.steps,
                why=record.kept.why,
                evaluations=evaluations,
            )


def _domain_records(finished: Mapping[str, Finished]) -> dict[str, TrainingRecord]:
    """How each method of step 1 was trained; the first one made the domain adapter."""
    return {
        name_in_study(backbone, name if number else _DOMAIN_STAGE): method.record
        for backbone, one in finished.items()
        for number, (name, method) in enumerate(one.methods.items())
    }


def _costs(records: dict[str, TrainingRecord], stage: str | None = None) -> Iterator[Cost]:
    """Of trainings of one stage, or of cells by their labels."""
    for name, record in records.items():
        task, model, seed = name.split(" · ") if stage is None else ("", name, "")
        yield Cost(
            model=model,
            stage=stage or f"{task} · {seed}",
            trainable_parameters=record.trainable_parameters,
            total_parameters=record.total_parameters,
            seconds=record.seconds + record.head_first_seconds,
            tokens_per_second=record.tokens / record.seconds if record.tokens else None,
            peak_memory_mib=record.peak_memory_mib,
        )


def _feature_costs(finished: Mapping[str, Finished]) -> Iterator[Cost]:
    """Of features that heads learnt from, each computed once; under the first model's name."""
    for backbone, one in finished.items():
        shown = set()
        for name in dict.fromkeys(cell.variant for cell in one.cells):
            model = task_models.task_model(one.recipe, one.prepared, name)
            if not (model.parts.trains_head_alone or one.recipe.downstream.head_first):
                continue
            found = features_cost(one.recipe, one.prepared, model.as_it_starts or model)
            if found is None or found[0] in shown:
                continue
            folder, cost = found
            shown.add(folder)
            yield Cost(
                model=model_in_study(backbone, name),
                stage="features",
                trainable_parameters=0,
                total_parameters=cost.parameters,
                seconds=cost.seconds,
                tokens_per_second=cost.tokens / cost.seconds,
                peak_memory_mib=cost.peak_memory_mib,
            )


def _split_counts(task: TaskTable) -> list[SplitCount]:
    counts = []
    for split in ("train", "validation", "test"):
        rows = task.rows(split)
        positives = task.targets_NK[rows].sum(0, dtype=int).tolist()
        counts.append(
            SplitCount(
                task=task.task.name,
                split=split,
                notes=len(rows),
                patients=len(set(task.patient_ids_N[rows].tolist())),
                positives=dict(zip(task.task.classes, positives, strict=True)),
            )
        )
    return counts


def _provenance(recipe: Recipe, prepared: Prepared) -> dict[str, str]:
    manifest = runs.read_json(prepared.folder / runs.MANIFEST)
    notes = pl.scan_parquet(prepared.folder / "notes.parquet").select(pl.len()).collect().item()
    return {
        **runs.provenance(),
        "revision": _git_revision(),
        "prepared data": manifest["files"]["notes.parquet"][:16],
        "notes": f"{notes:,}",
        "device": str(recipe.torch_device),
    }


def _git_revision() -> str:
    """Revision of the source tree this package runs from, or `release` when it is installed."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "release"
    return found.stdout.strip()
