"""Where a study stands: what is made, who makes what, what failed and why, and the time left."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Literal

from notetune import manifest, storage
from notetune.errors import NotetuneError
from notetune.journal import Event, Journal
from notetune.lease import Holder, holder_of, holders_below, this_process
from notetune.recipe.recipe import Recipe
from notetune.search.ledger import Trial
from notetune.study.jobs import Job
from notetune.study.last_recipe import other_keys
from notetune.study.listing import jobs
from notetune.study.specs import KINDS, SearchSpec
from notetune.study.trials import trials_of

State = Literal["done", "running", "failed", "older format", "open"]
_WAY_OUT = "move it away; nothing that was made depends on it."


@dataclass(frozen=True)
class Status:
    """One job of a study.

    Attributes:
        state: `older format` if an earlier version of notetune made what is there.
        detail: How many trials of a search are over; who makes it since when, or why it failed.
    """

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Attributes:
        folder: The run folder that was looked in.
        jobs: All that are known; those that read notes are known once these are prepared.
        seconds_left: Until all jobs are made, by those that took as long before: of the same
            model and task, or else the same model, or else the same kind; None if none is known.
        untimed: Jobs that are not made and like which none was.
        places: Workers among which those could be shared.
        other_keys: As of `other_keys`.
    """

    folder: Path
    jobs: tuple[Status, ...]
    workers: int
    seconds_left: float | None
    untimed: int
    places: int
    other_keys: tuple[str, ...] = ()


class Diary:
    """What became of the jobs of a run folder, by the workers that tried them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._journal = Journal(root / "jobs.jsonl", {"format": 1, "of": "jobs"}, _WAY_OUT)

    def made(self, job: Job, seconds: float) -> None:
        """A job is made."""
        self._append({"event": "made", "seconds": round(seconds, 3)}, job)

    def failed(self, job: Job, error: Exception) -> None:
        """A job failed; of an unexpected error no more than its kind is kept."""
        told = str(error) if isinstance(error, NotetuneError) else storage.fault_of(error)
        why = told or f"{type(error).__name__}, a bug of notetune"
        self._append({"event": "failed", "why": why}, job)

    def last_events(self) -> dict[str, Event]:
        """What became of each folder at last, by its normal path.

        Raises:
            RunError: If an event is none that this class records, or as `Journal.events`.
        """
        events = self._journal.events()
        for number, event in enumerate(events, start=2):
            if not _is_ours(event):
                self._journal.refuse_line(number)
        return {os.path.normpath(self._root / event["job"]): event for event in events}

    def _append(self, event: Event, job: Job) -> None:
        where = Path(os.path.relpath(job.folder, self._root)).as_posix()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"job": where, "by": this_process().name, "at": now}
        self._journal.append(lambda _: [{**about, **event}])


def _is_ours(event: Event) -> bool:
    seconds, why = event.get("seconds"), event.get("why")
    is_made = event.get("event") == "made" and isinstance(seconds, int | float)
    is_failed = event.get("event") == "failed" and isinstance(why, str)
    return isinstance(event.get("job"), str) and (is_made or is_failed)


def progress(recipe: Recipe, *, is_checked: bool = True) -> Progress:
    """Where a study stands now; every file `is_checked` unless it is only to be looked for."""
    listed = list(dict.fromkeys(jobs(recipe)))
    roots = dict.fromkeys((recipe.folder.root, *(s.folder.root for s in recipe.studies.values())))
    events = {at: event for root in roots for at, event in Diary(root).last_events().items()}
    last = {job: events.get(os.path.normpath(job.folder), {}) for job in listed}
    of_jobs = {job: _holders(job) for job in listed}
    made = {job for job in listed if job.is_made(is_checked=is_checked)}
    lines = [_status(job, job in made, of_jobs[job], last[job]) for job in listed]
    workers = len({(one.host, one.process) for found in of_jobs.values() for one in found})
    left, untimed = _seconds_left(listed, made, of_jobs, last)
    places = sum(_places_left(job) for job in listed if job not in made)
    left = left and left / max(1, workers)
    folder = recipe.folder.root.absolute()
    keys = other_keys(recipe) if len(made) < len(listed) else ()
    return Progress(folder, tuple(lines), workers, left, untimed, places, keys)


def _holders(job: Job) -> list[Holder]:
    """Who makes a job, or the trials of a search, which are beside it."""
    if job.stage == "search":
        return holders_below(job.folder.parent)
    return [holder] if (holder := holder_of(job.folder)) else []


def _status(job: Job, is_made: bool, holders: list[Holder], last: Event) -> Status:  # noqa: FBT001
    if is_made and not holders:
        return Status(job.name, "done")
    tried = _tried(job)
    if holders:
        return Status(job.name, "running", "; ".join((*tried, *map(_at_work, holders))))
    if last.get("event") == "failed":
        return Status(job.name, "failed", last["why"])
    is_older = manifest.is_older(job.folder, KINDS[job.stage].format)
    return Status(job.name, "older format" if is_older else "open", *tried)


def _tried(job: Job) -> list[str]:
    """How far a search is that has begun."""
    trials = _trials(job) if isinstance(job.spec, SearchSpec) else ()
    over = sum(trial.state != "running" for trial in trials)
    return [f"{over} of {job.spec_as(SearchSpec).trials} trials are over"] if trials else []


def _at_work(holder: Holder) -> str:
    since = datetime.fromtimestamp(holder.since).astimezone().isoformat(" ", "minutes")
    return f"{holder.name} since {since}"


def _seconds_left(
    listed: Iterable[Job],
    made: set[Job],
    holders: Mapping[Job, list[Holder]],
    last: Mapping[Job, Event],
) -> tuple[float | None, int]:
    """The work of jobs that are not made, and how many there are whose work is not known."""
    times: dict[tuple[str, ...], list[float]] = {}
    for job in listed:
        if seconds := _times(job, job in made, last[job]):
            for key in _likeness(job):
                times.setdefault(key, []).extend(seconds)
    known, untimed = [], 0
    for job in (job for job in listed if job not in made):
        like = next((times[key] for key in _likeness(job) if key in times), None)
        if like is None:
            untimed += 1
            continue
        # By clocks that may disagree.
        spent = sum(max(0.0, time.time() - holder.since) for holder in holders[job])
        known.append(max(0.0, _places_left(job) * mean(like) - spent))
    return (sum(known) if known or not untimed else None), untimed


def _times(job: Job, is_made: bool, last: Event) -> list[float]:  # noqa: FBT001
    """How long a job took, or each trial of a search, which itself takes no time."""
    if isinstance(job.spec, SearchSpec):
        return [trial.seconds for trial in _trials(job) if trial.seconds]
    return [last["seconds"]] if is_made and last.get("seconds") else []


def _places_left(job: Job) -> int:
    """What of a job that is not made can be made side by side: itself, or trials."""
    if not isinstance(job.spec, SearchSpec):
        return 1
    return max(1, job.spec.trials - sum(trial.state != "running" for trial in _trials(job)))


def _trials(search: Job) -> Sequence[Trial]:
    """None where what the search needs is not made yet."""
    return trials_of(search) if all(need.is_made() for need in search.needs) else ()


def _likeness(job: Job) -> list[tuple[str, ...]]:
    """What jobs that take about as long have in common, the closest first."""
    model = job.model.label if job.model else job.method or ""
    of_model = (job.stage, job.backbone, model)
    return [(*of_model, job.task), of_model, (job.stage, job.backbone)]
