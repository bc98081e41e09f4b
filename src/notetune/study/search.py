"""A search for the settings of one training: its trials, and the winner on validation notes.

A trial is a job like others. Which point it tries follows from the ledger before it, so any number
of workers may try side by side, and a killed search goes on as if it had not been.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from notetune import infer, runs, storage
from notetune.aliases import FloatArray
from notetune.errors import (
    BundleError,
    ConfigError,
    DataError,
    NotetuneError,
    RunWarning,
    TrainingError,
    TrainingMemoryError,
)
from notetune.metrics.bootstrap import Counts, auroc_draws, mean_of_defined, placements
from notetune.metrics.chosen import Chosen, chosen_score
from notetune.metrics.losses import DocumentLosses
from notetune.metrics.results import SearchRow, TrialRow
from notetune.metrics.scores import ScoreTable, read_scores
from notetune.model.adapters.files import read_adapter
from notetune.model.backbone import load_backbone
from notetune.model.device import torch_device
from notetune.model.losses import balanced_weights
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.progress import Track
from notetune.recipe.models import name_in_study
from notetune.search.ledger import Failed, Finished, Proposed, Trial
from notetune.search.propose import propose
from notetune.search.space import keys_at_ends
from notetune.study.jobs import TRAINING, WINNER, Job
from notetune.study.specs import CellSpec, DomainSpec, Notes, SearchSpec
from notetune.study.step1 import train_domain
from notetune.study.step2 import train_model
from notetune.study.trials import identity, ledger_of, place_of, trials_of
from notetune.study.wanted import with_point
from notetune.tokens.packing import Int64Array
from notetune.train.training import read_record

_LOSSES = "losses.npz"
# What a point may bring about; all else stops the search.
_OF_A_POINT = (TrainingError, BundleError, ConfigError)


@dataclass(frozen=True)
class TrialRun:
    """A trial that is proposed and not finished."""

    search: Job
    trial: Trial

    @property
    def folder(self) -> Path:
        """What its training makes."""
        return place_of(self.search) / f"trial-{self.trial.n:03}"

    @property
    def job(self) -> Job:
        """Its training.

        Raises:
            ConfigError: If its point is not allowed.
        """
        spec = self.search.spec_as(SearchSpec)
        return replace(
            self.search,
            folder=self.folder,
            stage="trial",
            label=f"{self.search.label} · trial {self.trial.n}",
            spec=with_point(spec.base, self.trial.point, share=spec.share),
        )

    def is_open(self) -> bool:
        """Whether it has no outcome yet."""
        return ledger_of(self.search).trials()[self.trial.n].state == "running"

    def run(self, notes: Notes, track: Track) -> None:
        """Train it and record its score, or that its point does not work.

        Raises:
            NotetuneError: What has another cause than the point.
        """
        ledger, began = ledger_of(self.search), time.monotonic()
        try:
            score = _score(self.search, self.job, notes, track)
        except TrainingMemoryError:
            raise
        except _OF_A_POINT as error:
            ledger.append(Failed(self.trial.n, type(error).__name__))
            warnings.warn(
                RunWarning(f"{self.search.label} · trial {self.trial.n}: {error}"), stacklevel=2
            )
        else:
            seconds = max(time.monotonic() - began, read_record(self.folder / TRAINING).all_seconds)
            ledger.append(Finished(self.trial.n, score, round(seconds, 3)))


def refuse(search: Job, notes: Notes) -> None:
    """Refuse a search that no validation note could judge, before anything is trained.

    Raises:
        DataError: If there is none, all are of one patient, or none has both values of a label
            where AUROC judges.
    """
    spec = search.spec_as(SearchSpec)
    if isinstance(spec.base, DomainSpec):
        _refuse_one_patient(search, _validation_patients(spec.base, notes))
        return
    task = notes.prepared.tasks[search.task]
    targets_NK = task.targets_NK[task.rows("validation")]
    if not len(targets_NK):
        raise DataError(
            f"{search.label}: task {search.task} has no validation notes, which judge a search; "
            "see prepare.split, or leave tune.downstream out."
        )
    _refuse_one_patient(search, task.patient_ids_N[task.rows("validation")])
    positives_K = targets_NK.sum(axis=0, dtype=int)
    if spec.objective == "auroc" and not (positives_K % len(targets_NK)).any():
        raise DataError(
            f"{search.label}: no label of task {search.task} has both values on its "
            f"{len(targets_NK)} validation notes, so AUROC cannot judge; see prepare.split, or "
            "set tune.objective to loss."
        )


def _refuse_one_patient(search: Job, patient_ids_N: npt.NDArray[np.str_]) -> None:
    if len(set(patient_ids_N.tolist())) < 2:
        raise DataError(
            f"{search.label}: its validation notes are all of one patient, and a search is judged "
            "on two or more; see prepare.split, or leave tune out."
        )


def open_trials(search: Job) -> Iterator[TrialRun]:
    """The trials that nobody has finished; once these are taken, the next ones are proposed."""
    spec, ledger = search.spec_as(SearchSpec), ledger_of(search)
    for trial in trials_of(search):
        if trial.state == "running":
            yield TrialRun(search, trial)
    while True:
        trials = ledger.trials()
        if len(trials) >= spec.trials:
            return
        n = len(trials)
        point = propose(
            spec.space,
            identity(search),
            n,
            trials,
            maximize=spec.maximizes,
            proposer=spec.proposer,
            starts=spec.starts,
        )
        if point is None:
            return
        try:
            trials = ledger.append(Proposed(n, point, spec.proposer))
        except NotetuneError:
            if len(ledger.trials()) == n:
                raise
            continue  # another worker was faster
        yield TrialRun(search, trials[n])


def is_over(search: Job) -> bool:
    """Whether no trial is left to run."""
    return all(trial.state != "running" for trial in trials_of(search))


def choose(search: Job, notes: Notes) -> None:
    """Choose the winner of all trials, and estimate what it is worth on other patients.

    Raises:
        DataError: If no trial worked.
    """
    spec, trials = search.spec_as(SearchSpec), trials_of(search)
    finished = [trial for trial in trials if trial.score is not None]
    if not finished:
        raise DataError(
            f"{search.label}: none of {len(trials)} trials could be trained, as was said of each; "
            f"look at its space ({', '.join(spec.space)}), above all at the learning rates."
        )
    found = _chosen(spec, search, finished, notes)
    winner, method = finished[found.place], search.method or ""
    row = SearchRow(
        search=search.name,
        model=search.model.label if search.model else name_in_study(search.backbone, method),
        task=search.task,
        objective=spec.objective,
        space={key: _in_words(dimension) for key, dimension in spec.space.items()},
        proposer=spec.proposer,
        trials=tuple(_row(search, trial) for trial in trials),
        winner=winner.n,
        point=dict(winner.point),
        validation=_as_shown(spec, found.naive),
        corrected=None if found.corrected is None else _as_shown(spec, found.corrected),
    )
    with runs.new_folder(search.folder, search.inputs) as folder:
        storage.write_json(folder / WINNER, row)


def _row(search: Job, trial: Trial) -> TrialRow:
    row = TrialRow(number=trial.n, point=dict(trial.point), score=None, state=trial.state)
    if trial.score is None:
        return row
    score = _as_shown(search.spec_as(SearchSpec), trial.score)
    steps = read_record(TrialRun(search, trial).folder / TRAINING).steps
    return row.model_copy(update={"score": score, "seconds": trial.seconds, "steps": steps})


def read(search: Job) -> SearchRow:
    """What a finished search found."""
    row = SearchRow(**storage.read_json(search.folder / WINNER))
    at_ends = keys_at_ends(search.spec_as(SearchSpec).space, row.point)
    return row.model_copy(update={"at_ends": at_ends})


def _score(search: Job, job: Job, notes: Notes, track: Track) -> float:
    """Train a trial, unless it is, and score it on the validation notes."""
    if isinstance(job.spec, DomainSpec):
        if not job.is_made(is_checked=True):
            train_domain(job, notes, track)
        return _losses(job, notes).per_target
    if not job.is_made(is_checked=True):
        train_model(job, notes, track, splits=("validation",))
    table = read_scores(job.folder / "validation.parquet")
    whole = np.ones((len(table.note_ids_N), 1), np.uint8)
    return float(mean_of_defined(_measure(search, notes)(table, whole))[0])


def _measure(search: Job, notes: Notes) -> Callable[[ScoreTable, Counts], FloatArray]:
    """`(K, B)` scores of the trials of step 2 in draws."""
    spec = search.spec_as(SearchSpec)
    if spec.objective == "auroc":
        return _aurocs
    assert isinstance(spec.base, CellSpec)
    task = notes.prepared.tasks[search.task]
    targets_NK = task.targets_NK[task.rows("train")]
    weights_2K = np.ones((2, targets_NK.shape[1]))
    if spec.base.is_balanced:
        weights_2K = balanced_weights(task.task.kind, targets_NK).astype(np.float64)
    return partial(_log_loss, weights_2K=weights_2K)


def _aurocs(table: ScoreTable, counts_NB: Counts) -> FloatArray:
    """`(K, B)` AUROC of the labels with both values."""
    positives_K = table.targets_NK.sum(axis=0)
    is_judged_K = (positives_K > 0) & (positives_K < len(table.targets_NK))
    targets_NK, scores_NK = table.targets_NK[:, is_judged_K], table.scores_NK[:, is_judged_K]
    return auroc_draws(targets_NK, placements(targets_NK, scores_NK), counts_NB)


def _log_loss(table: ScoreTable, counts_NB: Counts, weights_2K: FloatArray) -> FloatArray:
    """`(1, B)` mean over notes of the log loss, weighted as in training, summed over classes."""
    scores_NK = np.clip(table.scores_NK, 1e-12, 1 - 1e-12)
    losses_NK = -weights_2K[1] * table.targets_NK * np.log(scores_NK)
    if table.kind != "multiclass":
        losses_NK -= weights_2K[0] * (1 - table.targets_NK) * np.log(1 - scores_NK)
    with np.errstate(invalid="ignore"):
        mean_B: FloatArray = losses_NK.sum(axis=1) @ counts_NB / counts_NB.sum(axis=0)
    return mean_B[np.newaxis]


def _chosen(spec: SearchSpec, search: Job, finished: list[Trial], notes: Notes) -> Chosen:
    jobs = [TrialRun(search, trial).job for trial in finished]
    if not isinstance(spec.base, DomainSpec):
        tables = [read_scores(job.folder / "validation.parquet") for job in jobs]
        measure = _measure(search, notes)
        return chosen_score(tables, tables[0].patient_ids_N, measure, maximize=spec.maximizes)
    losses = [_losses(job, notes) for job in jobs]

    def per_target(one: DocumentLosses, counts_DB: Counts) -> FloatArray:
        return one.per_target_in(counts_DB)[np.newaxis]

    return chosen_score(losses, losses[0].patient_ids_D, per_target, maximize=False)


def _validation_patients(spec: DomainSpec, notes: Notes) -> npt.NDArray[np.str_]:
    """`(D,)` the patient of each validation document of step 1."""
    store = notes.corpus.store
    return store.patient_ids[store.note_number_D[_validation(spec, notes)]]


def _validation(spec: DomainSpec, notes: Notes) -> Int64Array:
    """The validation documents of step 1."""
    store = notes.corpus.store
    documents_D = store.documents_of("validation", spec.sources)
    if not len(documents_D):
        raise DataError("tune.pretrain needs validation notes of step 1; see prepare.split.")
    return documents_D


def _losses(job: Job, notes: Notes) -> DocumentLosses:
    """Those of a trial on the validation documents; kept."""
    spec, path = job.spec_as(DomainSpec), job.folder.with_name(f"{job.folder.name}-{_LOSSES}")
    if not path.is_file():
        device = torch_device(job.place.device)
        store, documents_D = notes.corpus.store, _validation(spec, notes)
        backbone = load_backbone(job.place.backbone, spec.weights.dtype, device)
        layer = Layer(DOMAIN, read_adapter(job.folder), is_trained=False)
        losses_D = infer.document_losses(
            stack(backbone, [layer]), store, documents_D, spec.tokens_per_row
        )
        targets_D = (store.lengths_D[documents_D] - 1).astype(np.float64)
        with storage.new_file(path) as file:
            np.savez(file, losses=losses_D, targets=targets_D)
    with np.load(path) as found:
        patient_ids_D = _validation_patients(spec, notes)
        return DocumentLosses(patient_ids_D, found["losses"], found["targets"])


def _as_shown(spec: SearchSpec, score: float) -> float:
    """Step 1 is searched by the loss per token, which is shown as perplexity."""
    return math.exp(score) if spec.objective == "perplexity" else score


def _in_words(dimension: Any) -> str:
    values: Mapping[str, Any] | list[Any] = dimension.model_dump(mode="json")
    if isinstance(values, list):
        return ", ".join(map(str, values))
    scale = ", log scale" if values["log"] else ""
    return f"{values['low']:g} to {values['high']:g}{scale}"
