"""From a recipe and its notes to the ordered list of jobs, and which of them are made."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from notetune import manifest, storage
from notetune.errors import RunError
from notetune.prepare.prepared import inputs, open_prepared
from notetune.recipe.models import Model
from notetune.recipe.recipe import Recipe
from notetune.recipe.sections import BaselineName
from notetune.search.space import Point
from notetune.study import wanted
from notetune.study.jobs import WINNER, Job
from notetune.study.last_recipe import other_keys
from notetune.study.specs import (
    BaselineSpec,
    CellSpec,
    DeletionSpec,
    DomainSpec,
    Facts,
    HybridSpec,
    Notes,
    Spec,
    Stage,
)

_WHAT_NOTES_ARE = ("prepare.source.", "prepare.split.", "downstream.tasks")
_MUST_BE_THERE: dict[Stage, str] = {
    "pretrain": "adapter that was trained",
    "perplexity": "perplexity that was measured",
    "search": "result of a search",
}


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
    recipe: Recipe,
    backbone: str,
    facts: Facts | None,
    others: Iterable[Job] = (),
    *,
    assumes_searched: bool = False,
) -> list[Job]:
    """The jobs of one backbone, which has a name in a study of several.

    Without facts of its notes nothing but their preparation is listed. What `others`, the jobs of
    other backbones, make is not made again. `assumes_searched` lists what a search decides before
    it is over, with the settings of the recipe.
    """
    preparing = _preparing(recipe, backbone)
    if facts is None:
        return preparing
    listed = _Listing(recipe, backbone, facts, tuple(preparing), list(others), assumes_searched)
    return [*preparing, *listed.jobs()]


def _preparing(recipe: Recipe, backbone: str) -> list[Job]:
    spec, place = recipe.preparation, wanted.place_of(recipe)
    found = [Job(spec.folder, "prepare", "prepare", spec, place, backbone=backbone)]
    if recipe.corpus is not None:
        what: Stage = "prepare the corpus"
        corpus, needs = recipe.corpus, (found[0],)
        found.append(Job(corpus.folder, what, what, corpus, place, needs, backbone))
    return found


@dataclass(frozen=True)
class Made:
    """What was made with one backbone.

    Attributes:
        backbone: Its name in the study; "" in a study of one.
        jobs: All jobs that read them, in order.
        done: Those that were run as the recipe says now, on what stands there now.
    """

    backbone: str
    recipe: Recipe
    notes: Notes
    jobs: tuple[Job, ...]
    done: frozenset[Job]

    def done_of(self, *stages: Stage) -> list[Job]:
        """The jobs of some stages that are done, in order."""
        return [job for job in self.jobs if job in self.done and job.stage in stages]

    @property
    def missing(self) -> list[Job]:
        """The models whose scores are not made, and the searches for those not listed yet."""
        scored = ("baseline", "model", "hybrid", "search")
        open_jobs = [job for job in self.jobs if job not in self.done]
        return [job for job in open_jobs if job.stage in scored and job.task]


def read_study(recipe: Recipe) -> list[Made]:
    """What finished jobs left in the run folder, backbone by backbone.

    Raises:
        RunError: If the notes are not prepared, or the first run of a method of step 1 was not
            trained or measured as the recipe says now.
    """
    found: list[Made] = []
    for backbone, one in recipe.studies.items():
        notes = notes_here(one)
        _refuse_foreign(one)
        others = [job for before in found for job in before.jobs]
        jobs = jobs_of(one, backbone, wanted.facts_of(one, notes), others)
        done = frozenset(job for job in jobs if job.is_made())
        for job in jobs:
            is_first = not job.task and not job.seed
            if job.stage in _MUST_BE_THERE and is_first and job not in done:
                raise RunError(
                    f"{job.folder} holds no {_MUST_BE_THERE[job.stage]} as the recipe says now; "
                    "run `notetune pretrain` or `notetune study run` with this recipe, or take "
                    "back what changed in it. Nothing that is finished is trained again."
                )
        found.append(Made(backbone, one, notes, tuple(jobs), done))
    return found


def _refuse_foreign(recipe: Recipe) -> None:
    """Refuse notes of another source or split, which another study left in the same folder."""
    keys = [key for key in other_keys(recipe) if key.startswith(_WHAT_NOTES_ARE)]
    spec = recipe.preparation
    if keys and not manifest.was_made_from(spec.folder, inputs(spec)):
        raise RunError(
            f"{spec.folder} was made with another {keys[0]}: another study was run in this "
            "folder. `notetune study run` with this recipe replaces it; `name=other` keeps both."
        )


@dataclass
class _Listing:
    """The jobs of one backbone on notes that are prepared."""

    recipe: Recipe
    backbone: str
    facts: Facts
    preparing: tuple[Job, ...]
    others: list[Job]
    assumes_searched: bool
    searches: dict[tuple[str, Model], Job] = field(default_factory=dict)

    def jobs(self) -> Iterator[Job]:
        """Those of the first run of every method come first, then run after run.

        What a search decides is listed once that is over.
        """
        recipe = self.recipe
        if recipe.has_step_1:
            yield self._perplexity(recipe, None)
            domains = yield from self._step_1(recipe, "", range(recipe.seeds))
        else:  # nothing needs them, so they are not listed
            domains = [self._domain(recipe, "", seed) for seed in range(recipe.seeds)]
        for name, one in recipe.compared.items():
            yield from self._step_1(one, name, range(1))
        names = recipe.encoders.models if self.facts.tasks else ()
        encoding = {name: self._encoding(name) for name in names}
        yield from encoding.values()
        baselines = list(self._baselines())
        yield from baselines
        for job in baselines:
            yield from self._deletion_tests(job)
        self.others += baselines
        for domain in domains:
            if domain.seed and recipe.has_step_1:
                yield domain
            yield from self._step_2(domain, encoding)

    def _step_1(
        self, recipe: Recipe, name: str, seeds: Iterable[int]
    ) -> Generator[Job, None, list[Job]]:
        """The search and the first run of a method; gives all its runs, once the search is over."""
        found = [self._domain(recipe, name, seed) for seed in seeds]
        if spec := wanted.search_of_step_1(recipe, found[0].spec_as(DomainSpec)):
            folder = recipe.folder.root / "search-pretrain/winner"
            label = f"search · {found[0].method}"
            search = replace(found[0], folder=folder, stage="search", label=label, spec=spec)
            yield search
            if (point := self._winner(search)) is None:
                return []
            found = [_with_point(job, point) for job in found]
        yield found[0]
        yield self._perplexity(recipe, found[0])
        return found

    def _winner(self, search: Job) -> Point | None:
        """The point that a search has found, empty where that is only assumed; None before."""
        if self.assumes_searched:
            return {}
        return storage.read_json(search.folder / WINNER)["point"] if search.is_made() else None

    def _domain(self, recipe: Recipe, name: str, seed: int) -> Job:
        spec = wanted.domain_spec(recipe, self.facts, seed)
        label = " · ".join(filter(None, ("pretrain", name, f"seed {seed}")))
        needs = self.preparing[-1:]
        method = name or spec.adapter.kind
        return self._job(recipe.folder.domain(seed), "pretrain", label, spec, needs, method, seed)

    def _perplexity(self, recipe: Recipe, domain: Job | None) -> Job:
        spec = wanted.perplexity_spec(recipe, self.facts, has_adapter=domain is not None)
        name, label = "perplexity-before", "perplexity · backbone alone"
        needs, method = self.preparing[-1:], None
        if domain:
            name, needs, method = "perplexity", (*needs, domain), domain.method
            label = f"{name} · {recipe.name}" if recipe is not self.recipe else name
        return self._job(recipe.folder.root / name, "perplexity", label, spec, needs, method, 0)

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
        return Job(
            folder, stage, label, spec, wanted.place_of(self.recipe), needs, *of_job, seed=seed
        )

    def _encoding(self, name: str) -> Job:
        spec = wanted.encode_spec(self.recipe, self.facts, name)
        place = wanted.place_of(self.recipe, name)
        folder = self.recipe.folder.prepared / "encoders" / name
        needs = self.preparing[:1]
        return Job(folder, "encode", f"encoder {name}", spec, place, needs, self.backbone)

    def _baselines(self) -> Iterator[Job]:
        """Those of the recipe, and those that a hybrid joins, unless another backbone has them."""
        joined = [model for model in self.recipe.models_of(self.backbone) if model.stands_on]
        names = dict.fromkeys((*self.recipe.baselines, *(self._plain_parts if joined else ())))
        for task in self.facts.tasks:
            for name in names:
                spec = wanted.baseline_spec(self.recipe, self.facts, task, name)
                if name in self.recipe.baselines or spec not in self._baselines_listed:
                    model = Model("baseline", name, self.backbone)
                    yield self._of_step_2("baseline", spec, self.preparing[:1], model)

    @property
    def _baselines_listed(self) -> dict[BaselineSpec, Job]:
        """By what they are, those of the first backbone before others."""
        listed = [job for job in reversed(self.others) if job.stage == "baseline"]
        return {job.spec_as(BaselineSpec): job for job in listed}

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
                    if joined := made.get(model.stands_on):
                        yield self._hybrid(model, joined)
                        yield from self._deletion_tests(joined)
                    continue
                cell = self._cell(model, task, domain, encoding)
                search = self._search(cell)
                if search and not domain.seed:
                    yield search
                if search is None:
                    made[model] = cell
                elif (point := self._winner(search)) is not None:
                    made[model] = _with_point(cell, point)
                if model in made:
                    yield made[model]

    def _cell(self, model: Model, task: str, domain: Job, encoding: dict[str, Job]) -> Job:
        spec = wanted.cell_spec(self.recipe, self.facts, model, task, domain.seed)
        needs = [*self.preparing[:1]]
        needs += [encoding[model.encoder]] if model.encoder else []
        needs += [domain] if model.parts.has_domain else []
        return self._of_step_2("model", spec, needs, model)

    def _search(self, cell: Job) -> Job | None:
        """The search for the settings of a model, which stands on the first run of step 1."""
        assert cell.model
        key, own = (cell.task, cell.model), cell.spec_as(CellSpec)
        spec = wanted.search_of_step_2(self.recipe, own) if not cell.model.encoder else None
        if spec and cell.seed == 0:
            folder = self.recipe.folder.root / f"search/{cell.task}/{cell.model.name}/winner"
            label = f"search · {cell.task} · {cell.model.name}"
            self.searches[key] = replace(
                cell, folder=folder, stage="search", label=label, spec=spec
            )
        return self.searches.get(key)

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
        return self._of_step_2("hybrid", spec, (*self.preparing[:1], *parts), model)

    def _deletion_tests(self, job: Job) -> Iterator[Job]:
        """That of the first run of TF-IDF or of what a hybrid joins, if the recipe wants it."""
        assert job.model
        name, notes = job.model.name, self.recipe.evaluate.deletion_notes
        if notes and not job.seed and (job.stage != "baseline" or name == "tf-idf"):
            yield replace(
                job,
                folder=self.recipe.folder.root / "deletion" / job.task / name,
                stage="deletion test",
                label=f"{job.task} · {name} · deletion test",
                spec=DeletionSpec(job.task, name, self.facts.texts, notes),
                needs=(self.preparing[0], job),
            )

    def _of_step_2(
        self,
        stage: Stage,
        spec: BaselineSpec | HybridSpec | CellSpec,
        needs: Sequence[Job],
        model: Model,
    ) -> Job:
        seed = 0 if isinstance(spec, BaselineSpec) else spec.seed
        label = f"{spec.task} · {model.name}"
        label = label if stage == "baseline" else f"{label} · seed {seed}"
        folder = self.recipe.folder.cell(spec.task, model.name, seed)
        place = wanted.place_of(self.recipe, model.encoder, spec.task)
        of_job = (self.backbone, None, False, model, spec.task, seed)
        return Job(folder, stage, label, spec, place, tuple(needs), *of_job)


def _with_point(job: Job, point: Point) -> Job:
    assert isinstance(job.spec, DomainSpec | CellSpec)
    return replace(job, spec=wanted.with_point(job.spec, point))
