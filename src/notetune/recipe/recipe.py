"""One recipe says everything about a study; one run folder holds everything it makes."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, NonNegativeFloat, model_validator

from notetune.config import Config, Name, changed
from notetune.errors import ConfigError
from notetune.metrics.names import BEST_VALIDATED
from notetune.model.adapters.folder import read_folder
from notetune.model.adapters.specs import AdapterSpec, traits
from notetune.model.backbone_folder import Dtype
from notetune.model.device import DeviceName, Recompute
from notetune.prepare.settings import LEAST_TOKENS, Preparation, PrepareConfig, read_pieces, row_of
from notetune.recipe import checks
from notetune.recipe.folders import RunFolder
from notetune.recipe.models import VARIANTS, Model, hybrids_of
from notetune.recipe.sections import (
    LEAST_PATIENTS,
    BaselineName,
    CorpusConfig,
    DownstreamConfig,
    EncodersConfig,
    EvaluateConfig,
    PretrainConfig,
    SectionRow,
    TuneConfig,
)
from notetune.search.space import widest
from notetune.sources.paths import starting_from
from notetune.sources.splits import AnySplit, ColumnSplit
from notetune.sources.tables.source import TableSource
from notetune.sources.tables.tasks import TaskedSource

_DIFFERS_BY_BACKBONE = (
    *("backbone", "dtype", "recompute", "keep_hidden_states", "seeds"),
    *("pretrain", "downstream", "tune"),
)


class Recipe(Config):
    """A whole study."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    """Version of the keys of a recipe; UPGRADING.md says what a later one changes."""
    name: Name
    """Name of the study and of its run folder."""
    title: str = ""
    runs: Path = Path("runs")
    """Folder of run folders."""
    data: Path = Path()
    """Folder that relative paths of the source and of the split start from."""
    backbone: str = "tiny"
    """A Hugging Face model folder, or `tiny` for the shipped one."""
    backbones: dict[Name, str | dict[str, JsonValue]] = Field(default_factory=dict)
    """Several backbones by name, in place of `backbone`: each a folder, or the keys of this recipe
    that are different for it (`backbone`, `dtype`, `recompute`, `keep_hidden_states`, `seeds`,
    `pretrain`, `downstream`, `tune`)."""
    prepared: Path | None = None
    """Folder of the prepared notes; `prepared` in the run folder when left out."""
    dtype: Dtype = "float32"
    """Type of the frozen backbone's weights; adapters, heads and losses are float32. `nf4`: the
    linear layers inside the decoder in four bits, which `notetune[4bit]` does; they compute in
    bfloat16, on a CPU in float32, and encoders beside it are bfloat16."""
    recompute: Recompute = "auto"
    """Compute the activations of each layer again in the backward pass in place of keeping them:
    the same result with less memory in a third to a half more operations. `auto`: where a training
    would not fit into the memory of the card, or of the machine, without."""
    keep_hidden_states: bool = True
    """Where nothing trains below the topmost layers (`adapter.layers`), keep what enters these of
    all labelled notes on the disk, so that no layer below is computed again; a dry run says how
    much that is. Each value of `adapter.layers` has a file of its own, also in a search."""
    device: DeviceName = "auto"
    gpu: str | None = None
    """The card, such as h100, that a dry run of the study estimates for; without, it times here."""
    seeds: Annotated[int, Field(gt=0, le=1000)] = 1
    """Runs: each is a seed of step 1 with a step 2 of the same seed. What no seed changes, such as
    a head on the frozen backbone, has one. With a single run no comparison can be called found."""
    checkpoint_minutes: NonNegativeFloat = 10
    """Minutes of training between two checkpoints; a killed run loses at most that much."""
    prepare: PrepareConfig
    pretrain: PretrainConfig = PretrainConfig()
    downstream: DownstreamConfig = DownstreamConfig()
    encoders: EncodersConfig = EncodersConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    notices: tuple[str, ...] = ()
    """Sentences about the data that every reader of the report must see."""

    @model_validator(mode="after")
    def _sections_fit(self) -> "Recipe":
        for check in checks.OF_SECTIONS:
            check(self)
        return self

    @model_validator(mode="after")
    def _backbones_are_recipes(self) -> "Recipe":
        if self.backbones and "backbone" in self.model_fields_set:
            raise ValueError("give either backbone or backbones")
        assert len(self.studies) == max(1, len(self.backbones))
        return self

    @model_validator(mode="after")
    def _compares_what_is_there(self) -> "Recipe":
        source = self.prepare.source
        described = source.tasks if isinstance(source, TaskedSource) else ()
        tasks = self.downstream.tasks or tuple(task.name for task in described)
        models = [model.label for model in self.models] if self.evaluate.primary else []
        for number, pair in enumerate(self.evaluate.primary or ()):
            where = f"evaluate.primary.{number}"
            if pair.model == pair.against or pair in (self.evaluate.primary or ())[:number]:
                raise ValueError(f"{where} asks nothing new; leave it out")
            for name in (pair.model, pair.against):
                if name not in models and (name, pair.model) != (BEST_VALIDATED, name):
                    raise ValueError(
                        f"{where} names the model {name}, which this study does not have; it has "
                        f"{', '.join(models)}, and as model {BEST_VALIDATED}. null "
                        "asks the default questions"
                    )
            if pair.task is not None and tasks and pair.task not in tasks:
                raise ValueError(
                    f"{where} names the task {pair.task}; the tasks are {', '.join(tasks)}"
                )
        return self

    @model_validator(mode="after")
    def _has_what_its_baselines_read(self) -> "Recipe":
        if "columns" in (self.evaluate.baselines or ()) and not self.features:
            raise ValueError("evaluate.baselines: columns needs prepare.source.features")
        name = self.evaluate.hybrid
        if name in (None, "auto"):
            return self
        known = [one.label for one in self.models if one.kind in ("variant", "encoder")]
        if name not in known:
            raise ValueError(
                f"evaluate.hybrid: {name} is no language model of this recipe; these are "
                f"{', '.join(known) or 'none, so set it to null'}"
            )
        return self

    @property
    def rows(self) -> "list[SectionRow]":
        """The rows of all sections whose models the recipe has."""
        of_step_1 = max(traits(spec).row_tokens for spec in self._adapters_of_step_1)
        pieces = 1 if self.downstream.max_pieces == "auto" else self.downstream.max_pieces
        rows = [
            SectionRow("pretrain", self.pretrain.tokens_per_row, of_step_1, 1),
            SectionRow("downstream", self.downstream.tokens_per_row, self.virtual_tokens, pieces),
        ]
        if self.encoders.models:
            rows.append(SectionRow("encoders", self.encoders.tokens_per_row, 0, pieces))
        return rows

    @property
    def most_tokens(self) -> int:
        """Longest document that every row has room for, where `max_tokens` is `auto`."""
        room = min(row_of(row.given) // row.pieces - row.virtual for row in self.rows)
        return max(LEAST_TOKENS, room)

    @property
    def positions_taken(self) -> int:
        """Positions that adapters take in front of a document, at most."""
        most = max(traits(spec).positions for spec in self._adapters_of_step_1)
        return most + traits(self._task_adapter).positions

    @property
    def virtual_tokens(self) -> int:
        """Virtual tokens in front of each document of step 2, at most."""
        return sum(
            traits(spec).row_tokens for spec in (self._adapters_of_step_1[0], self._task_adapter)
        )

    @property
    def _adapters_of_step_1(self) -> list[AdapterSpec]:
        """That of the domain first; each as wide as a search may make it."""
        config = self.pretrain
        methods = [config.adapter, *(method.adapter for method in config.compare.values())]
        return [widest(adapter, self.tune.pretrain) for adapter in methods]

    @property
    def _task_adapter(self) -> AdapterSpec:
        return widest(self.downstream.adapter, self.tune.downstream)

    @property
    def features(self) -> tuple[str, ...]:
        """Columns beside the text, of a source that has such a key."""
        features: tuple[str, ...] = getattr(self.prepare.source, "features", ())
        return features

    @property
    def baselines(self) -> tuple[BaselineName, ...]:
        """The baselines that apply, of those that are wanted."""
        given = self.evaluate.baselines
        wanted = get_args(BaselineName) if given is None else given
        is_idle = {
            "columns": not self.features,
            "tf-idf-all": given is None and self.evaluate.tfidf_min_patients <= LEAST_PATIENTS,
        }
        return tuple(name for name in wanted if not is_idle.get(name))

    @property
    def folder(self) -> RunFolder:
        """Where this study lives."""
        root = self.runs / self.name
        return RunFolder(root, self.prepared or root / "prepared")

    @property
    def studies(self) -> dict[str, "Recipe"]:
        """The recipe of each backbone, with a run folder inside this one's.

        Models that need no backbone, baselines and encoders, belong to the first; each has its own
        hybrid. Entries whose notes are prepared alike share them. A recipe of one backbone is its
        only study, and has no name.

        Raises:
            ConfigError: If what an entry changes is not a valid recipe.
        """
        studies: dict[str, Recipe] = {}
        prepared: dict[tuple[str, ...], Path] = {}
        for name, entry in self.backbones.items():
            study = self._study(name, entry, is_first=not studies)
            corpus = study.pretrain.corpus
            notes = [study.backbone, study.pretrain.leaked_texts]
            if corpus:
                notes.append(corpus.model_dump_json())
            if study.prepare.max_tokens == "auto":
                notes += [str(study.most_tokens), str(study.positions_taken)]
            if study.prepare.opener == "auto":  # weights of another type may choose another one
                notes.append(study.dtype)
            shared = prepared.setdefault(tuple(notes), study.folder.prepared)
            studies[name] = study.model_copy(update={"prepared": shared})
        return studies or {"": self}

    def only(self, name: str) -> "Recipe":
        """The recipe of one backbone as a study by itself, which has baselines of its own."""
        study = self.studies[name]
        of_all = {"baselines": self.evaluate.baselines}
        return study.model_copy(update={"evaluate": study.evaluate.model_copy(update=of_all)})

    def _study(
        self, name: str, entry: str | Mapping[str, JsonValue], *, is_first: bool
    ) -> "Recipe":
        """The recipe of one entry of `backbones`."""
        own = {"backbone": entry} if isinstance(entry, str) else entry
        origin = f"backbones.{name}"
        if unknown := [key for key in own if key not in _DIFFERS_BY_BACKBONE]:
            raise ConfigError(
                f"{origin}: {unknown[0]} is the same for all backbones; what can be different "
                f"is {', '.join(_DIFFERS_BY_BACKBONE)}."
            )
        section = own.get("downstream")
        if isinstance(section, dict) and "tasks" in section:
            raise ConfigError(
                f"{origin}.downstream.tasks: the tasks are the same for all backbones; set "
                "downstream.tasks of the recipe."
            )
        if "backbone" not in own:
            raise ConfigError(f"{origin}.backbone is missing; give its folder.")
        given = self.evaluate.hybrid
        evaluate: dict[str, Any] = {"primary": None, "hybrid": given if given == "auto" else None}
        changes = {
            "backbones": {},
            "name": name,
            "runs": str(self.folder.root / "backbones"),
            **own,
        }
        if not is_first:
            evaluate["baselines"], changes["encoders"] = [], {"models": {}}
        pretrain = own.get("pretrain")
        if isinstance(pretrain, dict) and pretrain.get("from"):
            spec = read_folder(Path(str(pretrain["from"]))).spec  # not that of the others
            changes["pretrain"] = {"adapter": spec.model_dump(mode="json"), **pretrain}
        study = changed(self, {**changes, "evaluate": evaluate}, origin)
        for model in study.models_of(name):
            if model.label == given:
                evaluate["hybrid"] = model.name
                return changed(self, {**changes, "evaluate": evaluate}, origin)
        return study

    @property
    def models(self) -> tuple[Model, ...]:
        """All models of the study, backbone by backbone."""
        return tuple(m for backbone, one in self.studies.items() for m in one.models_of(backbone))

    def models_of(self, backbone: str) -> tuple[Model, ...]:
        """The models of a recipe of one backbone, which a study of several knows by a name."""
        is_taken, encoders = not self.pretrain.epochs, self.encoders
        baselines = [Model("baseline", name, backbone) for name in self.baselines]
        models = [
            Model("variant", name, backbone, is_domain_taken=is_taken)
            for name in self.downstream.variants
        ]
        pairs = product(encoders.models, encoders.variants)
        models += [Model("encoder", variant, backbone, name) for name, variant in pairs]
        return (*baselines, *models, *hybrids_of(models, self.evaluate.hybrid))

    @property
    def preparation(self) -> Preparation:
        """How the notes of the tasks are prepared; step 1 reads them too unless it has a corpus."""
        source = self.prepare.source
        return Preparation(
            folder=self.folder.prepared,
            source=starting_from(source, self.data),
            split=self._split_of(self.prepare),
            config=self.prepare,
            backbone=self.backbone,
            dtype=self.dtype,
            device=self.device,
            tasks=self.downstream.tasks,
            codes=source.coded_features if isinstance(source, TableSource) else (),
            leaked_texts=self.pretrain.leaked_texts,
            is_of_step_1=self.pretrain.corpus is None,
            room=self.most_tokens,
            positions_taken=self.positions_taken,
            has_step_1=self.has_step_1 and self.pretrain.epochs > 0,
        )

    @property
    def has_step_1(self) -> bool:
        """Whether step 1 is trained: something stands on it, or it is all that is asked for."""
        variants, pretrain = self.downstream.variants, self.pretrain
        stands = any(VARIANTS[name].has_domain for name in variants)
        source = self.prepare.source
        has_tasks = self.downstream.tasks or not isinstance(source, TaskedSource) or source.tasks
        is_all = not has_tasks or (not variants and not self.encoders.models)
        is_asked = pretrain.always or pretrain.compare or self.tune.pretrain is not None
        return stands or is_all or bool(is_asked)

    @property
    def corpus(self) -> Preparation | None:
        """How the notes of step 1 are prepared, where they are not those of the tasks."""
        given = self.pretrain.corpus
        if given is None or not self.has_step_1:
            return None
        config = self.prepare.model_copy(update={"source": given.source, "split": given.split})
        return replace(
            self.preparation,
            folder=self.folder.prepared.with_name(f"{self.folder.prepared.name}-corpus"),
            source=starting_from(given.source, self.data),
            split=self._split_of(given),
            config=config,
            tasks=(),
            is_of_step_1=True,
        )

    def max_pieces(self, whole_pieces: int, max_tokens: int) -> int:
        """Pieces of a note of at most so many tokens that the backbone reads in step 2.

        With `whole_pieces` of them 95 % of the labelled training notes are read whole.
        """
        given, row = self.downstream.max_pieces, self.downstream.tokens_per_row
        return read_pieces(given, whole_pieces, row, max_tokens, self.virtual_tokens)

    @property
    def compared(self) -> dict[str, "Recipe"]:
        """The recipe of each further method of step 1, with a run folder inside this one's."""
        return {
            name: self.model_copy(
                update={
                    "name": name,
                    "runs": self.folder.root / "compared",
                    "pretrain": self.pretrain.model_copy(
                        update={
                            "adapter": method.adapter,
                            "optim": method.optim or self.pretrain.optim,
                            "compare": {},
                            "from_": None,
                        }
                    ),
                }
            )
            for name, method in self.pretrain.compare.items()
        }

    def _split_of(self, read: PrepareConfig | CorpusConfig) -> AnySplit:
        """How the patients of a source are split; the paths of files start from `data`."""
        split, source = read.split, read.source
        if isinstance(split, ColumnSplit) and isinstance(source, TaskedSource):
            of_source = source.split_table
            given = {name: value for name in of_source if (value := getattr(split, name))}
            split = split.model_copy(update={**of_source, **given})
        return starting_from(split, self.data)

    def as_json(self) -> dict[str, Any]:
        """The resolved recipe, JSON-like."""
        return self.model_dump(mode="json")
