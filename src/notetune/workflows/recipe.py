"""One recipe says everything about a study; one run folder holds everything it makes."""

from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from pydantic import (
    Field,
    JsonValue,
    NonNegativeFloat,
    model_validator,
)

from notetune.config import Config, changed
from notetune.errors import ConfigError
from notetune.model.adapters.specs import (
    needs_plain_weights,
    reserved_per_document,
)
from notetune.model.backbone import Dtype
from notetune.model.device import DeviceName, torch_device
from notetune.notes.sources import Source, TableSource, starting_from
from notetune.notes.splits import Split, SplitConfig
from notetune.workflows.run_folder import RunFolder
from notetune.workflows.sections import (
    MASKED,
    NAME,
    BaselineName,
    DownstreamConfig,
    EncodersConfig,
    EvaluateConfig,
    PrepareConfig,
    PretrainConfig,
)
from notetune.workflows.variants import VARIANTS, VariantName, variant_of

_HYBRIDS: tuple[VariantName, ...] = ("domain-frozen", "full-domain", "head-only")
_DIFFERS_BY_BACKBONE = ("backbone", "dtype", "pretrain", "downstream")


class Recipe(Config):
    """A whole study."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the study and of its run folder."""
    title: str = ""
    runs: Path = Path("runs")
    """Folder of run folders."""
    data: Path = Path()
    """Folder that relative paths of the source and of the split start from."""
    backbone: str = "tiny"
    """A Hugging Face model folder, or `tiny` for the shipped one."""
    backbones: dict[Annotated[str, Field(pattern=NAME)], str | dict[str, JsonValue]] = Field(
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
    device: DeviceName = "auto"
    gpu: str | None = None
    """The card, such as h100, that a dry run of the study estimates for; without, it times here."""
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
    def _trains_no_weights_twice(self) -> "Recipe":
        kinds = {self.pretrain.adapter.kind, self.downstream.adapter.kind}
        for name in self.downstream.variants:
            if kinds == {"full"} and VARIANTS[name].has_domain and VARIANTS[name].has_task:
                raise ValueError(
                    f"variant {name} has a domain adapter and a task adapter, which cannot both be "
                    "of kind full; set downstream.adapter to lora or another method"
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
        rows = [
            ("pretrain", self.pretrain.tokens_per_row, max(domain, *others, 0), 1),
            ("downstream", self.downstream.tokens_per_row, both, pieces),
        ]
        if self.encoders.models:
            rows.append(("encoders", self.encoders.tokens_per_row, 0, pieces))
        if MASKED in self.encoders.models.values():
            rows.append(("encoders.mlm", self.encoders.mlm.tokens_per_row, 0, 1))
        for section, tokens_per_row, virtual, at_once in rows:
            if tokens_per_row < at_once * (self.prepare.max_tokens + virtual):
                times = f"{at_once} pieces of " if at_once > 1 else ""
                raise ValueError(
                    f"{section}.tokens_per_row {tokens_per_row} is below {times}prepare.max_tokens "
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

    @model_validator(mode="after")
    def _has_what_its_baselines_read(self) -> "Recipe":
        if "columns" in (self.evaluate.baselines or ()) and not self.features:
            raise ValueError("evaluate.baselines: columns needs prepare.source.features")
        name, models = self.evaluate.hybrid, self.models_of_step_2
        if name is None and "hybrid" in (self.evaluate.baselines or ()):
            raise ValueError("evaluate.baselines: hybrid needs a model; evaluate.hybrid is null")
        if name is not None and name != "auto":
            fixed = [model for model in models if variant_of(model).trains_head_alone]
            if name not in fixed:
                why = "trains more than a head" if name in models else "is no model of this recipe"
                raise ValueError(
                    f"evaluate.hybrid: {name} {why}; a hybrid stands on a model whose features are "
                    f"fixed: {', '.join(fixed) or 'here none, so set it to null'}"
                )
        return self

    @property
    def models_of_step_2(self) -> tuple[str, ...]:
        """The variants of the backbone, then each encoder in its variants."""
        encoders = self.encoders
        pairs = [(name, variant) for name in encoders.models for variant in encoders.variants]
        return (*self.downstream.variants, *(f"{name}+{variant}" for name, variant in pairs))

    @property
    def features(self) -> tuple[str, ...]:
        """Columns beside the text."""
        source = self.prepare.source
        return source.features if isinstance(source, TableSource) else ()

    @property
    def coded_features(self) -> tuple[str, ...]:
        """Those of the columns whose numbers are codes."""
        source = self.prepare.source
        return source.coded_features if isinstance(source, TableSource) else ()

    @property
    def hybrid(self) -> str | None:
        """The model of the hybrid; None where there is no hybrid."""
        if self.evaluate.hybrid != "auto":
            return self.evaluate.hybrid
        return next((name for name in _HYBRIDS if name in self.downstream.variants), None)

    @property
    def baselines(self) -> tuple[BaselineName, ...]:
        """The baselines that apply, of those that are wanted."""
        lacking = {"columns"} if not self.features else set()
        lacking |= {"hybrid"} if self.hybrid is None else set()
        return tuple(name for name in self._wanted_baselines if name not in lacking)

    @property
    def _wanted_baselines(self) -> tuple[BaselineName, ...]:
        given = self.evaluate.baselines
        return get_args(BaselineName) if given is None else given

    @property
    def folder(self) -> RunFolder:
        """Where this study lives."""
        root = self.runs / self.name
        return RunFolder(root, self.prepared or root / "prepared")

    @property
    def studies(self) -> dict[str, "Recipe"]:
        """The recipe of each backbone, with a run folder inside this one's.

        Models that need no backbone, baselines and encoders, belong to the first; each has its own
        hybrid. Entries with the
        same backbone and corpus share their prepared notes. A recipe of one backbone is its only
        study, and has no name.

        Raises:
            ConfigError: If what an entry changes is not a valid recipe.
        """
        studies: dict[str, Recipe] = {}
        prepared: dict[tuple[str, ...], Path] = {}
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
            alone: dict[str, Any] = {}
            if studies:
                wants_hybrid = "hybrid" in self._wanted_baselines and self.evaluate.hybrid
                of_each = {"baselines": ["hybrid"] if wants_hybrid else []}
                alone = {"encoders": {"models": {}}, "evaluate": of_each}
            place = {"backbones": {}, "name": name, "runs": str(self.folder.backbones)}
            study = changed(self, {**place, **alone, **own}, origin)
            corpus = study.pretrain.corpus
            notes = (study.backbone, corpus.model_dump_json() if corpus else "")
            shared = prepared.setdefault((*notes, *study.downstream.tasks), study.folder.prepared)
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
        return torch_device(self.device)

    def as_json(self) -> dict[str, Any]:
        """The resolved recipe, JSON-like."""
        return self.model_dump(mode="json")
