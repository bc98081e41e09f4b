"""The sections of a recipe: what each stage takes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from notetune.config import Config
from notetune.infer import Average
from notetune.model.adapters.specs import (
    AdapterSpec,
    LoRA,
)
from notetune.model.heads import Pooling
from notetune.model.masked import EncoderShape
from notetune.notes.sources import SourceConfig
from notetune.notes.splits import Split, SplitConfig
from notetune.tokens.encode import LongNotes
from notetune.train.choice import ValidationConfig
from notetune.train.optim import OptimConfig
from notetune.workflows.variants import VariantName

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

BaselineName = Literal["prevalence", "tf-idf", "tf-idf-cut", "columns", "hybrid"]
EncoderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
EncoderVariant = Literal["full", "lora"]
MASKED = "mlm"


class PrepareConfig(Config):
    """Notes to splits, labels and tokens."""

    source: SourceConfig
    split: Split = SplitConfig()
    max_tokens: Annotated[int, Field(ge=8)] = 512
    """Longest document. A longer note becomes pieces: step 1 reads all of them, step 2 the first
    `downstream.max_pieces`."""
    long_notes: LongNotes = "pieces"
    """`first` drops what is beyond the first piece, as the published pipeline does."""
    drop_near_duplicates: bool = False
    """Leave training notes out of step 1 that are nearly the same as an earlier one."""
    min_train_positives: PositiveInt = 8
    """A class of a multilabel task is kept if that many training notes have it."""
    allow_leaks: bool = False
    """Go on when a leak check finds something that should stop; the report says so."""
    workers: PositiveInt | None = None
    """Processes that encode; as many as there are cores without. The files do not depend on it."""


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


class PretrainConfig(Config):
    """Step 1: the domain adapter."""

    adapter: AdapterSpec = LoRA()
    """The method that makes the domain adapter, on which step 2 builds."""
    compare: dict[Annotated[str, Field(pattern=NAME)], ComparedMethod] = Field(default_factory=dict)
    """Further methods by name, trained on the same notes and reported beside it."""
    corpus: CorpusConfig | None = None
    """Another source of notes for step 1; those of the tasks when left out."""
    sources: tuple[str, ...] = ()
    """Sources of notes to train on; all when empty."""
    epochs: PositiveFloat = 1
    tokens_per_row: PositiveInt = 4096
    """Tokens computed at once; a row holds whole documents."""
    compiled: bool = False
    """Compile the layers of the decoder first, for a few minutes; pays on a GPU, and float8 needs
    it to be fast."""
    sharded: bool = False
    """Under torchrun: spread the layers over the processes, so that gradients and averages of all
    weights fit; each loads the backbone first."""
    optim: OptimConfig = OptimConfig()
    perplexity_documents: PositiveInt = 2000
    """Most documents per source and split that perplexity is measured on, chosen by the seed."""
    perplexity: Average = "token"
    """How the loss is averaged; `batch-mean` repeats the published way, and the report says so."""
    general_text: Path | None = None
    """A text file that shows what is forgotten; the shipped general English when left out."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _shards_plain_layers(self) -> "PretrainConfig":
        if self.sharded and self.compiled:
            raise ValueError("layers are either sharded or compiled; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> "PretrainConfig":
        if self.adapter.kind in self.compare:
            raise ValueError(
                f"compare: {self.adapter.kind} is how the report names the domain adapter; give "
                "the other method another name"
            )
        return self


class DownstreamConfig(ValidationConfig):
    """Step 2: task adapters and heads, each kept as it was best on the validation notes."""

    tasks: tuple[str, ...] = ()
    """Tasks of the source to predict; all when empty."""
    variants: tuple[VariantName, ...] = (
        "head-only",
        "task-lora",
        "domain-frozen+task-lora",
        "domain-trainable+task-lora",
    )
    seeds: tuple[NonNegativeInt, ...] = (0,)
    adapter: AdapterSpec = LoRA()
    pooling: Literal["last", "mean"] = "mean"
    """Over all tokens, or the last one alone; the first token of a decoder has read no other."""
    max_pieces: PositiveInt = 1
    """Pieces of a long note that every model reads, encoders too; the rest is cut off. A note is
    the mean over all their tokens, or over the first or last one of each."""
    class_weights: Literal["none", "balanced"] = "none"
    """With `balanced` both values of each label, or all classes, weigh the same in every training
    of step 2, that of encoders too; the report says so."""
    epochs: PositiveFloat = 3
    tokens_per_row: PositiveInt = 4096
    optim: OptimConfig = OptimConfig(targets_per_step=16)
    """For the variants that train adapters."""
    domain_lr: PositiveFloat | None = None
    """Peak learning rate of a domain adapter that trains on; that of `optim` when left out."""
    head_lr: PositiveFloat = 1e-3
    """Peak learning rate of the head beside adapters."""
    head_first: bool = True
    """Where adapters train, train the head alone before, on the features of the model as it
    starts; encoders too."""
    head_epochs: PositiveFloat = 40
    """For the head alone, on features computed once."""
    head_optim: OptimConfig = OptimConfig(peak_lr=1e-2, targets_per_step=64)


class MaskedConfig(Config):
    """The encoder `mlm`: a small BERT that learns the notes of step 1 by guessing hidden tokens."""

    shape: EncoderShape = EncoderShape()
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are hidden and predicted."""
    epochs: PositiveFloat = 3
    tokens_per_row: PositiveInt = 4096
    optim: OptimConfig = OptimConfig(peak_lr=1e-3)
    """Its `targets_per_step` counts all tokens that are read."""
    seed: NonNegativeInt = 0


class EncodersConfig(Config):
    """Encoders for comparison in step 2, each under the name NAME+VARIANT."""

    models: dict[EncoderName, str] = Field(default_factory=dict)
    """A name for each Hugging Face folder of an encoder; `mlm` in place of a folder pretrains a
    small one on the notes."""
    variants: tuple[EncoderVariant, ...] = ("full", "lora")
    adapter: LoRA = LoRA(targets=("query", "value", "Wqkv"))
    """For `lora`; the targets are those of BERT and the joint projection of ModernBERT."""
    pooling: Pooling = "first"
    epochs: PositiveFloat = 3
    tokens_per_row: PositiveInt = 4096
    full_optim: OptimConfig = OptimConfig(peak_lr=5e-5, targets_per_step=16)
    lora_optim: OptimConfig = OptimConfig(peak_lr=5e-4, targets_per_step=16)
    head_lr: PositiveFloat = 1e-3
    """Peak learning rate of the head, with either."""
    mlm: MaskedConfig = MaskedConfig()


class ListedPatients(Config):
    """A file that names patients, such as PATIENTS.csv of the MIMIC-III CareVue subset."""

    file: Path
    column: str = "SUBJECT_ID"
    """Its column with the patient id."""


class EvaluateConfig(Config):
    """Scores to estimates."""

    draws: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap draws of patients."""
    baselines: tuple[BaselineName, ...] | None = None
    """All that apply when left out. `tf-idf-cut` reads as much of a note as the models do,
    `columns` the `features` of the source, and `hybrid` joins `tf-idf`, `columns` and a model."""
    tfidf_min_patients: PositiveInt = 10
    """Words, pairs of words and levels of columns are used, and stand in a bundle, if the notes of
    that many training patients share them."""
    hybrid: str | None = "auto"
    """The model of the hybrid, one of those that train a head alone; null for no hybrid. `auto` is
    domain-frozen, or else full-domain or head-only, the first that the recipe has."""
    listed_patients: ListedPatients | None = None
    """Show the test scores on these patients alone too: those that no corpus of step 1 holds."""
    seed: NonNegativeInt = 0
