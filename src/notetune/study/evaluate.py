"""Scores of all finished cells to one `Results` value, the source of every report."""

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from notetune import manifest, storage
from notetune.audit import CORPUS, Finding, FlowCount
from notetune.errors import ConfigError, DataError, RunError
from notetune.metrics.comparison import compare_study
from notetune.metrics.published import publication
from notetune.metrics.questions import Questions
from notetune.metrics.results import Cost, KeptState, MethodRow, PerplexityRow, Results, SplitCount
from notetune.metrics.scores import ScoreTable, read_scores
from notetune.metrics.stays import Stays, combined
from notetune.model.device import torch_device
from notetune.notes import overlap
from notetune.notes.outcomes import SPLITS
from notetune.prepare.patient_hashes import corpus_findings
from notetune.prepare.prepared import Prepared, TaskTable
from notetune.prepare.suspects import Suspects, suspect_notes
from notetune.recipe.models import name_in_study
from notetune.recipe.recipe import Recipe
from notetune.study import deletion, perplexity, questions, search
from notetune.study.features import cost_in, kept_features
from notetune.study.jobs import TRAINING, Job
from notetune.study.listing import Made, read_study
from notetune.study.notices import compat_switches, notices, of_scores
from notetune.study.specs import HybridSpec, Notes, Stage
from notetune.study.states import kept_hidden_states
from notetune.train.training import TrainingRecord, read_record

_DOMAIN_STAGE = "domain adapter"
NO_METHOD = "none"


def evaluate(recipe: Recipe) -> Results:
    """Estimate, compare and collect everything that the report shows.

    Raises:
        RunError: As of `read_study`, or if no model of the recipe is finished.
    """
    made = read_study(recipe)
    first, config = made[0], recipe.evaluate
    of_notes = first.notes.prepared.tasks
    tables, asked = _score_tables(recipe, made), questions.questions(recipe, tuple(of_notes))
    tasks, headline = compare_study(tables, asked, config.draws, config.seed)
    step_1, step_2 = _records(made, "pretrain"), _records(made, "model")
    return Results(
        title=recipe.title or recipe.name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        recipe=recipe.as_json(),
        seeds=tuple(range(max(one.seeds for one in recipe.studies.values()))),
        baselines=recipe.baselines,
        hybrids=dict(_joined(job) for one in made for job in one.done_of("hybrid")),
        flow=_flow(first.notes),
        splits=tuple(row for task in of_notes.values() for row in _split_counts(task)),
        methods=tuple(methods([job for one in made for job in one.jobs])),
        perplexity=tuple(row for one in made for row in perplexities(one.jobs)),
        learning_curves={
            _run_name(job): record.curve for job, record in {**step_1, **step_2}.items()
        },
        kept=tuple(_kept_states(step_2)),
        deletions=tuple(deletion.read(job) for one in made for job in one.done_of("deletion test")),
        searches=tuple(search.read(job) for one in made for job in one.done_of("search")),
        tasks=tuple(task.described(of_notes[task.task].task.class_descriptions) for task in tasks),
        **_on_parts(recipe, first.notes.prepared, tables, asked),
        headline=headline,
        costs=(
            *(_cost(job, record) for job, record in step_1.items()),
            *(cost for one in made for cost in _feature_costs(one)),
            *(_cost(job, record) for job, record in step_2.items()),
        ),
        leakage=tuple(dict.fromkeys(found for one in made for found in _leakage(one))),
        compat_switches=compat_switches(recipe),
        notices=(*notices(recipe, made), *_few_listed(recipe, tables), *of_scores(tasks)),
        published=publication(config.published) if config.published else None,
        provenance={**_provenance(recipe, first.notes.prepared), **_looks(recipe, asked)},
    )


def perplexities(jobs: Sequence[Job]) -> list[PerplexityRow]:
    """All perplexities that finished jobs measured."""
    return [
        row.model_copy(update={"backbone": job.backbone})
        for job in jobs
        if job.stage == "perplexity"
        for row in perplexity.read(job)
    ]


def methods(jobs: Sequence[Job]) -> list[MethodRow]:
    """The methods side by side, as in Table 2 of the paper, after a row without any."""
    of_step_1 = [job for job in jobs if job.stage == "perplexity"]
    measured = {name_in_study(job.backbone, job.method or NO_METHOD): job for job in of_step_1}
    judged = {split: perplexity.judged_on(split, measured) for split in SPLITS}
    found = []
    for name, job in measured.items():
        cost: dict[str, Any] = {}
        if job.method is not None:
            record = read_record(job.needed("pretrain").folder / TRAINING)
            cost = {"seconds": record.seconds, "processes": record.processes, **_cost_of(record)}
        # The last row of a split is over all sources.
        rows = {row.split: row for row in perplexity.read(job)}
        by_split = {split: row.perplexity for split, row in rows.items()}
        of_method = {split: of[name] for split, of in judged.items() if name in of}
        found.append(
            MethodRow(
                method=name,
                perplexity=by_split,
                intervals={split: one.interval for split, one in of_method.items()},
                standing=of_method["test"].standing if "test" in of_method else None,
                **cost,
            )
        )
    return found


def _joined(job: Job) -> tuple[str, tuple[str, ...]]:
    """A hybrid and what it joins, as reports call them."""
    assert job.model
    assert job.model.stands_on
    return job.model.label, (*job.spec_as(HybridSpec).parts[:-1], job.model.stands_on.label)


def _leakage(one: Made) -> Iterator[Finding]:
    prepared, corpus = one.notes.prepared, one.notes.corpus
    is_read = one.recipe.has_step_1
    yield from (found for found in prepared.findings if is_read or found.split_b != CORPUS)
    own = corpus.findings if corpus is not prepared else ()
    yield from (finding for finding in own if finding.split_b == CORPUS)
    for job in one.done_of("pretrain"):
        if job.is_domain and not job.seed:
            yield from corpus_findings(job.folder, prepared)


def _flow(notes: Notes) -> tuple[FlowCount, ...]:
    of_corpus = notes.corpus.flow if notes.corpus is not notes.prepared else ()
    named = [replace(stage, stage=f"corpus of step 1: {stage.stage}") for stage in of_corpus]
    return (*notes.prepared.flow, *named)


def _score_tables(recipe: Recipe, made: Sequence[Made]) -> list[ScoreTable]:
    """Test and validation scores of all models, task by task, in the order to show."""
    tasks = dict.fromkeys(name for one in made for name in one.notes.prepared.tasks)
    tables = [
        table
        for task, one, split in product(tasks, made, ("test", "validation"))
        for table in _tables_of(recipe, one, task, split)
    ]
    if not any(table.split == "test" for table in tables):
        raise RunError(
            f"{recipe.folder.root} holds no scores yet; run `notetune downstream` or "
            "`notetune study run` with this recipe first. Without tasks use `notetune pretrain`."
        )
    return tables


def _tables_of(recipe: Recipe, one: Made, task: str, split: str) -> Iterator[ScoreTable]:
    """Those of one backbone on a task; a hybrid may have parts that are not shown."""
    shown, how = set(recipe.models), recipe.evaluate.combine
    for job in (job for stage in ("baseline", "model", "hybrid") for job in one.done_of(stage)):
        path = job.folder / f"{split}.parquet"
        if job.task == task and job.model and job.model in shown and path.is_file():
            manifest.refuse_damaged(job.folder, path.name)
            table = replace(read_scores(path), model=job.model.label)
            yield table if how == "none" else combined(table, one.notes.prepared.stays, how)


def _on_parts(
    recipe: Recipe, prepared: Prepared, tables: Sequence[ScoreTable], asked: Questions
) -> dict[str, Any]:
    """The same scores on parts of the test notes: of listed patients, and without suspect notes."""
    tests, config = [table for table in tables if table.split == "test"], recipe.evaluate
    settings = Questions(runs=asked.runs), config.draws, config.seed
    suspects = suspect_notes(prepared) if tests else {}
    if config.combine != "none":
        suspects = {
            task: {what: Stays.of(ids, prepared.stays).ids_S for what, ids in found.items()}
            for task, found in suspects.items()
        }
    return {
        "listed_patients": compare_study(_drawn(_of_listed_patients(recipe, tests)), *settings)[0],
        "unsuspected": compare_study(_drawn(_without(suspects, tests)), *settings)[0],
        "suspects": {t: {what: len(ids) for what, ids in f.items()} for t, f in suspects.items()},
    }


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


def _drawn(tables: Iterable[ScoreTable]) -> list[ScoreTable]:
    """Those of more than one patient, whom draws need."""
    return [table for table in tables if len(np.unique(table.patient_ids_N)) > 1]


def _few_listed(recipe: Recipe, tables: Sequence[ScoreTable]) -> Iterator[str]:
    """Say on which tasks too few listed patients are left."""
    if recipe.evaluate.listed_patients is None:
        return
    tests = [table for table in tables if table.split == "test"]
    scored = {table.task for table in _drawn(_of_listed_patients(recipe, tests))}
    for task in dict.fromkeys(table.task for table in tests if table.task not in scored):
        yield (
            f"{task}: evaluate.listed_patients has fewer than two test patients; is "
            f"{recipe.evaluate.listed_patients.column} the patient id of the same data set?"
        )


def _without(suspects: Mapping[str, Suspects], tables: Sequence[ScoreTable]) -> list[ScoreTable]:
    """The scores of tasks with suspect notes on all others."""
    found = []
    for table in tables:
        if table.task in suspects:
            left_out = np.concatenate(list(suspects[table.task].values()))
            kept = table.of_notes(np.setdiff1d(table.note_ids_N, left_out))
            found += [kept] if kept is not None else []
    return found


def refuse_unready(recipe: Recipe) -> None:
    """Look for what the estimates need beside scores, before anything is trained for them.

    Raises:
        RunError: As of `refuse_foreign_looks`.
        ConfigError: If nothing will be scored, or the file of listed patients is faulty.
    """
    refuse_foreign_looks(recipe)
    if not recipe.models:
        raise ConfigError(
            "the recipe scores no model; name one in downstream.variants or evaluate.baselines. "
            "`notetune pretrain` makes step 1 alone."
        )
    if listed := recipe.evaluate.listed_patients:
        try:
            overlap.listed_patients(recipe.data / listed.file, listed.column)
        except DataError as error:
            raise ConfigError(f"evaluate.listed_patients: {error}") from None


def refuse_foreign_looks(recipe: Recipe) -> Path:
    """Where looks at the test scores are counted.

    Raises:
        RunError: If something else stands there.
    """
    path = recipe.folder.root / "looks.json"
    storage.refuse_foreign_json(
        path, lambda looks: bool(looks) and all(map(_is_count, looks.items()))
    )
    return path


def _is_count(look: tuple[str, Any]) -> bool:
    family, count = look
    return re.fullmatch(r"[0-9a-f]{16}", family) is not None and type(count) is int and count > 0


def _looks(recipe: Recipe, asked: Questions) -> dict[str, str]:
    """Which comparisons are primary, and how often the test scores were looked at, with this look.

    Whoever changes the family after a look at the test scores chooses what to find.
    """
    path = refuse_foreign_looks(recipe)
    looks: dict[str, int] = storage.read_json(path) if path.is_file() else {}
    family = questions.fingerprint(asked)
    looks[family] = looks.get(family, 0) + 1
    storage.write_json(path, looks)
    alone = [refuse_foreign_looks(one) for one in recipe.studies.values()]
    counted = [storage.read_json(file) for file in {*alone} - {path} if file.is_file()]
    total = sum(sum(one.values()) for one in (looks, *counted))
    return {
        "primary comparisons": family,
        "looks at the test scores": (
            f"{total}, of these {looks[family]} with these primary comparisons"
        ),
    }


def _records(made: Sequence[Made], stage: Stage) -> dict[Job, TrainingRecord]:
    """How the jobs of a stage were trained, those of further runs of step 1 aside."""
    return {
        job: read_record(job.folder / TRAINING)
        for one in made
        for job in one.done_of(stage)
        if stage == "model" or not job.seed
    }


def _run_name(job: Job) -> str:
    """What the report calls a training."""
    if job.model:
        return f"{job.task} · {job.model.label} · seed {job.seed}"
    return name_in_study(job.backbone, _DOMAIN_STAGE if job.is_domain else job.method or NO_METHOD)


def _kept_states(records: dict[Job, TrainingRecord]) -> Iterator[KeptState]:
    for job, record in records.items():
        if record.kept is not None:
            yield KeptState(run=_run_name(job), all_steps=record.steps, **vars(record.kept))


def _cost(job: Job, record: TrainingRecord) -> Cost:
    return Cost(
        model=job.model.label if job.model else _run_name(job),
        stage=f"{job.task} · seed {job.seed}" if job.model else job.stage,
        seconds=record.all_seconds,
        **_cost_of(record),
    )


def _cost_of(record: TrainingRecord) -> dict[str, Any]:
    return {
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        "tokens_per_second": record.tokens / record.seconds if record.tokens else None,
        "peak_memory_mib": record.peak_memory_mib,
    }


def _feature_costs(one: Made) -> Iterator[Cost]:
    """Of features and states that models start from, each computed once; under the first's name."""
    shown = set()
    kinds = {"features": kept_features, "states": kept_hidden_states}
    for job, (stage, kept) in product(one.done_of("model"), kinds.items()):
        found = None if job.seed else cost_in(kept(job, one.notes.prepared)[0])
        if found is None or found[0] in shown or job.model is None:
            continue
        folder, cost = found
        shown.add(folder)
        yield Cost(
            model=job.model.label,
            stage=stage,
            trainable_parameters=0,
            total_parameters=cost.parameters,
            seconds=cost.seconds,
            tokens_per_second=cost.tokens / cost.seconds,
            peak_memory_mib=cost.peak_memory_mib,
        )


def _split_counts(task: TaskTable) -> Iterator[SplitCount]:
    for split in SPLITS:
        rows = task.rows(split)
        positives = task.targets_NK[rows].sum(0, dtype=int).tolist()
        yield SplitCount(
            task=task.task.name,
            split=split,
            notes=len(rows),
            patients=len(set(task.patient_ids_N[rows].tolist())),
            positives=dict(zip(task.task.classes, positives, strict=True)),
        )


def _provenance(recipe: Recipe, prepared: Prepared) -> dict[str, str]:
    return {
        **manifest.provenance(),
        "revision": _git_revision(),
        "prepared data": manifest.files_of(prepared.folder)["notes.parquet"][:16],
        "notes": f"{len(prepared.store.note_ids):,}",
        "device": str(torch_device(recipe.device)),
    }


def _git_revision() -> str:
    """Revision of the source tree this package runs from, or `release` when it is installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():  # of an installed package git would find the tree around it
        return "release"
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "release"
    return found.stdout.strip()
