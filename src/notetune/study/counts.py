"""What a dry run counts: the notes, or what is published of them, and one step of a training."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from notetune import sources
from notetune.errors import ConfigError
from notetune.model.adapters.files import SavedAdapter
from notetune.model.adapters.specs import AdapterSpec, Prompt
from notetune.model.backbone import Backbone, outline_backbone
from notetune.model.backbone_folder import Dtype, resolve_backbone
from notetune.model.batch import PackedBatch
from notetune.model.stack import DOMAIN, TASK, Layer, Stack, stack
from notetune.notes.outcomes import SPLITS
from notetune.prepare.build import prepare
from notetune.prepare.encoders import outline_encoder
from notetune.prepare.settings import LEAST_TOKENS, row_of
from notetune.recipe.recipe import Recipe
from notetune.sources.mimic import published
from notetune.sources.splits import SplitConfig
from notetune.study.jobs import Job
from notetune.study.listing import facts_here, notes_here
from notetune.study.specs import CellSpec, DomainSpec, Facts, FeatureSpec, Notes
from notetune.study.wanted import domain_spec, facts_of
from notetune.tokens.edges import read_declared
from notetune.tokens.packing import Int64Array
from notetune.train.step_cost import StepCost, step_cost


@dataclass(frozen=True)
class Counted:
    """Tokens of what is read.

    Attributes:
        facts: What jobs must know of the notes.
        corpus_D: Of each document that step 1 trains on.
        tasks: Of each note of a task, as far as it is read, by task and split.
        classes: Of each task.
        origin: Where the numbers are from.
        notices: What a reader must know of the notes.
    """

    facts: Facts
    corpus_D: Int64Array
    tasks: Mapping[str, Mapping[str, Int64Array]]
    classes: Mapping[str, int]
    origin: str
    notices: tuple[str, ...] = ()


def count_notes(recipe: Recipe) -> Counted:
    """Count the notes, or take published counts where they are not here.

    Raises:
        ConfigError: If no counts of such notes are published.
    """
    folder = resolve_backbone(recipe.backbone, needs_weights=False)
    read = [spec for spec in (recipe.preparation, recipe.corpus) if spec]
    has_notes = all(sources.files_of(spec.source) for spec in read)
    if not has_notes or not any(folder.glob("*.safetensors")):
        return _published(recipe)
    with _notes_of(recipe) as (one, notes):
        prepared, store = notes.prepared, notes.prepared.store
        facts = facts_of(one, notes)
        tasks = {}
        for name, table in prepared.tasks.items():
            ids = {split: table.note_ids_N[table.rows(split)].tolist() for split in SPLITS}
            tasks[name] = {
                split: store.reading(store.first_documents(notes_N), facts.max_pieces).tokens_N
                for split, notes_N in ids.items()
            }
        classes = {name: len(table.task.classes) for name, table in prepared.tasks.items()}
        domain = domain_spec(one, facts, 0)
        corpus_D = notes.corpus.store.lengths_D[domain.documents_of(notes.corpus.store)]
        origin = "counted in the notes"
        return Counted(facts, np.array(corpus_D), tasks, classes, origin, prepared.notices)


@contextmanager
def _notes_of(recipe: Recipe) -> Iterator[tuple[Recipe, Notes]]:
    """The notes of a backbone; what is not prepared goes into a folder that does not stay."""
    if facts_here(recipe) is not None:
        yield recipe, notes_here(recipe)
        return
    with tempfile.TemporaryDirectory() as folder:
        config = recipe.prepare
        declared = read_declared(resolve_backbone(recipe.backbone))
        if config.opener == "auto" and declared.own_edges is None:
            # Weights would choose it; that is at most one token a document less.
            config = config.model_copy(update={"opener": "none"})
        changes = {"prepare": config, "runs": Path(folder), "prepared": None}
        aside = recipe.model_copy(update=changes)
        prepared = prepare(aside.preparation)
        yield aside, Notes(prepared, prepare(aside.corpus, prepared) if aside.corpus else prepared)


def assumed_longest(recipe: Recipe) -> int:
    """Longest document where no notes are here to tell: as long as there can be."""
    given = recipe.prepare.max_tokens
    if given != "auto":
        return given
    positions = outline_backbone(recipe.backbone).max_positions - recipe.positions_taken
    return max(LEAST_TOKENS, min(positions, recipe.most_tokens))


def assumed_facts(recipe: Recipe, tasks: tuple[str, ...]) -> Facts:
    """The facts of notes that are not here: documents as long as there can be."""
    longest, given = assumed_longest(recipe), recipe.downstream.max_pieces
    pieces = 1 if given == "auto" else given
    return Facts(tasks, ("",) * len(tasks), "", "", longest, pieces, "", longest)


def a_million(recipe: Recipe) -> Counted:
    """A million tokens in notes of the greatest length, for step 1 and a task of one class."""
    facts = assumed_facts(recipe, ("any task",))
    longest = facts.max_tokens
    notes_N = np.full(round(1e6 / longest), longest, np.int64)
    none = notes_N[:0]
    splits = {"train": notes_N, "validation": none, "test": none}
    origin = f"assumed to be {len(notes_N):,} of {longest:,} tokens, with one class"
    return Counted(facts, notes_N, {"any task": splits}, {"any task": 1}, origin)


def _published(recipe: Recipe) -> Counted:
    of_step_1 = recipe.corpus or recipe.preparation
    if (of_step_1.source.kind, recipe.prepare.source.kind) != published.COUNTED_KINDS:
        raise ConfigError(
            f"prepare.source: the notes are not in {recipe.data}, or {recipe.backbone} has no "
            "weights, and counts are published for step 1 on mimic4 and tasks on mimic3 only; put "
            "the missing files there."
        )
    wanted = recipe.downstream.tasks
    tasks = {n: t for n, t in published.assumed_tasks().items() if n in (wanted or (n,))}
    facts, origin = assumed_facts(recipe, tuple(tasks)), published.ASSUMPTION
    longest, most = facts.max_tokens, facts.max_pieces * facts.max_tokens
    if "auto" in (recipe.prepare.max_tokens, recipe.downstream.max_pieces):
        read = f"{facts.max_pieces} x {longest:,} tokens"
        origin += f"; of each note the first {read} are assumed to be read"
    corpus, split = published.assumed_corpus(), of_step_1.split
    tokens = published.ASSUMED_TOKENS
    share = 1 - split.validation - split.test if isinstance(split, SplitConfig) else 1
    lengths = [
        np.full(round(share * count), min(longest, tokens[source]), np.int64)
        for source, count in corpus.items()
        if source in (recipe.pretrain.sources or corpus)
    ]
    read_N = {
        name: {part: np.full(n, min(most, tokens["admission"])) for part, n in counts.items()}
        for name, counts in tasks.items()
    }
    classes = {name: published.CLASS_COUNTS[name] for name in tasks}
    return Counted(facts, np.concatenate(lengths), read_N, classes, origin)


@dataclass(frozen=True)
class CountedStep:
    """One step of a training, run where tensors have shapes but no data.

    Attributes:
        job: The training.
        longest: Tokens of a document, of which an encoder may read fewer.
    """

    job: Job
    longest: int

    @property
    def dtype(self) -> Dtype:
        """Type of the backbone's weights."""
        assert isinstance(self.job.spec, DomainSpec | CellSpec)
        spec = self.job.spec
        return spec.weights.dtype if isinstance(spec, DomainSpec) else spec.features.weights.dtype

    @property
    def trains(self) -> bool:
        """Whether the step goes back and updates."""
        return isinstance(self.job.spec, DomainSpec) or self._cell.training is not None

    @cached_property
    def document_tokens(self) -> int:
        """Tokens of each document of its row."""
        backbone = self.model.backbone
        return min(self.longest, backbone.max_positions) if backbone.is_encoder else self.longest

    @cached_property
    def model(self) -> Stack:
        """Its model, without weights."""
        return self.model_on(self._outline)

    def model_on(self, backbone: Backbone) -> Stack:
        """Its model on a backbone that may have weights."""
        spec = self.job.spec
        if isinstance(spec, DomainSpec):
            return stack(backbone, [Layer(DOMAIN, without_text(spec.adapter), is_trained=True)])
        layers, training = [], self._cell.training
        if self._cell.features.has_domain:
            trains = training is not None and training.trains_domain
            domain = _as_saved(CountedStep(self.job.needed("pretrain"), self.longest).model)
            layers.append(Layer(DOMAIN, domain, is_trained=trains))
        if training and training.task_adapter:
            layers.append(Layer(TASK, without_text(training.task_adapter), is_trained=True))
        return stack(backbone, layers, predicts_tokens=False)

    @cached_property
    def cost(self) -> StepCost:
        """What the step takes."""
        return step_cost(self.model, self.loss_of(self.model), self.lengths, trains=self.trains)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of the documents of a full row."""
        size, spec = self.document_tokens + self.model.reserved_per_document, self.job.spec
        reads = spec if isinstance(spec, DomainSpec) else self._cell.features
        return (self.document_tokens,) * max(1, row_of(reads.tokens_per_row, size) // size)

    @cached_property
    def forward_flops(self) -> float:
        """Operations per token to score a document with its backbone alone."""
        model = stack(self._outline)
        loss = _features_sum(model, self._cell.features)
        cost = step_cost(model, loss, (self.document_tokens,), trains=False)
        return cost.flops / cost.tokens

    def loss_of(self, model: Stack) -> Callable[[PackedBatch], Tensor]:
        """What the step minimises; a head is too small to count."""
        if isinstance(self.job.spec, DomainSpec):
            return model.summed_token_loss
        return _features_sum(model, self._cell.features)

    @property
    def _outline(self) -> Backbone:
        place, model = self.job.place, self.job.model
        if model and model.encoder:
            return outline_encoder(place.backbone, place.key, self.dtype)
        return outline_backbone(place.backbone, self.dtype)

    @property
    def _cell(self) -> CellSpec:
        assert isinstance(self.job.spec, CellSpec)
        return self.job.spec


def without_text(adapter: AdapterSpec) -> AdapterSpec:
    """The same adapter at the same cost, but no tokenizer is needed to start it."""
    if isinstance(adapter, Prompt):
        return adapter.model_copy(update={"init": "random"})
    return adapter


def _as_saved(model: Stack) -> SavedAdapter:
    """The domain adapter as step 2 reads it: without a network that it learnt through."""
    adapter = model.adapters[DOMAIN]
    return SavedAdapter(adapter.spec, adapter.tensors(), model.backbone.fingerprint)


def _features_sum(model: Stack, reads: FeatureSpec) -> Callable[[PackedBatch], Tensor]:
    return lambda batch: model.features(batch, reads.pooling, reads.layers).sum()
