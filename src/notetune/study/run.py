"""A whole study: any number of workers make its jobs, each of them once, and one evaluates."""

import pkgutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from notetune import __version__, claims, lease, manifest, storage
from notetune.errors import ConfigError, RunError, RunWarning, WriteError
from notetune.lease import Holder
from notetune.metrics.results import Results
from notetune.model.backbone_folder import resolve_backbone
from notetune.prepare.build import prepare
from notetune.prepare.prepared import Intake, open_prepared
from notetune.prepare.settings import Preparation
from notetune.progress import Track, in_one_step, named, silent
from notetune.recipe.recipe import Recipe
from notetune.study import search, step1
from notetune.study.evaluate import evaluate, refuse_unready
from notetune.study.jobs import OF_NOTES, Job
from notetune.study.last_recipe import RECIPE, SECTIONS, as_kept, other_files, other_keys
from notetune.study.listing import jobs_of, notes_here
from notetune.study.specs import KINDS, Notes
from notetune.study.states import is_computed_elsewhere
from notetune.study.status import Diary
from notetune.study.wanted import check_backbones, facts_of
from notetune.tokens.edges import read_declared
from notetune.train import processes

_SECONDS_BETWEEN_LOOKS = 2.0


def run_study(recipe: Recipe, track: Track = silent) -> Results:
    """Make all jobs of a recipe in its run folder, and estimate the results.

    A run that was killed goes on: what is finished is kept.

    Raises:
        NotetuneError: What a job raised, once all that do not need it are made.
    """
    refuse_unready(recipe)
    work(recipe, track)
    return evaluated(recipe, track)


def evaluated(recipe: Recipe, track: Track = silent) -> Results:
    """The results of a study whose jobs are made."""
    return in_one_step(track, "evaluate", partial(evaluate, recipe))


def work(
    recipe: Recipe, track: Track = silent, is_wanted: Callable[[Job], bool] = lambda _: True
) -> list[Job]:
    """Make what is not made, job by job, until nothing is left that this process could make.

    Any number of processes may work on one run folder, on any machines that share it. Those that
    `torchrun` started train together, and the first one decides what. `is_wanted` says which jobs;
    all that others need must be among them, but for the notes.

    Returns:
        All jobs that are wanted, with those that prepare their notes.

    Raises:
        NotetuneError: What a job raised, once all that do not need it are made; at once, if a step
            1 could not begin, or if others work on the run folder with another recipe, another
            version, or other notes.
    """
    worker = _Worker(recipe, track, is_wanted)
    worker.begin()
    if processes.is_first():
        while worker.makes_one():
            worker.look_at_notes()
        processes.told(None)
    else:
        worker.follow()
    if not worker.failed:
        return worker.listed
    first, *others = worker.failed.values()
    if others:
        also = f"{len(others)} other job{'s' * (len(others) > 1)} failed too"
        _say(f"{also}; `notetune study status` says why")
    raise first


def is_of_step_1(job: Job) -> bool:
    """Whether a job belongs to `notetune pretrain`."""
    return job.stage in ("pretrain", "perplexity") or (job.stage == "search" and not job.task)


def is_of_searches(job: Job) -> bool:
    """Whether a job is a search, or step 1, on which those of step 2 stand."""
    return job.stage in ("search", "pretrain", "perplexity")


def run_job(job: Job, notes: Notes | None, track: Track = silent) -> None:
    """Make what a job says, of what it needs and the notes of its backbone; None to prepare them.

    Raises:
        NotetuneError: What its code raises; nothing half-written is left.
    """
    kind = KINDS[job.stage]
    if manifest.is_older(job.folder, kind.format):
        _say(f"{job.folder} was made by an earlier version of notetune; it is made again")
    if isinstance(job.spec, Preparation):
        like = (open_prepared(need.folder) for need in job.needs)
        if processes.is_first():
            in_one_step(track, job.label, partial(prepare, job.spec, *like))
    elif notes and kind.maker:
        make = pkgutil.resolve_name(f"{__package__}.{kind.maker}")
        if kind.shows_steps:
            make(job, notes, track)
        else:
            in_one_step(track, job.label, partial(make, job, notes))
    if processes.is_first() and not job.is_made():
        raise RunError(
            f"{job.folder}: what it is made from changed meanwhile; run the same command again, "
            "once the notes and the backbone stay as they are."
        )


def prepare_notes(recipe: Recipe, track: Track = silent) -> Notes:
    """Prepare the notes of the tasks and of step 1, unless that was done."""
    for job in jobs_of(recipe, "", None):
        if not job.is_made(is_checked=True):
            run_job(job, None, track)
    return notes_here(recipe)


@dataclass(frozen=True)
class _Piece:
    """What one process makes at a time: a job, or a trial of a search."""

    folder: Path
    is_open: Callable[[], bool]
    make: Callable[[Track], None]
    is_trial: bool = False


@dataclass
class _Worker:
    """One of the processes that make the jobs of a study.

    Attributes:
        is_wanted: Which jobs to make, besides preparing the notes.
        notes: Of each backbone whose notes are prepared.
        known: The jobs of each backbone, those that read notes once these are prepared.
        made: Jobs that were seen to be whole.
        stale: Backbones of which more can be listed by now.
        failed: What jobs raised in this process.
    """

    recipe: Recipe
    track: Track
    is_wanted: Callable[[Job], bool]
    notes: dict[str, Notes] = field(default_factory=dict)
    known: dict[str, list[Job]] = field(default_factory=dict)
    made: set[Job] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    failed: dict[Job, Exception] = field(default_factory=dict)

    def begin(self) -> None:
        """Clear what killed workers left.

        Raises:
            BackboneError: If a backbone or an encoder cannot be used.
            RunError: If a live worker has another recipe, version or notes.
        """
        check_backbones(self.recipe)
        for one in self.recipe.studies.values():
            step1.refuse_misfit(one)
        root = self.recipe.folder.root
        for one in (*self.recipe.studies.values(), self.recipe):
            storage.refuse_foreign_json(one.folder.root / RECIPE, SECTIONS.issubset)
        if processes.is_first():
            claims.clear_parts(root)
            others = lease.holders_below(root)
            _refuse_others(self.recipe, others)
            self._tell_replaced()
            storage.write_json(root / RECIPE, as_kept(self.recipe))
        self.look_at_notes()

    def _tell_replaced(self) -> None:
        """Say of which key the notes that stand there, and are prepared anew, are another one."""
        keys = [key for key in other_keys(self.recipe) if key.startswith("prepare.")]
        preparing = [job for one in self.recipe.studies.values() for job in jobs_of(one, "", None)]
        old = [job.folder for job in preparing if manifest.made_from(job.folder)]
        if keys and old and not all(job.is_made() for job in preparing if job.folder in old):
            _say(
                f"{self.recipe.folder.root} was last worked on with another {keys[0]}: its notes "
                "are prepared anew, and what reads what changed replaces the old; `name=other` "
                "keeps both"
            )

    @property
    def listed(self) -> list[Job]:
        """The jobs that are known by now, in order."""
        jobs = [job for known in self.known.values() for job in known]
        return [job for job in jobs if job.stage in OF_NOTES or self.is_wanted(job)]

    def follow(self) -> None:
        """Train with the first process, which says what, until it ends."""
        while (number := processes.told(None)) is not None:
            self.look_at_notes()
            job = self.listed[number]
            run_job(job, self.notes.get(job.backbone), named(self.track, job.backbone))

    def look_at_notes(self) -> None:
        """List the jobs of each backbone whose notes are prepared, and those of all before it."""
        are_known = True
        for backbone, one in self.recipe.studies.items():
            if backbone in self.notes and backbone not in self.stale:
                continue
            self.known[backbone] = jobs_of(one, backbone, None)
            jobs = self.known[backbone]
            are_known = are_known and all(job.is_made(is_checked=True) for job in jobs)
            if are_known:
                self._list(backbone, one)

    def _list(self, backbone: str, one: Recipe) -> None:
        self.stale.discard(backbone)
        self.notes[backbone] = notes = notes_here(one)
        others = [job for known in self.known.values() for job in known]
        self.known[backbone] = jobs_of(one, backbone, facts_of(one, notes), others)
        if processes.is_first():
            resolved = _resolved(one, notes.prepared.intake)
            storage.write_json(one.folder.root / RECIPE, as_kept(resolved))
        for job in (job for job in self.known[backbone] if not job.is_made()):
            if job.stage == "pretrain":
                step1.refuse(job, notes.corpus)
            if job.stage == "search" and self.is_wanted(job) and processes.are_several():
                raise ConfigError(
                    "tune: each trial runs in one process; run `notetune tune` before torchrun."
                )

    def makes_one(self) -> bool:
        """Make the first job that can be made now, or a trial; whether there may be another."""
        must_wait = False
        for number, job in enumerate(self.listed):
            if self._can_make(job):
                must_wait = True
                with self._failures_of(job):
                    for piece in self._pieces(job):
                        with self._turn(number, job, piece) as track:
                            if track:
                                piece.make(track)
                        if track:
                            return True
                if job in self.failed:
                    return True
        if must_wait and not self.stale:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return must_wait or bool(self.stale)

    def _pieces(self, job: Job) -> Iterator[_Piece]:
        """What of a job can be made now: the trials of a search, and then the search."""
        notes = self.notes.get(job.backbone)
        if job.stage == "model" and notes and is_computed_elsewhere(job, notes.prepared):
            return
        if job.stage == "search":
            search.refuse(job, self.notes[job.backbone])
            for trial in search.open_trials(job):
                make = partial(trial.run, self.notes[job.backbone])
                yield _Piece(trial.folder, trial.is_open, make, is_trial=True)
            if not search.is_over(job):
                return
        yield _Piece(
            job.folder, lambda: not job.is_made(is_checked=True), partial(run_job, job, notes)
        )

    @contextmanager
    def _turn(self, number: int, job: Job, piece: _Piece) -> Iterator[Track | None]:
        """Yield what shows the progress of a piece; None if it is not this process's to make.

        The others of `torchrun` are told, and that a job was made is written down.
        """
        with claims.claimed(piece.folder) as held:
            if not held or not piece.is_open():
                yield None
                return
            processes.told(number)
            began = time.monotonic()
            try:
                yield named(held.watched(self.track), job.backbone)
            except Exception:
                if not held.is_lost:
                    raise
                _say(f"{job.name} was taken over by another process")
                return
            if not piece.is_trial:
                Diary(self.recipe.folder.root).made(job, time.monotonic() - began)

    @contextmanager
    def _failures_of(self, job: Job) -> Iterator[None]:
        """Keep what a job raises until all that do not need it are made, and write it down."""
        diary = Diary(self.recipe.folder.root)
        try:
            yield
        except WriteError as error:  # all others would fail so too, once trained
            with suppress(WriteError):
                diary.failed(job, error)
            raise
        except Exception as error:
            diary.failed(job, error)
            self.failed[job] = error
            if processes.are_several():
                raise

    def _can_make(self, job: Job) -> bool:
        """Whether a job is not made, and all that it needs is."""
        if job in self.made or job in self.failed:
            return False
        if job.is_made(is_checked=True):
            self.made.add(job)
            if job.stage == "search":  # what it decides can be listed now
                self.stale.add(job.backbone)
            return False
        return all(need in self.made for need in job.needs)


def _say(text: str) -> None:
    warnings.warn(RunWarning(f"{text}."), stacklevel=2)


def _refuse_others(recipe: Recipe, others: Sequence[Holder]) -> None:
    """Refuse to work beside others that would make something else of the same run folder."""
    if not others:
        return
    root, other = recipe.folder.root, others[0]
    found = [each.version for each in others if each.version != __version__]
    if found:
        raise RunError(
            f"{other.name} works on {root} with notetune {found[0]}, and this is {__version__}; "
            "run the same version, or wait for it."
        )
    if keys := other_keys(recipe):
        raise RunError(
            f"{other.name} works on {root} with another recipe ({keys[0]} is another one); wait "
            "for it, or give this one another `name`."
        )
    if keys := other_files(recipe):
        raise RunError(
            f"{other.name} works on {root} with other files of {keys[0]} than this process sees; "
            "give all workers the same, or wait for it."
        )


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
