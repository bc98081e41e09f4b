"""A whole study: every job in order, each skipped when it is already done."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from notetune import runs
from notetune.errors import RunWarning
from notetune.metrics.results import Results
from notetune.model.backbone_folder import resolve_backbone
from notetune.prepare import encoders
from notetune.prepare.build import prepare
from notetune.prepare.prepared import Intake, Prepared
from notetune.prepare.settings import EncodeSpec
from notetune.progress import Track, named, silent
from notetune.study import baselines, perplexity, step1, step2
from notetune.study.evaluate import evaluate, refuse_foreign_looks
from notetune.study.jobs import Job, Stage, jobs_of
from notetune.study.recipe import Recipe
from notetune.study.specs import Notes
from notetune.study.wanted import facts_of
from notetune.tokens.edges import read_declared

_RECIPE = "recipe.json"
_SECTIONS = frozenset({"name", "prepare", "pretrain", "downstream", "evaluate"})


_RUNS: Mapping[Stage, Callable[[Job, Notes, Track], None]] = {
    "pretrain": lambda job, notes, track: step1.train_domain(job, notes.corpus, track),
    "perplexity": lambda job, notes, _: perplexity.measure(job, notes.corpus),
    "encode": lambda job, notes, _: _encode(job, notes.prepared),
    "baseline": lambda job, notes, _: baselines.score_baseline(job, notes.prepared),
    "model": lambda job, notes, track: step2.train_model(job, notes.prepared, track),
    "hybrid": lambda job, notes, _: baselines.join(job, notes.prepared),
}


def run_study(recipe: Recipe, track: Track = silent) -> Results:
    """Run all jobs of a recipe in its run folder and estimate the results.

    A run that was killed goes on: what is finished is kept.

    Raises:
        NotetuneError: What any job raises; one that fails leaves nothing half-written.
    """
    with ExitStack() as held:
        # The recipe's own folder last: taking it clears what is half-written in all of them.
        folders = [*(one.folder for one in recipe.studies.values()), recipe.folder]
        for root in dict.fromkeys(folder.root for folder in folders):
            held.enter_context(runs.locked(root))
            runs.refuse_foreign_json(root / _RECIPE, _SECTIONS.issubset)
        refuse_foreign_looks(recipe)
        runs.write_json(recipe.folder.root / _RECIPE, recipe.as_json())
        done: list[Job] = []
        for backbone, one in recipe.studies.items():
            notes = prepare_notes(one)
            resolved = _resolved(one, notes.prepared.intake)
            runs.write_json(one.folder.root / _RECIPE, resolved.as_json())
            listed = jobs_of(one, backbone, facts_of(one, notes), done)
            run_jobs(listed, notes, named(track, backbone))
            done += listed
        return evaluate(recipe)


def prepare_notes(recipe: Recipe) -> Notes:
    """Prepare the notes of the tasks and of step 1, unless that was done."""
    corpus = recipe.corpus
    for spec in filter(None, (recipe.preparation, corpus)):
        _say_if_older(spec.folder)
    prepared = prepare(recipe.preparation)
    return Notes(prepared, prepare(corpus, prepared) if corpus else prepared)


def run_jobs(jobs: Sequence[Job], notes: Notes, track: Track = silent) -> None:
    """Run jobs on notes that are prepared, in order; what is made is skipped.

    Raises:
        NotetuneError: What any job raises; a step 1 that could not begin, before all else.
    """
    for job in jobs:
        if job.stage == "pretrain" and not job.is_made():
            step1.refuse(job, notes.corpus)
    for job in jobs:
        if job.stage in _RUNS and not job.is_made(is_checked=True):
            _say_if_older(job.folder)
            _RUNS[job.stage](job, notes, track)


def _say_if_older(folder: Path) -> None:
    if runs.is_older(folder):
        warnings.warn(
            RunWarning(f"{folder} was made by an earlier version of notetune; it is made again."),
            stacklevel=2,
        )


def _encode(job: Job, prepared: Prepared) -> None:
    spec, place = job.spec, job.place
    assert isinstance(spec, EncodeSpec)
    most = encoders.outline_encoder(place.backbone, place.key).max_positions
    with runs.new_folder(job.folder, job.inputs) as temporary:
        encoders.write_tokens(spec, place.backbone, most, prepared, temporary)


def _resolved(recipe: Recipe, intake: Intake) -> Recipe:
    """The recipe with what was chosen for its notes in place of `auto`."""
    longest, config = intake.max_tokens, recipe.prepare
    declared = read_declared(resolve_backbone(recipe.backbone))
    opener = declared.name_of(intake.edges) or config.opener
    pieces = recipe.max_pieces(intake.whole_pieces, longest)
    return recipe.model_copy(
        update={
            "prepare": config.model_copy(update={"opener": opener, "max_tokens": longest}),
            "downstream": recipe.downstream.model_copy(update={"max_pieces": pieces}),
        }
    )
