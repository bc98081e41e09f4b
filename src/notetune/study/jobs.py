"""What a study does, as an ordered list of jobs: each says what it makes, where, and of what."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from notetune import runs
from notetune.model.device import DeviceName
from notetune.prepare import prepared
from notetune.prepare.prepared import open_prepared
from notetune.prepare.settings import Preparation
from notetune.study import wanted
from notetune.study.models import Model
from notetune.study.recipe import Recipe
from notetune.study.sections import BaselineName
from notetune.study.specs import BaselineSpec, CellSpec, Facts, HybridSpec, Notes, Spec

Stage = Literal[
    "prepare",
    "prepare the corpus",
    "pretrain",
    "perplexity",
    "encode",
    "baseline",
    "model",
    "hybrid",
]
OF_NOTES: tuple[Stage, ...] = ("prepare", "prepare the corpus")
"""Stages that every other one needs."""
TRAINING = "training.json"
"""How a job of step 1 or step 2 was trained."""


@dataclass(frozen=True)
class Place:
    """Where a job runs and what it is allowed; nothing here changes its result.

    Attributes:
        backbone: Folder of the backbone, or of the encoder.
        key: The key of the recipe that names it.
        device: Where to compute.
        checkpoint_minutes: Minutes of training between two checkpoints.
        features: Folder of features that are kept.
        general_text: The file of the general text.
        allow_leaks: Whether a leak stops nothing.
    """

    backbone: str
    key: str
    device: DeviceName
    checkpoint_minutes: float
    features: Path
    general_text: Path
    allow_leaks: bool


@dataclass(frozen=True)
class Job:
    """One thing to make.

    Two jobs are the same if they make the same folder.

    Attributes:
        folder: What it makes.
        stage: Which kind of job it is.
        label: How progress, status and errors name it.
        spec: What it makes, and of which contents.
        place: Where it runs.
        needs: Jobs whose results it reads.
        backbone: The backbone of the study whose run folder holds it; "" in a study of one.
        method: Of step 1: its name; None for perplexity without any.
        is_domain: Whether step 2 builds on that method.
        model: Of step 2.
        task: Of step 2.
        seed: Number of the run.
    """

    folder: Path
    stage: Stage = field(compare=False)
    label: str = field(compare=False)
    spec: Spec | Preparation = field(compare=False)
    place: Place = field(compare=False)
    needs: tuple["Job", ...] = field(default=(), compare=False)
    backbone: str = field(default="", compare=False)
    method: str | None = field(default=None, compare=False)
    is_domain: bool = field(default=False, compare=False)
    model: Model | None = field(default=None, compare=False)
    task: str = field(default="", compare=False)
    seed: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Its label in a study of several backbones."""
        return f"{self.backbone} · {self.label}" if self.backbone else self.label

    def needed(self, stage: Stage) -> "Job":
        """The job of a stage whose result it reads."""
        return next(job for job in self.needs if job.stage == stage)

    @property
    def parts(self) -> tuple["Job", ...]:
        """What a hybrid joins."""
        return tuple(job for job in self.needs if job.stage in ("baseline", "model"))

    @property
    def inputs(self) -> dict[str, Any]:
        """What it depends on, down to the bits of what it needs.

        Raises:
            RunError: If something that it needs is not made.
        """
        if isinstance(self.spec, Preparation):
            like = [open_prepared(job.folder) for job in self.needs]
            return prepared.inputs(self.spec, *like)
        read = [job.folder for job in self.needs if job.stage not in OF_NOTES]
        return {
            "stage": self.stage,
            "spec": self.spec,
            "needs": [runs.read_json(folder / runs.MANIFEST)["files"] for folder in read],
        }

    def is_made(self, *, is_checked: bool = False) -> bool:
        """Whether it was made as it says, of what stands there now.

        Args:
            is_checked: Whether every file is read to see that it is whole.
        """
        if not all(job.is_made() for job in self.needs if job.stage not in OF_NOTES):
            return False
        if not all((job.folder / runs.MANIFEST).is_file() for job in self.needs):
            return False
        check = runs.is_finished if is_checked else runs.was_made_from
        return check(self.folder, self.inputs)


def jobs(recipe: Recipe) -> tuple[Job, ...]:
    """Every job of a study in order; those that read notes are known once these are prepared."""
    found: list[Job] = []
    for backbone, one in recipe.studies.items():
        found += jobs_of(one, backbone, facts_here(one), found)
    return tuple(found)


def facts_here(recipe: Recipe) -> Facts | None:
    """The facts of the notes of one backbone, if they are prepared as the recipe says."""
    preparing = _preparing(recipe, "")
    if not all(job.is_made() for job in preparing):
        return None
    return wanted.facts_of(recipe, notes_here(recipe))


def notes_here(recipe: Recipe) -> Notes:
    """The prepared notes of one backbone.

    Raises:
        RunError: If they are not prepared.
    """
    notes = open_prepared(recipe.folder.prepared)
    return Notes(notes, open_prepared(recipe.corpus.folder) if recipe.corpus else notes)


def jobs_of(
    recipe: Recipe, backbone: str, facts: Facts | None, others: Iterable[Job] = ()
) -> list[Job]:
    """The jobs of one backbone.

    Args:
        recipe: That of the backbone.
        backbone: Its name in the study.
        facts: Of its notes; without, nothing but their preparation is listed.
        others: Jobs of other backbones; what is the same is not made again.
    """
    preparing = _preparing(recipe, backbone)
    if facts is None:
        return preparing
    listed = _Listing(recipe, backbone, facts, tuple(preparing), list(others))
    return [*preparing, *listed.jobs()]


def _preparing(recipe: Recipe, backbone: str) -> list[Job]:
    spec, place = recipe.preparation, place_of(recipe)
    found = [Job(spec.folder, "prepare", "prepare", spec, place, backbone=backbone)]
    if recipe.corpus is not None:
        what: Stage = "prepare the corpus"
        corpus, needs = recipe.corpus, (found[0],)
        found.append(Job(corpus.folder, what, what, corpus, place, needs, backbone))
    return found


def place_of(recipe: Recipe, encoder: str = "") -> Place:
    """Where the jobs of a recipe run that load its backbone, or an encoder of that name."""
    return Place(
        recipe.encoders.models[encoder] if encoder else recipe.backbone,
        f"encoders.models.{encoder}" if encoder else "backbone",
        recipe.device,
        recipe.checkpoint_minutes,
        recipe.folder.features,
        general_text(recipe),
        recipe.prepare.allow_leaks,
    )


def general_text(recipe: Recipe) -> Path:
    """The file of the general text, the shipped one if the recipe names none."""
    shipped = Path(str(files("notetune") / "general/shakespeare.txt"))
    return recipe.pretrain.general_text or shipped


@dataclass
class _Listing:
    """The jobs of one backbone on notes that are prepared."""

    recipe: Recipe
    backbone: str
    facts: Facts
    preparing: tuple[Job, ...]
    others: list[Job]

    def jobs(self) -> Iterator[Job]:
        """Those of the first run of every method come first, then run after run."""
        recipe = self.recipe
        first, *later = [self._domain(recipe, "", seed) for seed in range(recipe.seeds)]
        yield self._perplexity(recipe, None)
        yield first
        yield self._perplexity(recipe, first)
        for name, one in recipe.compared.items():
            compared = self._domain(one, name, 0)
            yield compared
            yield self._perplexity(one, compared)
        names = recipe.encoders.models if self.facts.tasks else ()
        encoding = {name: self._encoding(name) for name in names}
        yield from encoding.values()
        baselines = list(self._baselines())
        yield from baselines
        self.others += baselines
        for domain in (first, *later):
            if domain.seed:
                yield domain
            yield from self._step_2(domain, encoding)

    def _domain(self, recipe: Recipe, name: str, seed: int) -> Job:
        spec = wanted.domain_spec(recipe, self.facts, seed)
        label = " · ".join(filter(None, ("pretrain", name, f"seed {seed}")))
        needs = self.preparing[-1:]
        method = name or spec.adapter.kind
        return self._job(recipe.folder.domain(seed), "pretrain", label, spec, needs, method, seed)

    def _perplexity(self, recipe: Recipe, domain: Job | None) -> Job:
        path = general_text(recipe)
        general = runs.sha256_of_file(path) if path.is_file() else "no file"
        of_domain = wanted.domain_spec(recipe, self.facts, 0)
        spec = wanted.perplexity_spec(recipe, of_domain, general, has_adapter=domain is not None)
        if domain is None:
            folder, label = recipe.folder.perplexity_before, "perplexity · backbone alone"
            return self._job(folder, "perplexity", label, spec, self.preparing[-1:], None, 0)
        label = f"perplexity · {recipe.name}" if recipe is not self.recipe else "perplexity"
        needs = (*self.preparing[-1:], domain)
        return self._job(
            recipe.folder.perplexity, "perplexity", label, spec, needs, domain.method, 0
        )

    def _job(
        self,
        folder: Path,
        stage: Stage,
        label: str,
        spec: Spec,
        needs: tuple[Job, ...],
        method: str | None,
        seed: int,
    ) -> Job:
        is_domain = method == self.recipe.pretrain.adapter.kind
        of_job = (self.backbone, method, is_domain)
        return Job(folder, stage, label, spec, place_of(self.recipe), needs, *of_job, seed=seed)

    def _encoding(self, name: str) -> Job:
        spec = wanted.encode_spec(self.recipe, self.facts, name)
        place = place_of(self.recipe, name)
        folder, label = self.recipe.folder.encoder_tokens(name), f"encoder {name}"
        return Job(folder, "encode", label, spec, place, self.preparing[:1], self.backbone)

    def _baselines(self) -> Iterator[Job]:
        """Those of the recipe, and those that a hybrid joins, unless another backbone has them."""
        joined = [model for model in self.recipe.models_of(self.backbone) if model.stands_on]
        names = dict.fromkeys((*self.recipe.baselines, *(self._plain_parts if joined else ())))
        for task in self.facts.tasks:
            for name in names:
                spec = wanted.baseline_spec(self.recipe, self.facts, task, name)
                if name in self.recipe.baselines or spec not in self._baselines_listed:
                    yield self._baseline(spec)

    def _baseline(self, spec: BaselineSpec) -> Job:
        model = Model("baseline", spec.name, self.backbone)
        folder = self.recipe.folder.cell(spec.task, spec.name, 0)
        return self._of_step_2(folder, "baseline", spec, self.preparing[:1], model)

    @property
    def _baselines_listed(self) -> dict[BaselineSpec, Job]:
        """By what they are, those of the first backbone before others."""
        listed = [job for job in reversed(self.others) if isinstance(job.spec, BaselineSpec)]
        return {job.spec: job for job in listed}  # type: ignore[misc]

    @property
    def _plain_parts(self) -> tuple[BaselineName, ...]:
        return ("tf-idf", "columns") if self.recipe.features else ("tf-idf",)

    def _step_2(self, domain: Job, encoding: dict[str, Job]) -> Iterator[Job]:
        """Models of one run: those that stand on its step 1, and in the first run all others."""
        models = [
            model
            for model in self.recipe.models_of(self.backbone)
            if model.kind != "baseline" and (domain.seed == 0 or not model.is_deterministic)
        ]
        for task in self.facts.tasks:
            made: dict[Model, Job] = {}
            for model in models:
                if model.stands_on:
                    yield self._hybrid(model, made[model.stands_on])
                else:
                    made[model] = self._cell(model, task, domain, encoding)
                    yield made[model]

    def _cell(self, model: Model, task: str, domain: Job, encoding: dict[str, Job]) -> Job:
        spec = wanted.cell_spec(self.recipe, self.facts, model, task, domain.seed)
        needs = [*self.preparing[:1]]
        needs += [encoding[model.encoder]] if model.encoder else []
        needs += [domain] if model.parts.has_domain else []
        folder = self.recipe.folder.cell(task, model.name, domain.seed)
        return self._of_step_2(folder, "model", spec, needs, model)

    def _hybrid(self, model: Model, cell: Job) -> Job:
        names, recipe = self._plain_parts, self.recipe
        plain = [wanted.baseline_spec(recipe, self.facts, cell.task, name) for name in names]
        parts = [*(self._baselines_listed[spec] for spec in plain), cell]
        spec = HybridSpec(
            cell.task,
            model.name,
            cell.seed,
            self.facts.labels[self.facts.tasks.index(cell.task)],
            tuple(part.model.name for part in parts if part.model),
            recipe.features if "columns" in names else (),
        )
        folder = recipe.folder.cell(cell.task, model.name, cell.seed)
        return self._of_step_2(folder, "hybrid", spec, (*self.preparing[:1], *parts), model)

    def _of_step_2(
        self,
        folder: Path,
        stage: Stage,
        spec: BaselineSpec | HybridSpec | CellSpec,
        needs: Sequence[Job],
        model: Model,
    ) -> Job:
        seed = 0 if isinstance(spec, BaselineSpec) else spec.seed
        label = f"{spec.task} · {model.name}"
        label = label if stage == "baseline" else f"{label} · seed {seed}"
        place = place_of(self.recipe, model.encoder)
        of_job = (self.backbone, None, False, model, spec.task, seed)
        return Job(folder, stage, label, spec, place, tuple(needs), *of_job)
