"""Step 2: a model of one task in one run: its head is solved, and adapters train from there."""

import math
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from notetune import runs, storage
from notetune.errors import RunWarning
from notetune.metrics.ranking import macro_auroc
from notetune.metrics.scores import ScoreTable, write_scores
from notetune.model.backbone_folder import licence_of, resolve_backbone
from notetune.model.bundle import save_head
from notetune.model.cards import BundleCard, save_card
from notetune.model.device import torch_device
from notetune.model.entering import EnteringStates
from notetune.model.heads import Head
from notetune.model.losses import balanced_weights, outcome_loss, probabilities
from notetune.model.stack import DOMAIN
from notetune.prepare.patient_hashes import stop_at_known_patients
from notetune.prepare.prepared import Prepared, TaskTable
from notetune.progress import Track, silent
from notetune.study.counts import recomputes
from notetune.study.features import FixedFeatures, StackFeatures, store_of
from notetune.study.jobs import TRAINING, Job
from notetune.study.specs import AdapterTraining, CellSpec, Notes
from notetune.study.states import saved_states
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import LabelledBatch, labelled_rows, shuffled_steps
from notetune.train.checkpoints import STEPS
from notetune.train.early_stopping import Choice
from notetune.train.logistic import HeadProblem, LabelledNotes, Solution, out_of_fold
from notetune.train.optim import adamw
from notetune.train.training import (
    HeadRecord,
    Kept,
    Training,
    TrainingRecord,
    fit,
    peak_memory_mib,
    read_record,
    restart_peak_memory,
)

SCORED_SPLITS = ("validation", "test")
_BEST = {"auroc": "highest validation AUROC", "loss": "lowest validation loss"}


def train_model(
    job: Job,
    notes: Notes,
    track: Track = silent,
    splits: Sequence[str] = SCORED_SPLITS,
) -> None:
    """Train a model of step 2 into its bundle with its scores on some splits.

    Raises:
        DataError: If the domain adapter has read notes of test patients.
        BundleError: If an adapter of the stack does not act, or a frozen one has changed.
        TrainingError: If the loss is not finite.
    """
    prepared, depends_on = notes.prepared, job.inputs
    cell = _Cell.of(job, prepared)
    if cell.spec.features.has_domain:
        domain, allowed = job.needed("pretrain").folder, job.place.allow_leaks
        stop_at_known_patients(domain, prepared, allowed=allowed)
    with (
        runs.work_folder(job.folder, depends_on) as work,
        runs.new_folder(job.folder, depends_on) as temporary,
    ):
        trained, solution, record = _solved(cell, prepared, track)
        if cell.spec.training:
            model = _AdaptersAndHead(cell, cell.spec.training, solution, trained)
            model.skip_untrained_layers(prepared, track)
            training = model.begin()
            fitted = fit(training, work, job.place.checkpoint_minutes, track)
            record = replace(model.checked(training, fitted), head=record.head)
            shutil.copyfile(work / STEPS, temporary / STEPS)
            if record.kept_steps:  # else nothing was better than the head that it started from
                trained = model.trained
        trained.save(temporary)
        storage.write_json(temporary / TRAINING, record)
        for split in splits:
            trained.write_scores(split, temporary)


def out_of_fold_scores(job: Job, prepared: Prepared) -> ScoreTable:
    """Scores of the training notes of a finished model, by heads that saw none of their patients.

    Where adapters train too, the heads read what those start from: one training serves all folds.

    Raises:
        DataError: If all training notes are of one patient.
    """
    record, cell = read_record(job.folder / TRAINING), _Cell.of(job, prepared)
    assert record.head is not None
    features, task = FixedFeatures(job, prepared), cell.task
    scores_NK = out_of_fold(
        cell.notes("train", features),
        task.patient_ids_N[task.rows("train")],
        task.task.kind,
        record.head.penalty,
        balanced=cell.spec.is_balanced,
    )
    return task.scores(cell.spec.model, cell.spec.seed, "train", scores_NK)


@dataclass(frozen=True)
class _Cell:
    """A model of step 2 with its notes.

    Attributes:
        store: The notes in the tokens of the model.
        documents_N: `(N,)` the first documents of the notes of the task.
    """

    job: Job
    spec: CellSpec
    task: TaskTable
    store: TokenStore
    documents_N: Int64Array

    @classmethod
    def of(cls, job: Job, prepared: Prepared) -> "_Cell":
        spec = job.spec_as(CellSpec)
        task, store = prepared.tasks[spec.task], store_of(job, prepared)
        return cls(job, spec, task, store, store.first_documents(task.note_ids_N.tolist()))

    @property
    def device(self) -> torch.device:
        return torch_device(self.job.place.device)

    def notes(self, split: str, features: FixedFeatures) -> LabelledNotes:
        """The features of the notes of a split, with their labels."""
        rows = self.task.rows(split)
        return LabelledNotes(features.of_notes(self.documents_N[rows]), self.task.targets_NK[rows])


@dataclass(frozen=True)
class _TrainedCell:
    """A model of step 2 that can be scored and saved."""

    cell: _Cell
    features: FixedFeatures | StackFeatures
    head: Head

    @torch.no_grad()
    def logits(self, rows: Int64Array) -> Tensor:
        """`(N, K)` logits of some of the notes, on the host."""
        logits: Tensor = self.head(self.features.of_notes(self.cell.documents_N[rows]))
        return logits.cpu()

    def write_scores(self, split: str, folder: Path) -> None:
        """Write the scores of a split, if it has notes, with what was read of them."""
        cell, spec = self.cell, self.cell.spec
        rows = cell.task.rows(split)
        if len(rows):
            logits_NK = self.logits(rows)
            scores_NK = probabilities(cell.task.task.kind, logits_NK).numpy()
            table = cell.task.scores(spec.model, spec.seed, split, scores_NK)
            most = spec.features.pieces_in(cell.store)
            reading = cell.store.reading(cell.documents_N[rows], most)
            write_scores(table, folder / f"{split}.parquet", reading.columns)

    def save(self, folder: Path) -> None:
        """Write the model as a bundle into an existing folder."""
        spec, store, about = self.cell.spec, self.cell.store, self.features.about
        task = self.cell.task.task
        licence = licence_of(resolve_backbone(self.cell.job.place.backbone, needs_weights=False))
        card = BundleCard(
            task=task.name,
            kind=task.kind,
            classes=task.classes,
            variant=spec.model,
            seed=spec.seed,
            pooling=spec.features.pooling,
            layers=spec.features.layers,
            max_tokens=store.max_tokens,
            max_pieces=spec.features.pieces_in(store),
            **asdict(store.edges),
            backbone_name=about.backbone,
            backbone_licence=licence.name,
            backbone_licence_text=licence.text,
            backbone_fingerprint=about.fingerprint,
            dtype=about.dtype,
            adapters=about.adapters,
            **self.cell.job.place.of_source,
        )
        save_card(folder, card)
        self.features.save_adapters(folder)
        save_head(folder, self.head)


def _solved(
    cell: _Cell, prepared: Prepared, track: Track
) -> tuple[_TrainedCell, Solution, TrainingRecord]:
    """Solve the head of a model: that is all of it, or what its adapters start from."""
    features = FixedFeatures(cell.job, prepared, track)
    restart_peak_memory()
    started = time.perf_counter()
    train, validation = (cell.notes(split, features) for split in ("train", "validation"))
    problem = HeadProblem(train, cell.task.task.kind, balanced=cell.spec.is_balanced)
    found = problem.along_path(validation)
    seconds = time.perf_counter() - started
    size, penalty = found.weight_KH.numel() + found.bias_K.numel(), found.penalty
    record = TrainingRecord(
        steps=0,
        trainable_parameters=size,
        total_parameters=features.about.parameters + size,
        seconds=0.0,
        tokens=0,
        peak_memory_mib=peak_memory_mib(),
        curve=(),
        head=HeadRecord(penalty.value, penalty.why, penalty.path, found.constant, seconds),
    )
    return _TrainedCell(cell, features, found.head().to(cell.device)), found, record


class _AdaptersAndHead:
    """Adapters and head of one model while they train, from the solved head on."""

    def __init__(
        self, cell: _Cell, config: AdapterTraining, solution: Solution, solved: _TrainedCell
    ) -> None:
        self._cell, self._config, self._task, self._solved = cell, config, cell.task, solved
        self._is_recomputed = recomputes(cell.job, cell.store.max_tokens)
        self._features = StackFeatures(
            cell.job, cell.spec, cell.store, is_recomputed=self._is_recomputed
        )
        self._head = solution.head(standardises=True).to(cell.device)
        self._weights_2K: Tensor | None = None
        if cell.spec.is_balanced:
            targets_NK = cell.task.targets_NK[cell.task.rows("train")]
            weights_2K = balanced_weights(cell.task.task.kind, targets_NK)
            self._weights_2K = torch.from_numpy(weights_2K).to(cell.device)

    def skip_untrained_layers(self, prepared: Prepared, track: Track) -> None:
        """Have the layers below all that trains computed once for all steps, if that is wanted."""
        job, features, stack = self._cell.job, self._features, self._features.stack
        first = stack.lowest_trained
        if not (job.place.keep_hidden_states and first) or stack.reserved_per_document:
            return
        fixed = FixedFeatures(job, prepared)
        at_once = EnteringStates(first, partial(stack.states_entering, first))
        if stack.runs_from(first) and features.goes_on_from(at_once, fixed.documents_D):
            saved = saved_states(job, prepared, features, track)
            if features.goes_on_from(saved, fixed.documents_D):
                features.start_from(saved, fixed)
                return
        told = f"backbone {features.about.backbone} does not compute its upper layers alone"
        warnings.warn(RunWarning(f"{told}, so every step computes all of them."), stacklevel=2)

    @property
    def trained(self) -> _TrainedCell:
        """The model as it is now, its head a plain linear layer."""
        return _TrainedCell(self._cell, self._features, self._head.folded())

    def begin(self) -> Training[LabelledBatch]:
        """Check what is frozen, and give the training of head and adapters."""
        cell, config = self._cell, self._config
        notes = cell.documents_N[self._task.rows("train")]
        self._features.check(notes, only_frozen=True)
        self._features.stack.train_mode()
        adapters = self._features.stack.parameters_by_name()
        domain = {n: p for n, p in adapters.items() if n.startswith(f"{DOMAIN}.")}
        task = {n: p for n, p in adapters.items() if n not in domain}
        head = dict(self._head.named_parameters(prefix="head"))
        parameters = {**adapters, **head}
        return Training(
            label=cell.job.label,
            inputs=cell.job.inputs,
            store=cell.store,
            parameters=parameters,
            optimizer=adamw(
                config.optim,
                (domain.values(), config.domain_lr),
                (task.values(), config.optim.peak_lr),
                (head.values(), config.head_rate(self._features.about.hidden_size)),
            ),
            optim=config.optim,
            rows=self._labelled_steps,
            summed_loss=self._summed_loss,
            step_count=config.step_count(len(notes)),
            seed=cell.spec.seed,
            unit="notes",
            tokens_per_target=cell.store.reading(notes, self._features.pieces).tokens_N.mean(),
            total_parameters=self._features.about.parameters
            + sum(parameter.numel() for parameter in head.values()),
            choice=self._choice(parameters),
        )

    def checked(self, training: Training[LabelledBatch], record: TrainingRecord) -> TrainingRecord:
        """Check the stack as it was left, and say which state that is."""
        choice = training.choice
        steps = choice.best_steps if choice else training.step_count
        if steps:  # else the adapters are as they started
            self._features.check(self._cell.documents_N[self._task.rows("train")])
        why = self._why_last() or _BEST[self._config.validation.choose]
        kept = Kept(steps, why, training.evaluations)
        return replace(record, kept=kept, recomputed=self._is_recomputed)

    def _choice(self, parameters: Mapping[str, nn.Parameter]) -> Choice | None:
        """What keeps the best state, if the validation notes can tell."""
        if self._why_last():
            return None
        config, notes = self._config, len(self._task.rows("train"))
        steps = (config.steps_per_epoch(notes), config.step_count(notes))
        return Choice(config.validation, parameters, self._evaluate, *steps)

    def _why_last(self) -> str | None:
        """Why the last state is kept, if the validation notes cannot tell which one is best."""
        targets_NK = self._task.targets_NK[self._task.rows("validation")]
        if not len(targets_NK):
            return "last: the task has no validation notes"
        is_judged_K = targets_NK.any(0) & ~targets_NK.all(0)
        if self._config.validation.choose == "auroc" and not is_judged_K.any():
            return "last: no label has both values among the validation notes"
        return None

    def _evaluate(self, steps: int) -> tuple[float, float | None]:
        """Loss and macro AUROC on the validation notes; before the first step, of the solved head.

        That is what is left if nothing is better, and its features are computed already.
        """
        kind, rows = self._task.task.kind, self._task.rows("validation")
        targets_NK = self._task.targets_NK[rows]
        logits_NK = (self.trained if steps else self._solved).logits(rows)
        self._features.stack.train_mode()
        summed = self._loss(logits_NK.to(self._cell.device), torch.from_numpy(targets_NK))
        loss = summed.item() / len(rows)
        if not math.isfinite(loss):
            return loss, None
        auroc = macro_auroc(targets_NK, probabilities(kind, logits_NK).numpy())
        return loss, None if math.isnan(auroc) else auroc

    def _labelled_steps(self, first_step: int) -> Iterator[list[LabelledBatch]]:
        """Each step's notes packed into rows of their own."""
        cell, features, rows = self._cell, self._features, self._task.rows("train")
        per_step = self._config.optim.targets_per_step
        return labelled_rows(
            cell.store,
            cell.documents_N[rows],
            self._task.targets_NK[rows],
            shuffled_steps(len(rows), per_step, cell.spec.seed, first_step),
            tokens_per_row=features.tokens_per_row,
            reserved_per_document=features.stack.reserved_per_document,
            device=features.stack.backbone.device,
            max_pieces=features.pieces,
        )

    def _summed_loss(self, batch: LabelledBatch) -> Tensor:
        logits = self._head(self._features.of(batch.inputs))
        return self._loss(logits, batch.targets_NK)

    def _loss(self, logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        kind, device = self._task.task.kind, logits_NK.device
        return outcome_loss(kind, logits_NK, targets_NK.to(device), self._weights_2K)
