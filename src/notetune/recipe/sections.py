"""The sections of a recipe: what each stage takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from notetune.aliases import Combine
from notetune.config import Config, Name
from notetune.metrics.published import PublicationName
from notetune.model.adapters.folder import AdapterFolder, read_folder
from notetune.model.adapters.specs import AdapterSpec, LoRA
from notetune.model.layers import Layers, Pooling
from notetune.prepare.settings import Auto, LeakedTexts, TokensPerRow
from notetune.recipe.models import VariantName
from notetune.search.propose import Proposer
from notetune.search.space import SpaceChoice
from notetune.sources import SourceConfig
from notetune.sources.splits import Split, SplitConfig
from notetune.train.schedule import Average, OptimConfig, ValidationConfig

BaselineName = Literal["prevalence", "tf-idf", "tf-idf-all", "tf-idf-cut", "columns"]
LEAST_PATIENTS: Final = 2
"""Whose notes share every word of `tf-idf-all`: a word of one patient tells of no other."""
MOST_WEIGHTS: Final = 50_000_000
"""Of TF-IDF, words times labels; fitting keeps some 20 of each in memory."""
Objective = Literal["perplexity", "auroc", "loss"]
EncoderVariant = Literal["head-only", "full", "lora"]
_NamesT = TypeVar("_NamesT", bound=Sequence[str])


def _without_repeats(names: _NamesT) -> _NamesT:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named {names.count(name)} times; name each once")
    return names


_EACH_ONCE: Final = AfterValidator(_without_repeats)


class SectionRow(NamedTuple):
    """What a row of a section must hold."""

    section: str
    given: TokensPerRow
    virtual: int
    """Virtual tokens in front of each document."""
    pieces: int
    """Documents of one note that are in it together."""


class CorpusConfig(Config):
    """Notes that step 1 reads in place of those of the tasks; all else is as in `prepare`."""

    source: SourceConfig
    split: Split = SplitConfig()
    """Its validation and test patients show the perplexity on unseen notes."""


class ComparedMethod(Config):
    """Another method of step 1."""

    adapter: AdapterSpec = LoRA()
    optim: OptimConfig | None = None
    """As `pretrain.optim` when left out."""


class PerplexityConfig(Config):
    """How perplexity is measured; none of it trains anything again."""

    perplexity_documents: PositiveInt = 200
    """Most documents per source and split that perplexity is measured on, drawn at random and the
    same for every method and seed."""
    perplexity: Average = "token"
    """How the loss is averaged; `batch-mean` repeats the published way, and the report says so."""
    general_text: Path | None = None
    """A text file that shows what is forgotten; the shipped general English when left out."""


class PretrainConfig(PerplexityConfig):
    """Step 1: the domain adapter."""

    from_: Path | None = Field(default=None, alias="from")
    """An adapter to bring: `domain/seed-S` of a finished run, or a folder that peft wrote. It is
    used as it is with `epochs: 0`, else trained on. `adapter` is then what the folder says."""
    adapter: AdapterSpec = LoRA()
    """The method that makes the domain adapter, on which step 2 builds."""
    compare: dict[Name, ComparedMethod] = Field(default_factory=dict)
    """Further methods by name, trained on the same notes and reported beside it."""
    corpus: CorpusConfig | None = None
    """Another source of notes for step 1; those of the tasks when left out."""
    sources: tuple[str, ...] = ()
    """Sources of notes to train on; all when empty."""
    leaked_texts: LeakedTexts = "stop"
    """What to do with a note of step 1 whose text is equal or nearly equal to that of a validation
    or test note of the tasks: stop, or leave it out of step 1 and count it in the flow."""
    always: bool = False
    """Train step 1 too where no variant stands on it, to see what it does to perplexity."""
    epochs: NonNegativeFloat = 1
    """Passes over the notes; 0 takes the adapter of `from` as it is."""
    tokens_per_row: TokensPerRow = "auto"
    """Tokens computed at once, which decide the memory; a row holds whole documents. `auto`: 4096,
    or as many as the longest document has."""
    compiled: bool = False
    """Compile the layers of the decoder first, for a few minutes; pays on a GPU."""
    sharded: bool = False
    """Under torchrun: spread the layers over the processes, so that gradients and averages of all
    weights fit; each loads the backbone first."""
    optim: OptimConfig = OptimConfig()

    @property
    def brought(self) -> AdapterFolder | None:
        """What the folder of `from` says."""
        return read_folder(self.from_) if self.from_ else None

    @model_validator(mode="after")
    def _adapter_is_of_the_folder(self) -> "PretrainConfig":
        if self.brought is None:
            return self
        given, spec = self.adapter.model_dump(), self.brought.spec.model_dump()
        differ = [key for key in {**given, **spec} if given.get(key) != spec.get(key)]
        if differ and "adapter" in self.model_fields_set:
            raise ValueError(
                f"adapter.{differ[0]} is {given.get(differ[0])}, but {spec.get(differ[0])} in the "
                f"adapter of {self.from_}; leave `adapter` out, the folder says what it is"
            )
        return self.model_copy(update={"adapter": self.brought.spec})

    @model_validator(mode="after")
    def _keys_fit(self) -> "PretrainConfig":
        if not self.epochs and not self.from_:
            raise ValueError("epochs: 0 trains nothing; name an adapter with `from`")
        if not self.epochs and self.compare:
            raise ValueError("compare: with epochs 0 no other method would train; leave it out")
        if self.sharded and self.compiled:
            raise ValueError("layers are either sharded or compiled; leave one of the two out")
        if self.adapter.kind in self.compare:
            raise ValueError(
                f"compare: {self.adapter.kind} is how the report names the domain adapter; give "
                "the other method another name"
            )
        return self


class DecoderFeatures(Config):
    """What a head reads of a note on a decoder."""

    layers: Layers = "last"
    """Whose hidden states stand side by side: `last`, a list of layers (0 is the embeddings), or
    `every N`, counted down from the last."""
    pooling: Literal["last", "mean"] = "mean"
    """Over all tokens, or the last one alone; the first token of a decoder has read no other."""


class EncoderFeatures(Config):
    """What a head reads of a note on an encoder."""

    layers: Layers = "last"
    """As of a decoder."""
    pooling: Pooling = "first"


class DownstreamConfig(ValidationConfig):
    """Step 2: heads, solved; and task adapters, kept as they were best on the validation notes."""

    tasks: Annotated[tuple[str, ...], _EACH_ONCE] = ()
    """Tasks of the source to predict; all when empty."""
    variants: Annotated[tuple[VariantName, ...], _EACH_ONCE] = (
        "head-only",
        "task-lora",
        "domain-frozen+task-lora",
        "domain-trainable+task-lora",
    )
    adapter: AdapterSpec = LoRA()
    features: DecoderFeatures = DecoderFeatures()
    """What heads read of a note."""
    max_pieces: PositiveInt | Auto = "auto"
    """Pieces of a long note that every model reads, encoders too; the rest is cut off. A note is
    the mean over all their tokens, or over the first or last one of each. `auto`: as many as read
    95 % of the labelled training notes whole, if a row has room for them; encoders have their own
    number."""
    class_weights: Literal["none", "balanced"] = "none"
    """With `balanced` both values of each label, or all classes, weigh the same in every training
    of step 2, that of encoders too; the report says so."""
    epochs: PositiveFloat = 3
    tokens_per_row: TokensPerRow = "auto"
    """As in `pretrain`; a row holds whole notes."""
    optim: OptimConfig = OptimConfig(targets_per_step=16)
    """For the variants that train adapters."""
    domain_lr: PositiveFloat | None = None
    """Peak learning rate of a domain adapter that trains on; that of `optim` when left out."""
    head_lr: PositiveFloat | Auto = "auto"
    """Peak learning rate of the head beside adapters. It starts from the head that is solved on
    the features of the model as it starts, on standardised features. `auto`: 0.3 by their number,
    so that a step moves no logit far, however wide the model."""


class EncodersConfig(Config):
    """Encoders for comparison in step 2, each under the name NAME+VARIANT."""

    models: dict[Name, str] = Field(default_factory=dict)
    """A name for each Hugging Face folder of an encoder."""
    variants: Annotated[tuple[EncoderVariant, ...], _EACH_ONCE] = ("full", "lora")
    """All weights train, LoRA does, or nothing but the head (`head-only`)."""
    adapter: LoRA = LoRA(targets=("query", "value", "Wqkv"))
    """For `lora`; the targets are those of BERT and the joint projection of ModernBERT."""
    features: EncoderFeatures = EncoderFeatures()
    epochs: PositiveFloat = 3
    tokens_per_row: TokensPerRow = "auto"
    """As in `downstream`."""
    full_optim: OptimConfig = OptimConfig(peak_lr=5e-5, targets_per_step=16)
    lora_optim: OptimConfig = OptimConfig(peak_lr=5e-4, targets_per_step=16)
    head_lr: PositiveFloat | Auto = "auto"
    """Peak learning rate of the head, with either; as in `downstream`."""


class ListedPatients(Config):
    """A file that names patients, such as PATIENTS.csv of the MIMIC-III CareVue subset."""

    file: Path
    column: str = "SUBJECT_ID"
    """Its column with the patient id."""


class PrimaryComparison(Config):
    """A comparison that is declared before the test scores are seen."""

    model: str
    """A model as the report names it, or `best-validated`: for each run, the language model with
    the highest validation AUROC of the other runs, of those that all with several runs have."""
    against: str
    """The model that it is held against."""
    task: str | None = None
    """The only task to compare them on; all tasks when left out."""


class TuneConfig(Config):
    """A search for settings, judged by validation notes alone; the winner is trained in all runs.

    Step 1 is searched for each of its methods, step 2 for each task and variant that trains an
    adapter. Heads need none: their penalty is solved.
    """

    pretrain: SpaceChoice | None = None
    """What may change in step 1, judged by perplexity: `default`, which keeps `epochs` below 1,
    `paper`, or keys of `pretrain`, each with a list of values or an interval, as in
    `optim.peak_lr: {low: 1e-4, high: 1e-2, log: true}`; `adapter.alpha/rank` scales a LoRA. Not
    searched when left out."""
    downstream: SpaceChoice | None = None
    """The same for step 2, with keys of `downstream`."""
    objective: Literal["auroc", "loss"] = "auroc"
    """What step 2 is judged by: macro AUROC, or the log loss."""
    trials: Annotated[int, Field(gt=0, le=10_000)] = 20
    """Points of each search; with more of them, a finished search goes on."""
    starts: PositiveInt = 5
    """How many of these are drawn at random before the Gaussian process proposes."""
    proposer: Proposer = "gp"
    """`random` draws all points, as a control."""
    share: Annotated[float, Field(gt=0, le=1)] = 1
    """Share of its epochs that a trial trains for; the winner trains for all of them. A small one
    may find learning rates that are too high for all of them."""
    seed: NonNegativeInt = 0
    """Of the points; with another one a search begins anew, beside the trials of the first."""

    @property
    def is_on(self) -> bool:
        """Whether anything is searched."""
        return self.pretrain is not None or self.downstream is not None


class EvaluateConfig(Config):
    """Scores to estimates."""

    combine: Combine = "none"
    """What the scores of the notes of one stay become before anything is estimated, for all models
    alike: their mean, their maximum (of classes, scaled to sum to 1), or that of the last note in
    time. Training, and what it chooses on validation notes, stays note by note."""
    draws: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Draws of patients."""
    primary: tuple[PrimaryComparison, ...] | None = None
    """Comparisons whose p-values are corrected for one another (Holm); all others are exploratory.
    When left out, on each task: domain adapter on or off, task adapter on or off, the best
    validated model against TF-IDF (`tf-idf-all` where there is one), and the hybrid likewise."""
    baselines: Annotated[tuple[BaselineName, ...], _EACH_ONCE] | None = None
    """All that apply when left out. `tf-idf-all` has every word that two patients share, and no
    bundle; `tf-idf-cut` reads as much of a note as the models do, and `columns` the `features` of
    the source."""
    tfidf_min_patients: PositiveInt = 10
    """Words, pairs of words and levels of columns stand in a bundle, and so are used by all models
    that are one, if the notes of that many training patients share them. `tf-idf-all` beside
    `tf-idf` shows what that costs."""
    hybrid: str | None = "auto"
    """The model that a hybrid joins with `tf-idf` and, where there are any, `columns`, by its name
    in the report; null for no hybrid. `auto` makes one for each backbone and each encoder, with
    the first that there is: domain-frozen+task-lora, domain-trainable+task-lora, domain-trainable,
    task-lora, domain-frozen, full-domain, head-only; of an encoder lora, full, head-only."""
    listed_patients: ListedPatients | None = None
    """Show the test scores on these patients alone too: those that no corpus of step 1 holds."""
    deletion_notes: NonNegativeInt = 0
    """Test notes of a deletion test for each task: how much of the scores of TF-IDF, and of the
    model that a hybrid joins, rests on the three sentences that count most. Each sentence of a note
    is a note to score; 0 for none."""
    published: PublicationName | None = None
    """Show the tables of a publication with ours beside: `gema-2023` has those of the paper whose
    method this is. Models and methods are matched by the names that recipes/paper.yaml gives."""
    seed: NonNegativeInt = 0
