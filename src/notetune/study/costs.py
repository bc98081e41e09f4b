"""What the trainings of a study take: parameters, steps, memory and operations, counted as jobs.

Nothing is trained and no weights are needed to count; only the clock of this machine loads them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from notetune.errors import ConfigError
from notetune.model.backbone import load_backbone
from notetune.model.device import torch_device
from notetune.model.layers import chosen_layers
from notetune.recipe.recipe import Recipe
from notetune.search.space import point_count
from notetune.study.counts import Counted, CountedStep, a_million, count_notes
from notetune.study.jobs import Job
from notetune.study.listing import jobs_of
from notetune.study.specs import CellSpec, DomainSpec, SearchSpec, with_point
from notetune.tokens.packing import Int64Array
from notetune.train.gpus import ASSUMED_SHARE, GPUS, USABLE_SHARE
from notetune.train.step_cost import matrix_rate, step_seconds

ENCODERS = "encoders"
TRAININGS = ("pretrain", "model")


@dataclass(frozen=True)
class TrainingCost:
    """What one training takes, the same for each of its seeds.

    Attributes:
        backbone: Its name in the study, "" if there is one alone; `ENCODERS` for encoders.
        model: Stage with its method, or model of step 2.
        task: What it predicts; None in step 1.
        seeds: Each is a training of its own.
        documents: Read in each epoch.
        tokens: Read in each epoch.
        steps: Optimizer updates, if it does not stop early.
        trainable_parameters: Of adapters and head.
        total_parameters: Of backbone and adapters.
        memory_gib: All tensors at the worst moment of a step.
        flops: Operations of one seed: its steps, its rounds on the validation notes, its scores,
            and its share of the features, which are computed once for all tasks.
        seconds: They take on the clock.
    """

    backbone: str
    model: str
    task: str | None
    seeds: tuple[int, ...]
    documents: int
    tokens: int
    steps: int
    trainable_parameters: int
    total_parameters: int
    memory_gib: float
    flops: float
    seconds: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.model if self.task is None else f"{self.task} · {self.model}"


@dataclass(frozen=True)
class TaskCount:
    """Notes of a task by split, and its classes."""

    task: str
    classes: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Costs:
    """All trainings of a study by one clock.

    Attributes:
        clock: The card, or this machine.
        memory_gib: Its memory; None where that is not known.
        rate: How its operations per second are known.
        counts: Where the numbers of notes are from.
        trainings: Backbone by backbone.
        tasks: What there is to learn.
        notices: What a reader must know of the notes.
    """

    clock: str
    memory_gib: float | None
    rate: str
    counts: tuple[str, ...]
    trainings: tuple[TrainingCost, ...]
    tasks: tuple[TaskCount, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def seconds(self) -> dict[str, float]:
        """Of all seeds, by backbone, the encoders last."""
        names = dict.fromkeys(training.backbone for training in self.trainings)
        return {
            name: sum(t.seconds * len(t.seeds) for t in self.trainings if t.backbone == name)
            for name in sorted(names, key=lambda name: name == ENCODERS)
        }

    def fits(self, training: TrainingCost) -> bool:
        """Whether a training is in the memory."""
        return self.memory_gib is None or training.memory_gib <= USABLE_SHARE * self.memory_gib


def costs(recipe: Recipe, gpu: str | None = None) -> Costs:
    """Count every training of a study, and say how long it takes here or on a named GPU.

    Notes are counted if they are prepared, or can be; else published counts stand in for them.

    Raises:
        ConfigError: If the GPU is unknown or lacks the recipe's type of weights, or if the notes
            are not here and no counts of them are published.
        NotetuneError: As `prepare`, so a dry run finds faulty input too.
    """
    if gpu is not None and gpu not in GPUS:
        raise ConfigError(f"gpu {gpu} is unknown; known are {', '.join(GPUS)}.")
    rate_of = _rate_on(gpu) if gpu else _rate_here()
    counted: dict[Path, Counted] = {}
    trainings: list[TrainingCost] = []
    for backbone, one in recipe.studies.items():
        notes = one.folder.prepared
        counted[notes] = counted.get(notes) or count_notes(one)
        trainings += _Counting(one, backbone, counted[notes], rate_of).trainings()
    origins = tuple(dict.fromkeys(found.origin for found in counted.values()))
    first = next(iter(counted.values()))
    tasks = tuple(
        TaskCount(name, first.classes[name], **{part: len(notes) for part, notes in splits.items()})
        for name, splits in first.tasks.items()
    )
    if gpu is None:
        rate = "their rate measured on one row of each backbone on this machine"
        clock, memory_gib = str(torch_device(recipe.device)), None
    else:
        clock, memory_gib = gpu, GPUS[gpu].memory_gib
        share = f"{ASSUMED_SHARE:.0%} of the card's highest rate, which is assumed"
        rate = f"{GPUS[gpu].source}; {share}"
    return Costs(clock, memory_gib, rate, origins, tuple(trainings), tasks, first.notices)


def costs_of_a_million(recipe: Recipe) -> Costs:
    """Count every training of a backbone on a million tokens, from its config.json alone.

    The time is the least: all operations at the rate that a large matrix product reaches here.

    Raises:
        BackboneError: If the folder has no usable configuration.
    """
    device = torch_device(recipe.device)
    rate = matrix_rate(device, recipe.dtype)
    counted = a_million(recipe)
    trainings = tuple(_Counting(recipe, "", counted, lambda _: rate).trainings())
    said = f"all at the {rate / 1e9:,.0f} GFLOP/s that a large matrix product just reached"
    return Costs(str(device), None, said, (counted.origin,), trainings)


@dataclass
class _Counting:
    """The trainings of one backbone, and those of the encoders beside it."""

    recipe: Recipe
    backbone: str
    counted: Counted
    rate_of: Callable[[CountedStep], float]

    def trainings(self) -> Iterator[TrainingCost]:
        """Each once, whatever its seeds."""
        found: dict[tuple[str, str | None, str, str], list[Job]] = {}
        facts = self.counted.facts
        for job in jobs_of(self.recipe, self.backbone, facts, assumes_searched=True):
            if job.stage in TRAININGS or job.stage == "search":
                model = job.model.name if job.model else ""
                found.setdefault((job.stage, job.method, model, job.task), []).extend(_each(job))
        steps: dict[tuple[str | None, str], CountedStep] = {}
        for (_, method, model, _), jobs in found.items():
            step = CountedStep(jobs[0], self.counted.facts.max_tokens)
            yield self._training(jobs, steps.setdefault((method, model), step))

    def _training(self, jobs: list[Job], step: CountedStep) -> TrainingCost:
        spec, backbone = jobs[0].spec, step.model.backbone
        if isinstance(spec, DomainSpec):
            lengths, head = self.counted.corpus_D, 0
            passes = spec.epochs * float(lengths.sum())
            flops = passes * step.cost.flops / step.cost.tokens
            steps = spec.step_count(lengths)
        else:
            assert isinstance(spec, CellSpec)
            lengths, flops = self._of_step_2(spec, step)
            steps = spec.step_count(len(lengths))
            layers = chosen_layers(spec.features.layers, backbone.shape.layers)
            width = backbone.hidden_size * len(layers)
            head = (width + 1) * self.counted.classes[spec.task]
        return TrainingCost(
            backbone=ENCODERS if backbone.is_encoder else self.backbone,
            model=_name(jobs[0]),
            task=jobs[0].task or None,
            seeds=tuple(job.seed for job in jobs),
            documents=len(lengths),
            tokens=int(lengths.sum()),
            steps=steps,
            trainable_parameters=step.model.trainable_count + head,
            total_parameters=step.model.total_count,
            memory_gib=step.cost.peak_bytes / 2**30,
            flops=flops,
            seconds=flops / self.rate_of(step),
        )

    def _of_step_2(self, spec: CellSpec, step: CountedStep) -> tuple[Int64Array, float]:
        """Tokens of each training note, and the operations of the whole training.

        The notes of the largest task stand for those of all.
        """
        facts, tasks = self.counted.facts, self.counted.tasks
        # An encoder that reads less at once takes more pieces, if it may.
        is_auto = spec.features.max_pieces == "auto"
        most = facts.max_pieces * (facts.max_tokens if is_auto else step.document_tokens)
        read = {
            task: {split: np.minimum(tokens_N, most) for split, tokens_N in splits.items()}
            for task, splits in tasks.items()
        }
        totals = [sum(int(part.sum()) for part in splits.values()) for splits in read.values()]
        shared, lengths = max(totals) / len(tasks), read[spec.task]["train"]
        per_token = step.cost.flops / step.cost.tokens
        training = spec.training
        if training is None:
            return lengths, shared * per_token
        rounds = training.epochs * training.validation.evaluations_per_epoch + 2
        scored = rounds * float(read[spec.task]["validation"].sum())
        scored += float(read[spec.task]["test"].sum()) + shared
        trained = training.epochs * float(lengths.sum())
        return lengths, trained * per_token + scored * step.forward_flops


def _each(job: Job) -> list[Job]:
    """A training, or all trials of a search, as many as its space has points for."""
    spec = job.spec
    if not isinstance(spec, SearchSpec):
        return [job]
    trial = replace(job, stage="trial", spec=with_point(spec.base, {}, spec.share))
    trials = min(spec.trials, point_count(spec.space) or spec.trials)
    return [replace(trial, seed=number) for number in range(trials)]


def _rate_on(gpu: str) -> Callable[[CountedStep], float]:
    """Operations per second on a card."""

    def rate(step: CountedStep) -> float:
        rates = GPUS[gpu].rates
        dtype = step.model.backbone.dtype  # weights that train are float32
        if dtype not in rates:
            raise ConfigError(
                f"gpu {gpu} computes no {dtype}; it has {', '.join(rates)}. Set dtype."
            )
        return ASSUMED_SHARE * rates[dtype]

    return rate


def _rate_here() -> Callable[[CountedStep], float]:
    """Operations per second on this machine: of the first step of each backbone, as it runs."""
    found: dict[str, float] = {}

    def rate(step: CountedStep) -> float:
        place = step.job.place
        if place.backbone not in found:
            backbone = load_backbone(place.backbone, step.dtype, torch_device(place.device))
            model = step.model_on(backbone)
            seconds = step_seconds(model, step.loss_of(model), step.lengths, trains=step.trains)
            found[place.backbone] = step.cost.flops / seconds
        return found[place.backbone]

    return rate


def _name(job: Job) -> str:
    name = job.model.name if job.model else f"pretrain · {job.method}"
    return f"{name} · trial" if job.stage == "trial" else name
