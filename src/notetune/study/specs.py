"""What each kind of job makes, as a value: its settings, and by digest the contents that it reads.

The code that runs a job takes its settings from here and nowhere else, and the fingerprint of this
value is what the result is made from: so nothing can act on a result without being part of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from notetune.errors import DataError
from notetune.model.adapters.specs import AdapterSpec, traits
from notetune.model.backbone_folder import Dtype
from notetune.model.layers import Layers, Pooling
from notetune.prepare.prepared import FORMAT as PREPARED_FORMAT
from notetune.prepare.prepared import Prepared
from notetune.prepare.settings import Auto, EncodeSpec, TokensPerRow, read_pieces, row_of
from notetune.recipe.sections import BaselineName, Objective
from notetune.search.propose import Proposer
from notetune.search.space import Space
from notetune.tokens.packing import Int64Array, steps_per_epoch
from notetune.tokens.store import TokenStore, whole_pieces
from notetune.train.schedule import Average, OptimConfig, ValidationConfig


@dataclass(frozen=True)
class Facts:
    """What jobs must know of prepared notes.

    Attributes:
        labels: Digest of the labels of each task, in the order of `tasks`.
        texts: Digest of all texts, with the split of each note and its columns.
        documents: Digest of the documents of the notes of the tasks.
        max_tokens: Longest of them.
        max_pieces: Documents of one note that step 2 reads.
        corpus: Digest of the documents of step 1, and of which it may read.
        corpus_max_tokens: Longest of them.
    """

    tasks: tuple[str, ...]
    labels: tuple[str, ...]
    texts: str
    documents: str
    max_tokens: int
    max_pieces: int
    corpus: str
    corpus_max_tokens: int


@dataclass(frozen=True)
class Notes:
    """The prepared notes of one backbone: those of the tasks, and those of step 1."""

    prepared: Prepared
    corpus: Prepared


@dataclass(frozen=True)
class Weights:
    """A frozen backbone."""

    fingerprint: str
    dtype: Dtype


@dataclass(frozen=True)
class DomainSpec:
    """A domain adapter of step 1.

    Attributes:
        documents: Digest of the documents.
        sources: Those of the notes to train on; all when empty.
        epochs: 0 for an adapter that is taken as it is; no document is read then.
        tokens_per_row: Tokens computed at once, virtual ones included.
        start: Digest of the adapter that it starts from; "" for a new one.
    """

    weights: Weights
    documents: str
    sources: tuple[str, ...]
    adapter: AdapterSpec
    optim: OptimConfig
    epochs: float
    tokens_per_row: int
    compiled: bool
    sharded: bool
    seed: int
    start: str = ""
    AS_BEFORE: ClassVar = {"start": ""}

    @property
    def is_taken(self) -> bool:
        """Whether it is an adapter that was brought, as it is."""
        return not self.epochs

    def documents_of(self, store: TokenStore) -> Int64Array:
        """Documents to train on: those of training patients, of these sources.

        Raises:
            DataError: If there is none.
        """
        documents = store.corpus_documents(self.sources)
        if not len(documents):
            known = ", ".join(sorted(set(store.source_N.tolist())))
            raise DataError(
                f"no training note of source {', '.join(self.sources)}; the sources are "
                f"{known}. Mend pretrain.sources."
            )
        return documents

    def step_count(self, lengths_D: Int64Array) -> int:
        """Steps of the whole training on documents of these lengths."""
        if self.is_taken:
            return 0
        per_epoch = steps_per_epoch(
            lengths_D,
            self.tokens_per_row,
            self.optim.targets_per_step,
            traits(self.adapter).row_tokens,
        )
        return max(1, round(self.epochs * per_epoch))


@dataclass(frozen=True)
class PerplexitySpec:
    """Perplexity of a backbone alone, or with the adapter of a job that is needed.

    Attributes:
        documents: Digest of the documents of step 1.
        sources: As of `DomainSpec`; so are `tokens_per_row`, `compiled` and `sharded`.
        general: The sha256 of the general text.
        most_documents: Per source and split.
    """

    weights: Weights
    documents: str
    sources: tuple[str, ...]
    has_adapter: bool
    general: str
    most_documents: int
    average: Average
    tokens_per_row: int
    compiled: bool
    sharded: bool


@dataclass(frozen=True)
class FeatureSpec:
    """How a note becomes what a head reads.

    Attributes:
        documents: Digest of the documents; "" for an encoder's, which a job that is needed makes.
        has_domain: Whether the adapter of a job that is needed is on it.
        layers: Those whose hidden states stand side by side.
        max_pieces: Documents of one note that are read; those that fit where it is `auto`.
        virtual: Virtual tokens in front of each document.
    """

    weights: Weights
    documents: str
    has_domain: bool
    layers: Layers
    pooling: Pooling
    max_pieces: int | Auto
    tokens_per_row: TokensPerRow
    virtual: int

    def pieces_in(self, store: TokenStore) -> int:
        """Documents of one note that are read."""
        wanted = 1
        if self.max_pieces == "auto":
            wanted = whole_pieces(store, store.split_N == "train")
        return read_pieces(
            self.max_pieces, wanted, self.tokens_per_row, store.max_tokens, self.virtual
        )

    def row_in(self, store: TokenStore) -> int:
        """Tokens of a row that holds the longest note."""
        longest = self.pieces_in(store) * (store.max_tokens + self.virtual)
        return row_of(self.tokens_per_row, longest)


HEAD_STEP = 0.3
"""How far a step may move a logit where the rate of the head is `auto`: that by its width."""


@dataclass(frozen=True)
class AdapterTraining:
    """How adapters and head learn together, from the solved head on.

    Attributes:
        domain_lr: Peak learning rate of the domain adapter, if it trains on; that of `optim` if 0.
    """

    task_adapter: AdapterSpec | None
    trains_domain: bool
    epochs: float
    optim: OptimConfig
    domain_lr: float
    head_lr: float | Auto
    validation: ValidationConfig

    def head_rate(self, width: int) -> float:
        """Peak learning rate of a head on so many features."""
        return HEAD_STEP / width if self.head_lr == "auto" else self.head_lr

    def steps_per_epoch(self, notes: int) -> int:
        """Steps of one pass over so many training notes."""
        return math.ceil(notes / self.optim.targets_per_step)

    def step_count(self, notes: int) -> int:
        """Steps of the whole training, if it does not stop early."""
        return max(1, round(self.epochs * self.steps_per_epoch(notes)))


@dataclass(frozen=True)
class CellSpec:
    """A model of step 2 on a task.

    Attributes:
        labels: Digest of the labels.
        is_balanced: Whether both values of each label, or all classes, weigh the same.
        training: How adapters learn; None where nothing but the head does, which is solved.
    """

    task: str
    model: str
    seed: int
    labels: str
    features: FeatureSpec
    is_balanced: bool
    training: AdapterTraining | None

    def step_count(self, notes: int) -> int:
        """Steps of its training on so many notes; a solved head has none."""
        return self.training.step_count(notes) if self.training else 0


@dataclass(frozen=True)
class BaselineSpec:
    """A model of a task without a language model.

    Attributes:
        labels: Digest of the labels.
        texts: Digest of the texts, and of the columns beside them; "" if it reads neither.
        min_patients: Patients whose notes must share a word or a level.
        most_weights: Words times labels; where more would be, words of fewer patients are left out.
        documents: Digest of the documents to which notes are cut; "" for whole notes.
        max_pieces: Documents of one note that are read then.
    """

    task: str
    name: BaselineName
    labels: str
    texts: str = ""
    min_patients: int = 0
    most_weights: int = 0
    documents: str = ""
    max_pieces: int = 0


@dataclass(frozen=True)
class HybridSpec:
    """A stack of the scores of jobs that are needed.

    Attributes:
        labels: Digest of the labels.
        parts: Names of what it joins, in order.
        columns: Columns beside the text, if these are among them.
    """

    task: str
    model: str
    seed: int
    labels: str
    parts: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class DeletionSpec:
    """What leaving out sentences of some test notes does to the scores of a job that is needed.

    `texts` is a digest, `notes` how many they are.
    """

    task: str
    model: str
    texts: str
    notes: int


@dataclass(frozen=True)
class SearchSpec:
    """A search for the settings of a training.

    Attributes:
        base: The training with the settings of the recipe.
        starts: How many of the trials are drawn at random first.
        share: Share of its epochs that a trial trains for.
        seed: Of the points; all else of a trial has that of `base`, which no run has.
    """

    base: "DomainSpec | CellSpec"
    space: Space
    trials: int
    starts: int
    proposer: Proposer
    objective: Objective
    share: float
    seed: int

    @property
    def maximizes(self) -> bool:
        """Whether higher is better."""
        return self.objective == "auroc"


Spec = (
    SearchSpec
    | DomainSpec
    | PerplexitySpec
    | EncodeSpec
    | CellSpec
    | BaselineSpec
    | HybridSpec
    | DeletionSpec
)
Stage = Literal[
    "prepare",
    "prepare the corpus",
    "pretrain",
    "perplexity",
    "encode",
    "baseline",
    "model",
    "hybrid",
    "deletion test",
    "search",
    "trial",
]
"""Which kind of job it is."""


@dataclass(frozen=True)
class Kind:
    """How the jobs of a stage are made.

    Attributes:
        format: Number of what it makes. A release that makes something else of the same inputs
            counts it up, for this stage alone: its folders of before are made again, and what
            others made stays.
        maker: `module:function` of this package, which makes it of the job and the notes; named and
            not imported, since what lists jobs loads no torch. None where `run` does it.
        shows_steps: Whether the maker takes a `Track`, to show its own steps.
    """

    format: int
    maker: str | None
    shows_steps: bool = False


KINDS: Mapping[Stage, Kind] = {
    "prepare": Kind(PREPARED_FORMAT, None),
    "prepare the corpus": Kind(PREPARED_FORMAT, None),
    "pretrain": Kind(3, "step1:train_domain", shows_steps=True),
    "perplexity": Kind(4, "perplexity:measure", shows_steps=True),
    "encode": Kind(3, "features:encode"),
    "baseline": Kind(3, "baselines:score_baseline"),
    "model": Kind(3, "step2:train_model", shows_steps=True),
    "hybrid": Kind(3, "baselines:join"),
    "deletion test": Kind(3, "deletion:measure"),
    "search": Kind(4, "search:choose"),
    "trial": Kind(3, None),
}
