"""What the jobs of a study take: parameters, steps, memory and operations.

Nothing is trained and no weights are needed to count; only the clock of this machine loads them.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np

from notetune import storage
from notetune.errors import ConfigError
from notetune.model.device import capability_of, memory_bytes, torch_device
from notetune.model.layers import chosen_layers
from notetune.progress import Track, in_one_step, named, silent
from notetune.recipe.recipe import Recipe
from notetune.search.space import point_count
from notetune.study.clocks import clock, rate_here, rate_on
from notetune.study.counts import Counted, CountedStep, a_million, count_notes
from notetune.study.jobs import Job
from notetune.study.listing import jobs_of
from notetune.study.notices import of_models, without_step_1
from notetune.study.specs import CellSpec, DomainSpec, PerplexitySpec, SearchSpec, Stage
from notetune.study.wanted import check_backbones, with_point
from notetune.tokens.packing import Int64Array
from notetune.train.gpus import CAPABILITY, GPUS, USABLE_SHARE
from notetune.train.step_cost import matrix_rate

ENCODERS = "encoders"
TRAININGS: tuple[Stage, ...] = ("pretrain", "model", "search")

_WAYS: Final[dict[str, dict[str, Any]]] = {
    "dtype: bfloat16": {"kept_in": "bfloat16"},
    "recompute: true": {"recomputes": True},
    "dtype: nf4": {"kept_in": "nf4"},
    "both": {"kept_in": "nf4", "recomputes": True},
}
"""Settings that make a training smaller, and how its step is counted with them."""
_Alike = dict[tuple[str, str | None, str, str], list[tuple[Job, bool]]]
"""Jobs that differ in their seed alone and whether they are made, by stage, method, model, task."""


@dataclass(frozen=True)
class Way:
    """What a training takes with other settings.

    Attributes:
        keys: Those of the recipe, with their values.
        memory_gib: All tensors at the worst moment of a step.
        times: Its seconds, as a multiple of those with the recipe's own settings.
    """

    keys: str
    memory_gib: float
    times: float


@dataclass(frozen=True)
class JobCost:
    """What one training takes, or measuring perplexity, the same for each of its seeds.

    Attributes:
        backbone: Its name in the study, "" if there is one alone; `ENCODERS` for encoders.
        model: Stage with its method, or model of step 2.
        task: What it predicts; None in step 1.
        seeds: Each is a job of its own.
        documents: Read in each epoch, as `tokens`.
        steps: Optimizer updates, if it does not stop early.
        trainable_parameters: Of adapters and head.
        total_parameters: Of backbone and adapters.
        memory_gib: All tensors at the worst moment of a step.
        flops: Operations of one seed: its steps, its rounds on the validation notes, its scores,
            and its share of the features, which are computed once for all that read them.
        seconds: They take on the clock.
        made: How many of the seeds are made.
        recomputes: Whether activations are computed again in the backward pass.
        ways: What else it would take, where it is not in the memory of a card.
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
    made: int = 0
    recomputes: bool = False
    ways: tuple[Way, ...] = ()

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
    """All jobs of a study on its backbones, by one clock.

    Attributes:
        clock: The card, or this machine.
        memory_gib: Its memory; None where that is not known.
        rate: How its operations per second are known.
        counts: Where the numbers of notes are from.
        perplexities: Before and after step 1; as `trainings` backbone by backbone.
        notices: What a reader must know of the notes.
    """

    clock: str
    memory_gib: float | None
    rate: str
    counts: tuple[str, ...]
    trainings: tuple[JobCost, ...]
    perplexities: tuple[JobCost, ...] = ()
    tasks: tuple[TaskCount, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def jobs(self) -> tuple[JobCost, ...]:
        """All of them."""
        return (*self.perplexities, *self.trainings)

    @property
    def seconds(self) -> dict[str, float]:
        """Of what is not made yet, by backbone, the encoders last."""
        seconds = dict.fromkeys((job.backbone for job in self.jobs), 0.0)
        for job in self.jobs:
            seconds[job.backbone] += job.seconds * (len(job.seeds) - job.made)
        return dict(sorted(seconds.items(), key=lambda item: item[0] == ENCODERS))

    @property
    def advice(self) -> tuple[str, ...]:
        """What would bring the largest job of each backbone into the memory, if it is not."""
        largest: dict[str, JobCost] = {}
        for job in sorted(self.jobs, key=lambda job: job.memory_gib):
            largest[job.backbone] = job
        return tuple(self._advice(job) for job in largest.values() if not self.fits(job))

    def _advice(self, job: JobCost) -> str:
        assert self.memory_gib is not None
        room = USABLE_SHARE * self.memory_gib
        others = [
            f"with {way.keys} {way.memory_gib:,.1f}"
            + (f", {way.times:.2f} times the time" if way.times > 1.005 else "")
            + (", which fits" if way.memory_gib <= room else "")
            for way in job.ways
        ]
        found = "; ".join(others) or "no switch of the recipe makes it smaller, a shorter row does"
        return (
            f"{job.name} does not fit {self.clock}, which has room for {room:,.1f} GiB: it needs "
            f"{job.memory_gib:,.1f}; {found}."
        )

    def fits(self, job: JobCost) -> bool:
        """Whether a job is in the memory."""
        return self.memory_gib is None or job.memory_gib <= USABLE_SHARE * self.memory_gib


def costs(recipe: Recipe, gpu: str | None = None, track: Track = silent) -> Costs:
    """Count each training and perplexity of a study, and say how long it takes here or on a GPU.

    Notes are counted if they are prepared, or can be; else published counts stand in for them.

    Raises:
        ConfigError: If the GPU is unknown or lacks the recipe's type of weights, or if the notes
            are not here and no counts of them are published.
        NotetuneError: As `prepare`, so a dry run finds faulty input too.
    """
    if gpu is not None and gpu not in GPUS:
        raise ConfigError(f"gpu {gpu} is unknown; known are {', '.join(GPUS)}.")
    check_backbones(recipe, needs_weights=False)
    rate_of = partial(rate_on, gpu) if gpu else rate_here()
    here = torch_device(recipe.device)
    capability = CAPABILITY if gpu else capability_of(here)
    memory = GPUS[gpu].memory_gib * 2**30 if gpu else memory_bytes(here)
    counted: dict[Path, Counted] = {}
    kept: dict[str, int] = {}
    trainings: list[JobCost] = []
    perplexities: list[JobCost] = []
    for backbone, one in recipe.studies.items():
        notes, shown = one.folder.prepared, named(track, backbone)
        if notes not in counted:
            counted[notes] = in_one_step(shown, "count the notes", partial(count_notes, one))
        counting = _Counting(
            one, backbone, counted[notes], rate_of, shown, capability, memory, has_ways=bool(gpu)
        )
        trainings += counting.of(*TRAININGS)  # first, since they set the clock
        perplexities += counting.of("perplexity")
        kept[backbone] = sum(counting.kept_bytes.values())
    origins = tuple(dict.fromkeys(found.origin for found in counted.values()))
    first = next(iter(counted.values()))
    tasks = tuple(
        TaskCount(name, first.classes[name], **{part: len(notes) for part, notes in splits.items()})
        for name, splits in first.tasks.items()
    )
    jobs = tuple(trainings), tuple(perplexities)
    corpora = {name: counted[one.folder.prepared].corpus_D for name, one in recipe.studies.items()}
    of_step_1, of_texts = without_step_1(recipe), of_models(recipe, corpora)
    said = (*first.notices, *of_step_1, *of_texts, *_of_kept(kept))
    return Costs(*clock(recipe, gpu), origins, *jobs, tasks, said)


def _of_kept(bytes_of: Mapping[str, int]) -> Iterator[str]:
    """How much hidden states take on the disk."""
    for backbone, size in bytes_of.items():
        if size:
            lead = f"{backbone}: " if backbone else ""
            yield (
                f"{lead}{storage.size(size)} of hidden states are kept on the disk, so that steps "
                "compute the topmost layers alone (keep_hidden_states)."
            )


def costs_of_a_million(recipe: Recipe, track: Track = silent) -> Costs:
    """Count every training of a backbone on a million tokens, from its config.json alone.

    The time is the least: all operations at the rate that a large matrix product reaches here.

    Raises:
        BackboneError: If the folder has no usable configuration.
    """
    device = torch_device(recipe.device)
    time_one = partial(matrix_rate, device, recipe.dtype)
    rate = in_one_step(track, "time a large matrix product", time_one)
    counted = a_million(recipe)
    trainings = tuple(_Counting(recipe, "", counted, lambda _: rate, track).of(*TRAININGS))
    said = f"all at the {rate / 1e9:,.0f} GFLOP/s that a large matrix product just reached"
    notices = tuple(without_step_1(recipe))
    return Costs(str(device), None, said, (counted.origin,), trainings, notices=notices)


@dataclass
class _Counting:
    """The jobs of one backbone, and those of the encoders beside it."""

    recipe: Recipe
    backbone: str
    counted: Counted
    rate_of: Callable[[CountedStep], float]
    track: Track = silent
    capability: tuple[int, int] | None = None
    memory: float | None = None
    has_ways: bool = False
    readers: Counter[Hashable] = field(default_factory=Counter)
    """Jobs that start from the same features, or from states that enter the same layer."""
    kept_bytes: dict[Hashable, int] = field(default_factory=dict)
    """Hidden states on the disk, by what they are of."""

    def of(self, *stages: Stage) -> Iterator[JobCost]:
        """Those of some stages, each once, whatever its seeds."""
        found: _Alike = {}
        for job in jobs_of(self.recipe, self.backbone, self.counted.facts, assumes_searched=True):
            if job.stage in stages:
                model = job.model.name if job.model else ""
                alike = found.setdefault((job.stage, job.method, model, job.task), [])
                alike += zip(_each(job), repeat(job.is_made()), strict=False)
        if not found:
            return iter(())
        label = f"count the work of {'perplexity' if 'perplexity' in stages else 'trainings'}"
        return self.track(label, self._costs(found), len(found), lambda cost: cost.name)

    def _costs(self, found: _Alike) -> Iterator[JobCost]:
        steps: dict[tuple[str | None, str], CountedStep] = {}
        for (_, method, model, _), alike in found.items():
            if (method, model) not in steps:
                step = CountedStep(alike[0][0], self.counted.facts.max_tokens, self.capability)
                steps[method, model] = step.as_asked(self.memory)
            starts = [_features_of(job) for job, _ in alike]
            first = steps[method, model].first_layer
            self.readers.update(starts)
            self.readers.update((start, first) for start in starts if first)
        for (_, method, model, _), alike in found.items():
            jobs, are_made = zip(*alike, strict=True)
            yield self._cost(jobs, sum(are_made), steps[method, model])

    def _ways(self, step: CountedStep) -> Iterator[Way]:
        """What makes a step smaller that is not in the memory."""
        if not self.has_ways or step.fits(self.memory):
            return
        seconds = step.cost.flops / self.rate_of(step)
        for keys, changes in _WAYS.items():
            other = replace(step, **{"recomputes": False, **changes})
            if other == step or not other.is_possible:
                continue
            times = other.cost.flops / self.rate_of(other) / seconds
            yield Way(keys, other.cost.peak_bytes / 2**30, times)

    def _cost(self, jobs: Sequence[Job], made: int, step: CountedStep) -> JobCost:
        spec, backbone = jobs[0].spec, step.model.backbone
        head, steps, per_token = 0, 0, step.cost.flops / step.cost.tokens
        if isinstance(spec, DomainSpec):
            lengths, steps = self.counted.corpus_D, spec.step_count(self.counted.corpus_D)
            flops = spec.epochs * float(lengths.sum()) * per_token
        elif isinstance(spec, PerplexitySpec):
            lengths = self.counted.measured_D
            flops = float(lengths.sum()) * per_token
        else:
            assert isinstance(spec, CellSpec)
            lengths, flops = self._of_step_2(jobs, step)
            steps = spec.step_count(len(lengths))
            layers = chosen_layers(spec.features.layers, backbone.layers)
            width = backbone.hidden_size * len(layers)
            head = (width + 1) * self.counted.classes[spec.task]
        return JobCost(
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
            made=made,
            recomputes=step.recomputes,
            ways=tuple(self._ways(step)),
        )

    def _of_step_2(self, jobs: Sequence[Job], step: CountedStep) -> tuple[Int64Array, float]:
        """Tokens of each training note, and the operations of the whole training."""
        spec, facts = jobs[0].spec_as(CellSpec), self.counted.facts
        # An encoder that reads less at once takes more pieces, if it may.
        is_auto = spec.features.max_pieces == "auto"
        most = facts.max_pieces * (facts.max_tokens if is_auto else step.document_tokens)
        splits = self.counted.tasks[spec.task]
        read = {split: np.minimum(tokens_N, most) for split, tokens_N in splits.items()}
        lengths, labelled = read["train"], int(np.minimum(self.counted.labelled_N, most).sum())
        shared = labelled * fmean(1 / self.readers[_features_of(job)] for job in jobs)
        per_token = step.cost.flops / step.cost.tokens
        training = spec.training
        if training is None:
            return lengths, shared * per_token
        rounds = training.epochs * training.validation.evaluations_per_epoch + 1
        scored = rounds * float(read["validation"].sum())
        if jobs[0].stage != "trial":  # which meets no test note
            scored += float(read["test"].sum())
        trained = training.epochs * float(lengths.sum())
        flops = trained * per_token + scored * step.upper_flops + shared * step.forward_flops
        if step.first_layer:
            made = [(_features_of(job), step.first_layer) for job in jobs]
            share = fmean(1 / self.readers[states] for states in made)
            flops += share * labelled * (step.forward_flops - step.upper_flops)
            weights = step.model.backbone.embeddings.weight
            size = labelled * step.model.backbone.hidden_size * weights.element_size()
            self.kept_bytes |= dict.fromkeys(made, size)
        return lengths, flops


def _each(job: Job) -> list[Job]:
    """A training, or all trials of a search, as many as its space has points for."""
    spec = job.spec
    if not isinstance(spec, SearchSpec):
        return [job]
    trial = replace(job, stage="trial", spec=with_point(spec.base, {}, spec.share))
    trials = min(spec.trials, point_count(spec.space) or spec.trials)
    return [replace(trial, seed=number) for number in range(trials)]


def _features_of(job: Job) -> Hashable:
    """What the features that a job of step 2 starts from are made from."""
    if not isinstance(job.spec, CellSpec):
        return None
    return job.spec.features, tuple(need.folder for need in job.needs)


def _name(job: Job) -> str:
    of_step_1 = "perplexity" if job.stage == "perplexity" else "pretrain"
    name = job.model.name if job.model else f"{of_step_1} · {job.method or 'backbone alone'}"
    return f"{name} · trial" if job.stage == "trial" else name
