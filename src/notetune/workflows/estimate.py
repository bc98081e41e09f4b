"""What a study would need on a named GPU: counted, not measured, and without weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from notetune import sources
from notetune.errors import ConfigError
from notetune.model.backbone import outline_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.stack import Stack
from notetune.notes.outcomes import SPLITS
from notetune.sources.mimic import published
from notetune.sources.splits import SplitConfig
from notetune.tokens.packing import Int64Array
from notetune.train.batches import pretraining_steps_per_epoch
from notetune.train.cost import StepCost
from notetune.train.gpus import ASSUMED_SHARE, GPUS, USABLE_SHARE
from notetune.workflows import encoders, inspect, methods, pretrain, task_models
from notetune.workflows.intake import assumed_longest
from notetune.workflows.plan import notes_of
from notetune.workflows.prepare import Prepared
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import row_of
from notetune.workflows.variants import variant_of

ENCODERS = "encoders"


@dataclass(frozen=True)
class EstimatedTraining:
    """One training of a study, the same for several seeds.

    Attributes:
        backbone: Its name in the study, "" if there is one alone; `ENCODERS` for encoders.
        model: Stage with its method, or model of step 2.
        task: What it predicts; None in step 1.
        seeds: Each is a training of its own.
        documents: Per epoch.
        steps: Optimizer updates, if it does not stop early.
        trainable_parameters: Of adapters and head.
        memory_gib: All tensors at the worst moment of a step.
        fits: Whether that is in the memory of the GPU.
        seconds: For each seed. Features are computed once for all tasks and seeds of a model, so
            each has its share; the notes of the largest task stand for those of all.
    """

    backbone: str
    model: str
    task: str | None
    seeds: tuple[int, ...]
    documents: int
    steps: int
    trainable_parameters: int
    memory_gib: float
    fits: bool
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """All trainings of a study on one GPU.

    Attributes:
        gpu: Its name in `GPUS`.
        memory_gib: Its memory.
        source: Where the figures of the GPU are from.
        share: Of its highest rate that is assumed.
        counts: Where the numbers of notes are from.
        trainings: Backbone by backbone.
    """

    gpu: str
    memory_gib: float
    source: str
    share: float
    counts: tuple[str, ...]
    trainings: tuple[EstimatedTraining, ...]

    @property
    def seconds(self) -> dict[str, float]:
        """Of all seeds, by backbone, the encoders last."""
        names = dict.fromkeys(training.backbone for training in self.trainings)
        return {
            name: sum(t.seconds * len(t.seeds) for t in self.trainings if t.backbone == name)
            for name in sorted(names, key=lambda name: name == ENCODERS)
        }


@dataclass(frozen=True)
class _TaskLengths:
    """Tokens of each note of a task that are read, by split."""

    classes: int
    tokens: dict[str, Int64Array]

    def total(self, split: str, longest: int) -> int:
        """Tokens of a split if a note is cut at `longest`."""
        return int(np.minimum(self.tokens[split], longest).sum())


@dataclass(frozen=True)
class _Lengths:
    """Tokens of each document that step 1 trains on, and of those of every task.

    Attributes:
        longest: Tokens of the longest document that there may be.
        pieces: Documents of one note that step 2 reads.
    """

    longest: int
    pieces: int
    corpus_D: Int64Array
    tasks: dict[str, _TaskLengths]
    origin: str


def estimate(recipe: Recipe, gpu: str) -> Estimate:
    """Count the operations and the memory of every training of a study.

    No weights are loaded. The notes are counted if they are prepared, or can be; else published
    counts stand in for them.

    Raises:
        ConfigError: If the GPU is unknown or lacks the recipe's type of weights, or if the notes
            are not here and no counts of them are published.
    """
    if gpu not in GPUS:
        raise ConfigError(f"gpu {gpu} is unknown; known are {', '.join(GPUS)}.")
    trainings: list[EstimatedTraining] = []
    lengths: dict[Path, _Lengths] = {}
    for name, one in recipe.studies.items():
        notes = one.folder.prepared
        lengths[notes] = lengths.get(notes) or _lengths(one)
        trainings += _Estimator(name, one, gpu, lengths[notes]).trainings()
    origins = dict.fromkeys(found.origin for found in lengths.values())
    card = GPUS[gpu]
    return Estimate(
        gpu, card.memory_gib, card.source, ASSUMED_SHARE, tuple(origins), tuple(trainings)
    )


@dataclass(frozen=True)
class _Estimator:
    """The trainings of one backbone, and those of the encoders beside it."""

    name: str
    recipe: Recipe
    gpu: str
    lengths: _Lengths

    def trainings(self) -> Iterator[EstimatedTraining]:
        recipe = self.recipe
        backbone = outline_backbone(recipe.backbone, recipe.dtype)
        longest, pooling = self.lengths.longest, recipe.downstream.features.pooling
        forward = inspect.forward_flops(backbone, pooling, longest)
        for name, model, cost in inspect.steps(recipe, longest):
            encoder = name.rpartition("+")[0]
            if name.startswith(inspect.STEP_1):
                yield self._step_1(name, model, cost)
            elif encoder in recipe.encoders.models:
                outline = encoders.outline(recipe, encoder)
                most = min(longest, outline.max_positions)
                alone = inspect.forward_flops(outline, recipe.encoders.features.pooling, most)
                yield from self._step_2(name, model, cost, alone, most)
            else:
                yield from self._step_2(name, model, cost, forward, longest)

    def _step_1(self, name: str, model: Stack, cost: StepCost) -> EstimatedTraining:
        config = methods.recipes(self.recipe)[name.removeprefix(inspect.STEP_1)].pretrain
        lengths_D = self.lengths.corpus_D
        per_epoch = pretraining_steps_per_epoch(
            lengths_D,
            row_of(config.tokens_per_row, self.lengths.longest + model.reserved_per_document),
            config.optim.targets_per_step,
            model.reserved_per_document,
        )
        flops = config.epochs * float(lengths_D.sum()) * cost.flops / cost.tokens
        steps = max(1, round(config.epochs * per_epoch))
        is_domain = name == f"{inspect.STEP_1}{self.recipe.pretrain.adapter.kind}"
        seeds = range(self.recipe.seeds if is_domain else 1)
        figures = (len(lengths_D), steps, model.trainable_count)
        return self._training((name, None, tuple(seeds)), figures, model, cost, flops)

    def _step_2(
        self, name: str, model: Stack, cost: StepCost, forward: float, longest: int
    ) -> Iterator[EstimatedTraining]:
        config, tasks = self.recipe.downstream, self.lengths.tasks
        seeds = tuple(task_models.seeds(self.recipe, name))
        epochs, targets_per_step = _schedule(self.recipe, name)
        # An encoder that reads less at once takes more pieces, if it may.
        at_once = self.lengths.longest if config.max_pieces == "auto" else longest
        most = self.lengths.pieces * at_once
        totals = [sum(n.total(split, most) for split in SPLITS) for n in tasks.values()]
        for task, notes in tasks.items():
            train, validation, test = (notes.total(split, most) for split in SPLITS)
            shared = max(totals) / len(tasks)
            if variant_of(name).trains_head_alone:
                flops = shared * cost.flops / cost.tokens
            else:
                scored = (epochs * config.evaluations_per_epoch + 2) * validation + test
                scored += shared
                flops = epochs * train * cost.flops / cost.tokens + scored * forward
            count = len(notes.tokens["train"])
            steps = max(1, round(epochs * math.ceil(count / targets_per_step)))
            if variant_of(name).trains_head_alone:
                steps = 0
            head = (model.backbone.hidden_size + 1) * notes.classes
            figures = (count, steps, model.trainable_count + head)
            yield self._training((name, task, seeds), figures, model, cost, flops)

    def _training(
        self,
        what: tuple[str, str | None, tuple[int, ...]],
        figures: tuple[int, int, int],
        model: Stack,
        cost: StepCost,
        flops: float,
    ) -> EstimatedTraining:
        gpu, dtype = GPUS[self.gpu], model.backbone.dtype
        if dtype not in gpu.rates:
            raise ConfigError(
                f"gpu {self.gpu} computes no {dtype}; it has {', '.join(gpu.rates)}. Set dtype."
            )
        memory_gib = cost.peak_bytes / 2**30
        return EstimatedTraining(
            ENCODERS if model.backbone.is_encoder else self.name,
            *what,
            *figures,
            memory_gib,
            memory_gib <= USABLE_SHARE * gpu.memory_gib,
            flops / (ASSUMED_SHARE * gpu.rates[dtype]),
        )


def _schedule(recipe: Recipe, name: str) -> tuple[float, int]:
    """Epochs of a model of step 2, and notes per step."""
    of_encoders, config = recipe.encoders, recipe.downstream
    encoder, _, variant = name.rpartition("+")
    if encoder in of_encoders.models:
        optim = of_encoders.full_optim if variant == "full" else of_encoders.lora_optim
        return of_encoders.epochs, optim.targets_per_step
    return config.epochs, config.optim.targets_per_step


def _lengths(recipe: Recipe) -> _Lengths:
    folder = resolve_backbone(recipe.backbone, needs_weights=False)
    has_notes = all(sources.files_of(one.source) for one in (recipe, recipe.corpus))
    if not has_notes or not any(folder.glob("*.safetensors")):
        return _published_lengths(recipe)
    with notes_of(recipe) as (prepared, corpus):
        corpus_D = corpus.store.lengths_D[pretrain.training_documents(recipe, corpus)]
        tasks = {}
        for name, table in prepared.tasks.items():
            notes = {split: table.note_ids_N[table.rows(split)].tolist() for split in SPLITS}
            tokens = {s: _tokens_read(recipe, prepared, ids) for s, ids in notes.items()}
            tasks[name] = _TaskLengths(len(table.task.classes), tokens)
        read = (prepared.store.max_tokens, prepared.max_pieces(recipe))
        return _Lengths(*read, np.array(corpus_D), tasks, "counted in the notes")


def _tokens_read(recipe: Recipe, prepared: Prepared, note_ids: list[str]) -> Int64Array:
    documents_N = prepared.store.first_documents(note_ids)
    return prepared.store.reading(documents_N, prepared.max_pieces(recipe)).tokens_N


def _published_lengths(recipe: Recipe) -> _Lengths:
    kinds = (recipe.corpus.prepare.source.kind, recipe.prepare.source.kind)
    if kinds != published.COUNTED_KINDS:
        raise ConfigError(
            f"prepare.source: the notes are not in {recipe.data}, or {recipe.backbone} has no "
            "weights, and counts are published for step 1 on mimic4 and tasks on mimic3 only; put "
            "the missing files there."
        )
    longest, split = assumed_longest(recipe), recipe.corpus.split
    given, origin = recipe.downstream.max_pieces, published.ASSUMPTION
    pieces = 1 if given == "auto" else given
    if "auto" in (recipe.prepare.max_tokens, given):
        origin += f"; of each note the first {pieces} x {longest:,} tokens are assumed to be read"
    most = pieces * longest
    corpus = published.assumed_corpus()
    share = 1 - split.validation - split.test if isinstance(split, SplitConfig) else 1
    lengths = [
        np.full(round(share * count), min(longest, corpus.tokens[source]), np.int64)
        for source, count in corpus.counts.items()
        if source in (recipe.pretrain.sources or corpus.counts)
    ]
    tasks = {
        name: _TaskLengths(
            notes.classes,
            {s: np.full(n, min(most, notes.tokens[s])) for s, n in notes.counts.items()},
        )
        for name, notes in published.assumed_tasks().items()
        if name in (recipe.downstream.tasks or (name,))
    }
    return _Lengths(longest, pieces, np.concatenate(lengths), tasks, origin)
