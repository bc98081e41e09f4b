"""Single jobs of a study, as tests run them."""

from notetune.progress import silent
from notetune.study.jobs import OF_NOTES
from notetune.study.listing import jobs_of
from notetune.study.run import prepare_notes, run_job
from notetune.study.wanted import facts_of


def jobs_on(recipe, notes=None):
    """All jobs of a recipe of one backbone; its notes are prepared unless they are given."""
    notes = notes or prepare_notes(recipe)
    return jobs_of(recipe, "", facts_of(recipe, notes))


def find(recipe, stage, *, task="", model=None, method=None, seed=0, notes=None):
    """The job of a stage; `model` is the name of its model, `method` that of step 1."""
    (found,) = (
        job
        for job in jobs_on(recipe, notes)
        if (job.stage, job.task, job.seed) == (stage, task, seed)
        and (model is None or job.model.name == model)
        and (method is None or job.method == method)
    )
    return found


def domain_job(recipe, seed=0, notes=None):
    """Step 1 of one run."""
    method = recipe.pretrain.adapter.kind
    return find(recipe, "pretrain", method=method, seed=seed, notes=notes)


def model_job(recipe, task, model, seed=0, notes=None):
    """A model of step 2 on a task in one run."""
    return find(recipe, "model", task=task, model=model, seed=seed, notes=notes)


def run(recipe, *jobs, track=silent, notes=None):
    """Run jobs with what they need, unless that is made."""
    notes = notes or prepare_notes(recipe)
    for job in jobs:
        run_jobs([*_needed(job), job], notes, track)


def train(recipe, task, model, seed=0, track=silent):
    """Train a model of step 2 with what it needs; its folder."""
    job = model_job(recipe, task, model, seed)
    run(recipe, job, track=track)
    return job.folder


def run_jobs(jobs, notes, track=silent):
    """Run jobs in order; what is made is skipped."""
    for job in jobs:
        if job.stage not in OF_NOTES and not job.is_made(is_checked=True):
            run_job(job, notes, track)


def _needed(job):
    for need in job.needs:
        yield from _needed(need)
        yield need
