"""What a recipe and its notes say of each job."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from notetune import storage
from notetune.config import changed
from notetune.errors import BackboneError, ConfigError
from notetune.model.adapters.specs import AdapterSpec, Full, traits
from notetune.model.backbone_folder import Dtype, backbone_fingerprint, resolve_backbone
from notetune.prepare.patient_hashes import PROVENANCE
from notetune.prepare.settings import EncodeSpec, row_of
from notetune.recipe.models import Model
from notetune.recipe.recipe import Recipe
from notetune.recipe.sections import (
    LEAST_PATIENTS,
    MOST_WEIGHTS,
    BaselineName,
    Objective,
    PretrainConfig,
)
from notetune.search.space import (
    Point,
    Space,
    changes,
    points_to_check,
    settings_of,
    space_of,
    widest,
)
from notetune.sources.rejections import ReadingPolicy
from notetune.sources.tables.source import TableSource
from notetune.sources.tables.tasks import TaskedSource
from notetune.study.jobs import Place
from notetune.study.specs import (
    AdapterTraining,
    BaselineSpec,
    CellSpec,
    DomainSpec,
    Facts,
    FeatureSpec,
    Notes,
    PerplexitySpec,
    SearchSpec,
    Weights,
)
from notetune.tokens.edges import settings_digest
from notetune.train.schedule import ValidationConfig

T = TypeVar("T", DomainSpec, AdapterTraining)
_TRIAL_SEED = 1_000_000
"""No run has it: the luck that chose the winner would come again in a run of the same seed."""


def facts_of(recipe: Recipe, notes: Notes) -> Facts:
    """The facts of notes that are prepared."""
    prepared, corpus = notes.prepared, notes.corpus
    return Facts(
        tasks=tuple(prepared.tasks),
        labels=tuple(prepared.labels_digest(task) for task in prepared.tasks),
        texts=prepared.texts_digest,
        documents=prepared.documents_digest(of_step_1=False),
        max_tokens=prepared.store.max_tokens,
        max_pieces=recipe.max_pieces(prepared.intake.whole_pieces, prepared.store.max_tokens),
        corpus=corpus.documents_digest(of_step_1=True),
        corpus_max_tokens=corpus.store.max_tokens,
    )


def weights_of(backbone: str, dtype: Dtype) -> Weights:
    """A backbone by what is in its folder, which may lack its weights."""
    return Weights(backbone_fingerprint(resolve_backbone(backbone, needs_weights=False)), dtype)


def encoder_digests(folder: str, dtype: Dtype) -> tuple[str, str]:
    """Of the weights of an encoder, and of what its tokenizer puts around a text."""
    settings = settings_digest(resolve_backbone(folder, needs_weights=False))
    return weights_of(folder, dtype).fingerprint, settings


def domain_spec(recipe: Recipe, facts: Facts, seed: int) -> DomainSpec:
    """The domain adapter of a run."""
    config = recipe.pretrain
    widest_adapter = widest(config.adapter, recipe.tune.pretrain)
    longest = facts.corpus_max_tokens + traits(widest_adapter).row_tokens
    return DomainSpec(
        weights_of(recipe.backbone, recipe.dtype),
        facts.corpus,
        config.sources,
        config.adapter,
        config.optim,
        config.epochs,
        row_of(config.tokens_per_row, longest),
        config.compiled,
        config.sharded,
        seed,
        start_of(config),
    )


def start_of(config: PretrainConfig) -> str:
    """Digest of the adapter that is brought; as it is, also of the patients that its folder knows.

    These go along with it, and may be put beside it later.
    """
    if not (brought := config.brought):
        return ""
    known = brought.weights.parent / PROVENANCE
    if config.epochs or not known.is_file():
        return brought.digest
    return storage.fingerprint([brought.digest, storage.sha256_of_file(known)])


def search_of_step_1(recipe: Recipe, base: DomainSpec) -> SearchSpec | None:
    """The search for the settings of a method of step 1; None where nothing is searched.

    Raises:
        ConfigError: If the recipe's space does not fit the method.
    """
    choice = recipe.tune.pretrain
    space = space_of(choice, base.adapter, epochs=base.epochs) if choice is not None else {}
    space = settings_of(space, base.adapter)
    return _search(recipe, base, space, "perplexity") if space else None


def search_of_step_2(recipe: Recipe, base: CellSpec) -> SearchSpec | None:
    """The search for the settings of a model of step 2; None where nothing but a head trains.

    Raises:
        ConfigError: If the recipe's space does not fit the model.
    """
    choice, training = recipe.tune.downstream, base.training
    if choice is None or training is None:
        return None
    adapter = training.task_adapter
    domain = recipe.pretrain.adapter if training.trains_domain else None
    found = space_of(choice, adapter, epochs=training.epochs, has_head=True, domain=domain)
    space = settings_of(found, adapter)
    if not training.trains_domain:
        space.pop("domain_lr", None)
    return _search(recipe, base, space, recipe.tune.objective) if space else None


def _search(
    recipe: Recipe, base: DomainSpec | CellSpec, space: Space, objective: Objective
) -> SearchSpec:
    tune = recipe.tune
    drawn = (tune.trials, tune.starts, tune.proposer)
    for point in points_to_check(space):  # what cannot be shows at once
        with_point(base, point)
    return SearchSpec(
        replace(base, seed=_TRIAL_SEED), space, *drawn, objective, tune.share, tune.seed
    )


def with_point(
    spec: DomainSpec | CellSpec, point: Point, share: float = 1.0
) -> DomainSpec | CellSpec:
    """A training with the settings of a point; a domain adapter at the rate of `optim` stays at it.

    Raises:
        ConfigError: If the training has no such setting, or a value is not allowed.
    """
    if isinstance(spec, DomainSpec):
        return _with_point(spec, spec.adapter, point, share, {"adapter": "adapter"})
    training = spec.training
    assert training is not None
    names = {"adapter": "task_adapter", "domain_lr": "domain_lr", "head_lr": "head_lr"}
    rate = point.get("optim.peak_lr")
    if rate is not None and training.domain_lr == training.optim.peak_lr:
        point = {"domain_lr": rate, **point}
    trained = _with_point(training, training.task_adapter, point, share, names)
    return replace(spec, training=trained)


def _with_point(
    training: T, adapter: AdapterSpec | None, point: Point, share: float, names: Mapping[str, str]
) -> T:
    wanted = {"optim": "optim", "epochs": "epochs", **names}
    new: dict[str, Any] = {}
    for key, value in changes(point, adapter).items():
        old = getattr(training, wanted[key], None) if key in wanted else None
        if not old:
            has = ", ".join(key for key, name in wanted.items() if getattr(training, name))
            raise ConfigError(f"tune: {key} is no setting of this training, which has {has}.")
        if isinstance(value, dict):
            new[wanted[key]] = changed(old, value, f"tune: {key}")
        elif isinstance(value, bool | str) or value <= 0:
            raise ConfigError(f"tune: {key} is {value}: it should be a number above 0.")
        else:
            new[wanted[key]] = value
    epochs = new.get("epochs", training.epochs)
    return replace(training, **{**new, "epochs": epochs * share})


def perplexity_spec(recipe: Recipe, facts: Facts, *, has_adapter: bool) -> PerplexitySpec:
    """Perplexity with an adapter, or of its backbone alone."""
    config, domain, text = recipe.pretrain, domain_spec(recipe, facts, 0), general_text(recipe)
    return PerplexitySpec(
        domain.weights,
        domain.documents,
        domain.sources,
        has_adapter,
        storage.sha256_of_file(text) if text.is_file() else "no file",
        config.perplexity_documents,
        config.perplexity,
        domain.tokens_per_row,
        domain.compiled,
        domain.sharded,
    )


def encode_spec(recipe: Recipe, facts: Facts, encoder: str) -> EncodeSpec:
    """The notes in the tokens of an encoder."""
    most, pieces = recipe.prepare.max_tokens, recipe.downstream.max_pieces
    folder = recipe.encoders.models[encoder]
    room = row_of(recipe.encoders.tokens_per_row) // (1 if pieces == "auto" else pieces)
    return EncodeSpec(
        facts.texts,
        facts.labels,
        *encoder_digests(folder, recipe.dtype),
        most,
        room if most == "auto" else most,
        "first" if pieces == 1 else recipe.prepare.long_notes,
    )


def cell_spec(recipe: Recipe, facts: Facts, model: Model, task: str, seed: int) -> CellSpec:
    """A model of step 2 on a task in one run."""
    return CellSpec(
        task,
        model.name,
        seed,
        facts.labels[facts.tasks.index(task)],
        _features(recipe, facts, model),
        recipe.downstream.class_weights == "balanced",
        None if model.parts.trains_head_alone else _training(recipe, model),
    )


def _features(recipe: Recipe, facts: Facts, model: Model) -> FeatureSpec:
    """What a head reads; an encoder has documents of its own, which another job makes."""
    name, dtype = model.encoder, recipe.dtype
    section = recipe.encoders if name else recipe.downstream
    if name and dtype == "nf4":
        dtype = "bfloat16"  # nf4 is for decoders
    return FeatureSpec(
        weights_of(recipe.encoders.models[name] if name else recipe.backbone, dtype),
        "" if name else facts.documents,
        model.parts.has_domain,
        section.features.layers,
        section.features.pooling,
        recipe.downstream.max_pieces if name else facts.max_pieces,
        section.tokens_per_row,
        0 if name else recipe.virtual_tokens,
    )


def _training(recipe: Recipe, model: Model) -> AdapterTraining:
    config, encoders, parts = recipe.downstream, recipe.encoders, model.parts
    adapter, optim = config.adapter if parts.has_task else None, config.optim
    if model.encoder and model.variant == "full":
        adapter, optim = Full(), encoders.full_optim
    elif model.encoder:
        adapter, optim = encoders.adapter, encoders.lora_optim
    section = encoders if model.encoder else config
    return AdapterTraining(
        adapter,
        parts.trains_domain,
        section.epochs,
        optim,
        (config.domain_lr or optim.peak_lr) if parts.trains_domain else 0.0,
        section.head_lr,
        ValidationConfig(
            evaluations_per_epoch=config.evaluations_per_epoch,
            choose=config.choose,
            patience=config.patience,
        ),
    )


def baseline_spec(recipe: Recipe, facts: Facts, task: str, name: BaselineName) -> BaselineSpec:
    """A baseline of a task."""
    labels = facts.labels[facts.tasks.index(task)]
    if name == "prevalence":
        return BaselineSpec(task, name, labels)
    patients = LEAST_PATIENTS if name == "tf-idf-all" else recipe.evaluate.tfidf_min_patients
    whole = BaselineSpec(task, name, labels, facts.texts, patients, MOST_WEIGHTS)
    if name != "tf-idf-cut":
        return whole
    return replace(whole, documents=facts.documents, max_pieces=facts.max_pieces)


def place_of(recipe: Recipe, encoder: str = "", task: str = "") -> Place:
    """Where the jobs of a recipe run that load its backbone, or an encoder of that name.

    Those of a task say in their cards what the notes of that task are.
    """
    source = recipe.prepare.source
    of_source: dict[str, Any] = {"source": source.kind}
    if isinstance(source, TableSource):
        columns = source.columns.model_dump(exclude_none=True)
        of_source = {"note_columns": columns, "day_first": source.day_first}
    if isinstance(source, ReadingPolicy):
        of_source["missing"] = source.missing
    is_joined, drops = recipe.prepare.join != "none", recipe.prepare.late_notes == "drop"
    for one in source.tasks if isinstance(source, TaskedSource) else ():
        if (is_joined or one.name == task) and (one.samples or (drops and one.prediction_time)):
            of_source["drops_late"] = True
    return Place(
        recipe.encoders.models[encoder] if encoder else recipe.backbone,
        f"encoders.models.{encoder}" if encoder else "backbone",
        recipe.device,
        recipe.recompute,
        recipe.keep_hidden_states,
        recipe.checkpoint_minutes,
        recipe.folder.features,
        general_text(recipe),
        recipe.prepare.allow_leaks,
        of_source,
        recipe.pretrain.from_,
    )


def general_text(recipe: Recipe) -> Path:
    """The file of the general text, the shipped one if the recipe names none."""
    shipped = Path(str(files("notetune") / "general/shakespeare.txt"))
    return recipe.pretrain.general_text or shipped


def check_backbones(recipe: Recipe, *, needs_weights: bool = True) -> None:
    """Look for every backbone and encoder of a study, before any work on notes.

    Raises:
        BackboneError: If one cannot be used.
    """
    for one in recipe.studies.values():
        resolve_backbone(one.backbone, needs_weights=needs_weights)
        for name, folder in one.encoders.models.items():
            try:
                resolve_backbone(folder, needs_weights=needs_weights)
            except BackboneError as error:
                way_out = "`encoders.models={}` leaves encoders out."
                raise BackboneError(f"encoders.models.{name}: {error} {way_out}") from None
