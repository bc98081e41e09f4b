"""What a dry run counts: the notes, or what is published of them, and one step of a training."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from notetune.config import Config
from notetune.errors import ConfigError
from notetune.model.adapters.files import SavedAdapter
from notetune.model.adapters.specs import AdapterSpec, Prompt, traits
from notetune.model.backbone import Backbone, outline_backbone
from notetune.model.backbone_folder import Dtype, resolve_backbone
from notetune.model.batch import PackedBatch
from notetune.model.device import capability_of, memory_bytes, torch_device
from notetune.model.entering import EnteringStates
from notetune.model.recompute import recompute_layers
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.notes.outcomes import SPLITS
from notetune.prepare.build import prepare
from notetune.prepare.encoders import outline_encoder
from notetune.prepare.settings import LEAST_TOKENS, row_of
from notetune.prepare.tasks import wanted_tasks
from notetune.recipe.recipe import Recipe
from notetune.sources.mimic import published
from notetune.sources.paths import files_of, paths_in
from notetune.sources.splits import SplitConfig
from notetune.study import perplexity
from notetune.study.features import labelled_documents, layers_of
from notetune.study.jobs import Job
from notetune.study.listing import facts_here, jobs_of, notes_here
from notetune.study.notices import unsure
from notetune.study.specs import CellSpec, DomainSpec, Facts, FeatureSpec, Notes, PerplexitySpec
from notetune.study.wanted import domain_spec, facts_of
from notetune.tokens.edges import read_declared
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.gpus import USABLE_SHARE
from notetune.train.step_cost import StepCost, step_cost

_MIMIC = ("mimic3", "mimic4")


@dataclass(frozen=True)
class Counted:
    """Tokens of what is read.

    Attributes:
        corpus_D: Of each document that step 1 trains on.
        measured_D: Of each document that perplexity is measured on.
        tasks: Of each note of a task, as far as it is read, by task and split.
        labelled_N: Of each note of any task, once, as far as it is read.
        origin: Where the numbers are from.
        notices: What a reader must know of the notes.
    """

    facts: Facts
    corpus_D: Int64Array
    measured_D: Int64Array
    tasks: Mapping[str, Mapping[str, Int64Array]]
    labelled_N: Int64Array
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
    has_notes = all(files_of(spec.source) for spec in read)
    if not has_notes or not any(folder.glob("*.safetensors")):
        return _published(recipe, [spec.source for spec in read])
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
        corpus, origin = notes.corpus.store, "counted in the notes"
        corpus_D = np.array(corpus.lengths_D[domain_spec(one, facts, 0).documents_of(corpus)])
        measured_D = _measured(one, facts, corpus)
        said = (*prepared.notices, *unsure(prepared))
        labelled_N = store.reading(labelled_documents(prepared, store), facts.max_pieces).tokens_N
        return Counted(facts, corpus_D, measured_D, tasks, labelled_N, classes, origin, said)


def _measured(recipe: Recipe, facts: Facts, corpus: TokenStore) -> Int64Array:
    """Tokens of each document of the samples, which are those of every perplexity."""
    measured = [job for job in jobs_of(recipe, "", facts) if job.stage == "perplexity"]
    samples = [sample for job in measured[:1] for sample in perplexity.samples(job, corpus)]
    lengths = [sample.store.lengths_D[sample.documents_D] for sample in samples]
    return np.concatenate([np.empty(0, dtype=np.int64), *lengths])


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
    return Counted(facts, notes_N, none, {"any task": splits}, notes_N, {"any task": 1}, origin)


def _published(recipe: Recipe, needed: Sequence[Config]) -> Counted:
    of_step_1 = recipe.corpus or recipe.preparation
    if (of_step_1.source.kind, recipe.prepare.source.kind) != published.COUNTED_KINDS:
        raise ConfigError(_why_not_counted(recipe, needed))
    known = published.assumed_tasks()
    tasks = {name: known[name] for name in wanted_tasks(recipe.downstream.tasks, list(known))}
    facts, origin = assumed_facts(recipe, tuple(tasks)), published.ASSUMPTION
    longest, most = facts.max_tokens, facts.max_pieces * facts.max_tokens
    if "auto" in (recipe.prepare.max_tokens, recipe.downstream.max_pieces):
        read = f"{facts.max_pieces} x {longest:,} tokens"
        origin += f"; of each note the first {read} are assumed to be read"
    tokens = published.ASSUMED_TOKENS
    read_N = {
        name: {part: np.full(n, min(most, tokens["admission"])) for part, n in counts.items()}
        for name, counts in tasks.items()
    }
    classes = {name: published.CLASS_COUNTS[name] for name in tasks}
    largest_N = max((np.concatenate([*one.values()]) for one in read_N.values()), key=len)
    corpus = _published_corpus(recipe, longest)
    return Counted(facts, *corpus, read_N, largest_N, classes, origin)


def _why_not_counted(recipe: Recipe, read: Sequence[Config]) -> str:
    only = "counts are published for step 1 on mimic4 and tasks on mimic3 only"
    missing = [path for source in read if not files_of(source) for path in paths_in(source)]
    if not missing:
        return (
            f"{recipe.backbone} has no weights. A dry run needs them to count notes, since {only}; "
            "put a .safetensors file there."
        )
    why = (
        f" A dry run needs the notes, since {only}." if recipe.prepare.source.kind in _MIMIC else ""
    )
    return (
        f"{missing[0]} is not a file.{why} Put it there, or name with --data the folder that the "
        f"recipe's paths start from (now {recipe.data})."
    )


def _published_corpus(recipe: Recipe, longest: int) -> tuple[Int64Array, Int64Array]:
    """Tokens of each document that step 1 trains on, and that perplexity is measured on."""
    corpus, split = published.assumed_corpus(), (recipe.corpus or recipe.preparation).split
    shares = (1.0, 1.0, 1.0)
    if isinstance(split, SplitConfig):
        shares = (1 - split.validation - split.test, split.validation, split.test)
    trained, measured = [], []
    for source, count in corpus.items():
        if source in (recipe.pretrain.sources or corpus):
            parts = [round(share * count) for share in shares]
            sample = sum(min(part, recipe.pretrain.perplexity_documents) for part in parts)
            size = min(longest, published.ASSUMED_TOKENS[source])
            trained.append(np.full(parts[0], size, np.int64))
            measured.append(np.full(sample, size, np.int64))
    return np.concatenate(trained), np.concatenate(measured)


@dataclass(frozen=True)
class CountedStep:
    """One step of a job, run where tensors have shapes but no data.

    Attributes:
        job: A training, or what measures perplexity.
        longest: Tokens of a document, of which an encoder may read fewer.
        capability: The compute capability of its card; None on a CPU.
        recomputes: Whether activations are computed again in the backward pass.
        kept_in: Type of the backbone's weights, where it is not that of the job.
    """

    job: Job
    longest: int
    capability: tuple[int, int] | None = None
    recomputes: bool = False
    kept_in: Dtype | None = None

    @property
    def dtype(self) -> Dtype:
        """Type of the backbone's weights."""
        return self.kept_in or self._reads.weights.dtype

    @property
    def has_plain_layers(self) -> bool:
        """Whether its layers are neither compiled nor sharded."""
        spec = self.job.spec
        if isinstance(spec, DomainSpec | PerplexitySpec):
            return not (spec.compiled or spec.sharded)
        return True

    @property
    def is_possible(self) -> bool:
        """Whether its model can be as this says, on a backbone that may have other weights."""
        own = self._reads.weights.dtype
        if self.recomputes and not (self.trains and self.has_plain_layers):
            return False
        if self.kept_in is None:
            return True
        is_smaller = own == "float32" or (own, self.kept_in) == ("bfloat16", "nf4")
        if self.kept_in == "bfloat16":
            return is_smaller
        kept = replace(self, kept_in=None, recomputes=False).model
        reads = any(traits(layer.spec).reads_weights for layer in kept.layers)
        is_encoder = kept.backbone.is_encoder
        return is_smaller and self.has_plain_layers and not (is_encoder or reads)

    def fits(self, memory_bytes: float | None) -> bool:
        """Whether it is in the memory of a device; where that is not known, it is."""
        return memory_bytes is None or self.cost.peak_bytes <= USABLE_SHARE * memory_bytes

    def as_asked(self, memory_bytes: float | None) -> "CountedStep":
        """The step with its activations recomputed, if its job asks for that in such a memory."""
        asked = self.job.place.recompute
        can_be = self.trains and self.has_plain_layers
        if not asked or not can_be or (asked == "auto" and self.fits(memory_bytes)):
            return self
        return replace(self, recomputes=True)

    @property
    def trains(self) -> bool:
        """Whether the step goes back and updates."""
        spec = self.job.spec
        return isinstance(spec, DomainSpec) or (
            isinstance(spec, CellSpec) and spec.training is not None
        )

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
        if self.recomputes:
            recompute_layers(backbone)
        if isinstance(spec, DomainSpec):
            return stack(backbone, [Layer(DOMAIN, without_text(spec.adapter), is_trained=True)])
        if isinstance(spec, PerplexitySpec):
            before = [Layer(DOMAIN, self._domain(), is_trained=False)] if spec.has_adapter else []
            return stack(backbone, before)
        layers = layers_of(self.job.spec_as(CellSpec), self._domain)
        light = [replace(layer, adapter=without_text(layer.adapter)) for layer in layers]
        return stack(backbone, light, predicts_tokens=False)

    def _domain(self) -> SavedAdapter:
        """The domain adapter as others read it: without a network that it learnt through."""
        model = CountedStep(self.job.needed("pretrain"), self.longest).model
        adapter = model.adapters[DOMAIN]
        return SavedAdapter(adapter.spec, adapter.tensors(), model.backbone.fingerprint)

    @cached_property
    def cost(self) -> StepCost:
        """What the step takes."""
        return step_cost(self.model, self.loss_of(self.model), self.lengths, trains=self.trains)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of the documents of a full row."""
        size = self.document_tokens + self.model.reserved_per_document
        return (self.document_tokens,) * max(1, row_of(self._reads.tokens_per_row, size) // size)

    @cached_property
    def first_layer(self) -> int:
        """The lowest layer that its steps compute; what enters it is kept."""
        model, is_wanted = self.model, self.job.place.keep_hidden_states
        if not is_wanted or isinstance(self._reads, DomainSpec) or model.reserved_per_document:
            return 0
        first = model.lowest_trained
        return first if first and model.runs_from(first) else 0

    @cached_property
    def forward_flops(self) -> float:
        """Operations per token to score a document with its backbone alone."""
        return self._flops_from(0)

    @cached_property
    def upper_flops(self) -> float:
        """The same of the layers that its steps compute."""
        return self._flops_from(self.first_layer)

    def _flops_from(self, first: int) -> float:
        model = stack(self._outline)
        loss = _features_sum(model, self.job.spec_as(CellSpec).features, first)
        cost = step_cost(model, loss, (self.document_tokens,), trains=False)
        return cost.flops / cost.tokens

    def loss_of(self, model: Stack) -> Callable[[PackedBatch], Tensor]:
        """What the step minimises; a head is too small to count."""
        if isinstance(self._reads, FeatureSpec):
            return _features_sum(model, self._reads, self.first_layer)
        return model.summed_token_loss

    @property
    def _outline(self) -> Backbone:
        place, model = self.job.place, self.job.model
        if model and model.encoder:
            return outline_encoder(place.backbone, place.key, self.dtype)
        return outline_backbone(place.backbone, self.dtype, self.capability)

    @property
    def _reads(self) -> DomainSpec | PerplexitySpec | FeatureSpec:
        """What says how documents are read."""
        spec = self.job.spec
        if isinstance(spec, DomainSpec | PerplexitySpec):
            return spec
        return self.job.spec_as(CellSpec).features


def recomputes(job: Job, longest: int) -> bool:
    """Whether a training that begins here computes its activations again."""
    device = torch_device(job.place.device)
    step = CountedStep(job, longest, capability_of(device))
    return step.as_asked(memory_bytes(device)).recomputes


def without_text(adapter: AdapterSpec | SavedAdapter) -> AdapterSpec | SavedAdapter:
    """The same adapter at the same cost, but no tokenizer is needed to start it."""
    if isinstance(adapter, Prompt):
        return adapter.model_copy(update={"init": "random"})
    return adapter


def _features_sum(
    model: Stack, reads: FeatureSpec, first: int = 0
) -> Callable[[PackedBatch], Tensor]:
    """What the layers from `first` on make of a row, on states that stand for any."""
    width, weights = model.backbone.hidden_size, model.backbone.embeddings.weight
    states = EnteringStates(first, lambda batch: weights.new_zeros(len(batch.ids_T), width))
    entering = states if first else None
    return lambda batch: model.features(batch, reads.pooling, reads.layers, entering).sum()
