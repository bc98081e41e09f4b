"""Scores of all finished cells to one `Results` value, the source of every report."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from notetune import runs
from notetune.errors import RunError
from notetune.metrics.comparison import compare_study
from notetune.metrics.questions import Questions
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
from notetune.workflows import baselines, hybrids, primary, task_models
from notetune.workflows.features import features_cost
from notetune.workflows.finished import Finished
from notetune.workflows.methods import method_rows, perplexity_rows
from notetune.workflows.notices import compat_switches, notices
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.prepare_checks import CORPUS
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.provenance import corpus_findings
from notetune.workflows.recipe import Recipe
from notetune.workflows.training import TrainingRecord, read_record
from notetune.workflows.variants import model_in_study, name_in_study

_DOMAIN_STAGE = "domain adapter"
_SPLITS = ("test", "validation")


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
    tables, asked = _score_tables(recipe, finished), primary.questions(recipe)
    tasks, headline = compare_study(tables, asked, config.draws, config.seed)
    of_listed = _of_listed_patients(recipe, [t for t in tables if t.split == "test"])
    listed, _ = compare_study(of_listed, Questions(runs=asked.runs), config.draws, config.seed)
    step_1 = _domain_records(finished)
    trained = _records(finished)
    seeds = tuple(range(recipe.seeds))
    return Results(
        title=recipe.title or recipe.name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        recipe=recipe.as_json(),
        seeds=seeds,
        baselines=recipe.baselines,
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
        provenance={**_provenance(recipe, prepared), **_looks(recipe, asked)},
    )


def _methods(finished: Mapping[str, Finished]) -> Iterator[MethodRow]:
    for name, one in finished.items():
        for row in method_rows(one.methods):
            yield row.model_copy(update={"method": name_in_study(name, row.method)})


def _perplexities(finished: Mapping[str, Finished]) -> Iterator[PerplexityRow]:
    for name, one in finished.items():
        for row in perplexity_rows(one.methods):
            yield row.model_copy(update={"model": name_in_study(name, row.model)})


def _learning_curves(records: dict[str, TrainingRecord]) -> dict[str, tuple[CurvePoint, ...]]:
    return {
        name: tuple(CurvePoint(**asdict(point)) for point in record.curve)
        for name, record in records.items()
    }


def _leakage(first: Finished) -> Iterator[LeakageFinding]:
    of_corpus = corpus_findings(first.recipe.folder.domain(0), first.prepared)
    own = first.corpus.findings if first.corpus is not first.prepared else ()
    texts = [finding for finding in own if finding.split_b == CORPUS]
    for finding in (*first.prepared.findings, *texts, *of_corpus):
        yield LeakageFinding(**asdict(finding))


def _flow(first: Finished) -> Iterator[FlowStage]:
    for stage in first.prepared.flow:
        yield FlowStage(**asdict(stage))
    if first.corpus is not first.prepared:
        for stage in first.corpus.flow:
            yield FlowStage(**{**asdict(stage), "stage": f"corpus of step 1: {stage.stage}"})


def _score_tables(recipe: Recipe, finished: Mapping[str, Finished]) -> list[ScoreTable]:
    """Test and validation scores of baselines and cells, task by task, in the order to show."""
    tables = []
    for task in dict.fromkeys(name for one in finished.values() for name in one.prepared.tasks):
        for backbone, one in finished.items():
            folders = list(_trained_folders(one, task))
            paths = [folder / f"{split}.parquet" for split in _SPLITS for folder in folders]
            found = [read_scores(path) for path in paths if path.is_file()]
            tables += [
                replace(table, model=model_in_study(backbone, table.model)) for table in found
            ]
    if not any(table.split == "test" for table in tables):
        raise RunError(
            f"{recipe.folder.root} holds no scores yet; run `notetune downstream` or "
            "`notetune study run` with this recipe first."
        )
    return tables


def _trained_folders(one: Finished, task: str) -> Iterator[Path]:
    """Folders of the baselines and cells of a task, made as the recipe says now."""
    folder = one.recipe.folder
    for baseline in one.recipe.baselines:
        if baselines.is_made(one.recipe, one.prepared, task, baseline):
            yield folder.cell(task, baseline, 0)
    for cell in (*one.cells, *hybrids.made_cells(one.recipe, one.prepared, one.cells)):
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


def refuse_foreign_looks(recipe: Recipe) -> Path:
    """Where looks at the test scores are counted.

    Raises:
        RunError: If something else stands there.
    """
    path = recipe.folder.root / "looks.json"
    runs.refuse_foreign_json(path, lambda looks: bool(looks) and all(map(_is_count, looks.items())))
    return path


def _is_count(look: tuple[str, Any]) -> bool:
    family, count = look
    return re.fullmatch(r"[0-9a-f]{16}", family) is not None and type(count) is int and count > 0


def _looks(recipe: Recipe, asked: Questions) -> dict[str, str]:
    """Which comparisons are primary, and how often the test scores were looked at, with this look.

    Whoever changes the family after a look at the test scores chooses what to find.
    """
    path = refuse_foreign_looks(recipe)
    looks: dict[str, int] = runs.read_json(path) if path.is_file() else {}
    family = primary.fingerprint(asked.primary)
    looks[family] = looks.get(family, 0) + 1
    runs.write_json(path, looks)
    return {
        "primary comparisons": family,
        "looks at the test scores": (
            f"{sum(looks.values())}, of these {looks[family]} with these primary comparisons"
        ),
    }


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
            seconds=record.all_seconds,
            tokens_per_second=record.tokens / record.seconds if record.tokens else None,
            peak_memory_mib=record.peak_memory_mib,
        )


def _feature_costs(finished: Mapping[str, Finished]) -> Iterator[Cost]:
    """Of features that heads learnt from, each computed once; under the first model's name."""
    for backbone, one in finished.items():
        shown = set()
        for name in dict.fromkeys(cell.variant for cell in one.cells):
            model = task_models.task_model(one.recipe, one.prepared, name)
            found = features_cost(one.recipe, one.prepared, model.as_it_starts, 0)
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
