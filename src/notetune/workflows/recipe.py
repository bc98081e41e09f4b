"""One recipe says everything about a study; one run folder holds everything it makes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from notetune.config import Config, changed
from notetune.errors import ConfigError
from notetune.infer import Average
from notetune.model.adapters.specs import (
    AdapterSpec,
    LoRA,
    needs_plain_weights,
    reserved_per_document,
)
from notetune.model.backbone import Dtype
from notetune.model.heads import Pooling
from notetune.model.masked import EncoderShape
from notetune.notes.sources import Source, SourceConfig, starting_from
from notetune.notes.splits import Split, SplitConfig
from notetune.tokens.encode import LongNotes
from notetune.train.choice import ValidationConfig
from notetune.train.optim import OptimConfig
from notetune.workflows.run_folder import RunFolder
from notetune.workflows.variants import VariantName

_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

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
    compare: dict[Annotated[str, Field(pattern=_NAME)], ComparedMethod] = Field(
        default_factory=dict
    )
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
    pooling: Pooling = "mean"
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
    baselines: tuple[Literal["prevalence", "tf-idf"], ...] = ("prevalence", "tf-idf")
    listed_patients: ListedPatients | None = None
    """Show the test scores on these patients alone too: those that no corpus of step 1 holds."""
    seed: NonNegativeInt = 0


_DIFFERS_BY_BACKBONE = ("backbone", "dtype", "pretrain", "downstream")


class Recipe(Config):
    """A whole study."""

    name: Annotated[str, Field(pattern=_NAME)]
    """Name of the study and of its run folder."""
    title: str = ""
    runs: Path = Path("runs")
    """Folder of run folders."""
    data: Path = Path()
    """Folder that relative paths of the source and of the split start from."""
    backbone: str = "tiny"
    """A Hugging Face model folder, or `tiny` for the shipped one."""
    backbones: dict[Annotated[str, Field(pattern=_NAME)], str | dict[str, JsonValue]] = Field(
        default_factory=dict
    )
    """Several backbones by name, in place of `backbone`: each a folder, or the keys of this recipe
    that are different for it (`backbone`, `dtype`, `pretrain`, `downstream`)."""
    prepared: Path | None = None
    """Folder of the prepared notes; `prepared` in the run folder when left out."""
    dtype: Dtype = "float32"
    """Type of the frozen backbone's weights; adapters, heads and losses are float32. `float8`: the
    linear layers inside a bfloat16 decoder, each weight scaled per channel; encoders beside it
    are bfloat16."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_minutes: NonNegativeFloat = 10
    """Minutes of training between two checkpoints; a killed run loses at most that much."""
    prepare: PrepareConfig
    pretrain: PretrainConfig = PretrainConfig()
    downstream: DownstreamConfig = DownstreamConfig()
    encoders: EncodersConfig = EncodersConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    notices: tuple[str, ...] = ()
    """Sentences about the data that every reader of the report must see."""

    @model_validator(mode="after")
    def _names_its_domain(self) -> "Recipe":
        kind = self.pretrain.adapter.kind
        if "full-domain" in self.downstream.variants and kind != "full":
            raise ValueError(
                f"variant full-domain needs pretrain.adapter of kind full, not {kind}; choose "
                "domain-frozen for an adapter"
            )
        return self

    @model_validator(mode="after")
    def _has_the_weights_it_trains(self) -> "Recipe":
        compared = self.pretrain.compare.values()
        specs = [self.pretrain.adapter, self.downstream.adapter, *(m.adapter for m in compared)]
        if self.dtype == "float8" and any(needs_plain_weights(spec) for spec in specs):
            raise ValueError(
                "float8 is for frozen weights, so it goes with adapters: not with kind full, nor "
                "with dora; set dtype bfloat16"
            )
        if self.dtype == "float8" and self.pretrain.sharded:
            raise ValueError("float8 layers are not sharded; set dtype bfloat16")
        return self

    @model_validator(mode="after")
    def _fits_rows(self) -> "Recipe":
        domain = reserved_per_document(self.pretrain.adapter)
        both = domain + reserved_per_document(self.downstream.adapter)
        others = [reserved_per_document(m.adapter) for m in self.pretrain.compare.values()]
        pieces = self.downstream.max_pieces
        for tokens_per_row, virtual, at_once in (
            (self.pretrain.tokens_per_row, max(domain, *others, 0), 1),
            (self.downstream.tokens_per_row, both, pieces),
            (self.encoders.tokens_per_row, 0, pieces),
            (self.encoders.mlm.tokens_per_row, 0, 1),
        ):
            if tokens_per_row < at_once * (self.prepare.max_tokens + virtual):
                times = f"{at_once} pieces of " if at_once > 1 else ""
                raise ValueError(
                    f"tokens_per_row {tokens_per_row} is below {times}prepare.max_tokens "
                    f"{self.prepare.max_tokens} + {virtual} virtual tokens; a row must hold the "
                    f"longest {'note' if times else 'document'}"
                )
        return self

    @model_validator(mode="after")
    def _has_pieces(self) -> "Recipe":
        if self.downstream.max_pieces > 1 and self.prepare.long_notes == "first":
            raise ValueError(
                f"downstream.max_pieces {self.downstream.max_pieces} needs prepare.long_notes "
                "pieces; with first, every note has one piece"
            )
        return self

    @model_validator(mode="after")
    def _backbones_are_recipes(self) -> "Recipe":
        if self.backbones and "backbone" in self.model_fields_set:
            raise ValueError("give either backbone or backbones")
        assert len(self.studies) == max(1, len(self.backbones))
        return self

    @property
    def folder(self) -> RunFolder:
        """Where this study lives."""
        root = self.runs / self.name
        return RunFolder(root, self.prepared or root / "prepared")

    @property
    def studies(self) -> dict[str, "Recipe"]:
        """The recipe of each backbone, with a run folder inside this one's.

        Models that need no backbone, baselines and encoders, belong to the first. Entries with the
        same backbone share their prepared notes. A recipe of one backbone is its only study, and
        has no name.

        Raises:
            ConfigError: If what an entry changes is not a valid recipe.
        """
        studies: dict[str, Recipe] = {}
        prepared: dict[tuple[str, tuple[str, ...]], Path] = {}
        for name, entry in self.backbones.items():
            own = {"backbone": entry} if isinstance(entry, str) else entry
            origin = f"backbones.{name}"
            if unknown := [key for key in own if key not in _DIFFERS_BY_BACKBONE]:
                raise ConfigError(
                    f"{origin}: {unknown[0]} is the same for all backbones; what can be different "
                    f"is {', '.join(_DIFFERS_BY_BACKBONE)}."
                )
            if "backbone" not in own:
                raise ConfigError(f"{origin}.backbone is missing; give its folder.")
            alone = {"encoders": {"models": {}}, "evaluate": {"baselines": []}} if studies else {}
            place = {"backbones": {}, "name": name, "runs": str(self.folder.backbones)}
            study = changed(self, {**place, **alone, **own}, origin)
            shared = prepared.setdefault(
                (study.backbone, study.downstream.tasks), study.folder.prepared
            )
            studies[name] = study.model_copy(update={"prepared": shared})
        return studies or {"": self}

    @property
    def corpus(self) -> "Recipe":
        """The recipe whose notes step 1 reads: this one, unless `pretrain.corpus` names others."""
        corpus = self.pretrain.corpus
        if corpus is None:
            return self
        return self.model_copy(
            update={
                "prepared": self.folder.corpus,
                "prepare": self.prepare.model_copy(
                    update={"source": corpus.source, "split": corpus.split}
                ),
                "downstream": self.downstream.model_copy(update={"tasks": ()}),
            }
        )

    @property
    def compared(self) -> dict[str, "Recipe"]:
        """The recipe of each further method of step 1, with a run folder inside this one's."""
        return {
            name: self.model_copy(
                update={
                    "name": name,
                    "runs": self.folder.compared,
                    "pretrain": self.pretrain.model_copy(
                        update={
                            "adapter": method.adapter,
                            "optim": method.optim or self.pretrain.optim,
                            "compare": {},
                        }
                    ),
                }
            )
            for name, method in self.pretrain.compare.items()
        }

    @property
    def source(self) -> Source:
        """The source, its paths starting from `data`."""
        return starting_from(self.prepare.source, self.data)

    @property
    def split(self) -> Split:
        """How patients are split; the paths of official files start from `data`."""
        split = self.prepare.split
        if isinstance(split, SplitConfig):
            return split
        return split.model_copy(update={n: self.data / path for n, path in split.files.items()})

    @property
    def torch_device(self) -> torch.device:
        """The device to compute on.

        Raises:
            ConfigError: If a CUDA device is asked for and there is none.
        """
        has_cuda = torch.cuda.is_available()
        if self.device == "cuda" and not has_cuda:
            raise ConfigError("device cuda: no CUDA device is available; use device=cpu or auto.")
        return torch.device("cuda" if has_cuda and self.device != "cpu" else "cpu")

    def as_json(self) -> dict[str, Any]:
        """The resolved recipe, JSON-like."""
        return self.model_dump(mode="json")
