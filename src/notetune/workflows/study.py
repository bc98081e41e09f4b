"""A whole study: every stage in order, each skipped when it is already done."""

from contextlib import ExitStack
from dataclasses import dataclass

from notetune import runs
from notetune.metrics.results import Results
from notetune.workflows import (
    baselines,
    downstream,
    encoders,
    hybrids,
    intake,
    methods,
    perplexity,
    pretrain,
)
from notetune.workflows.evaluate import evaluate, refuse_foreign_looks
from notetune.workflows.finished import Finished
from notetune.workflows.prepare import (
    Prepared,
    are_finished,
    open_corpus,
    open_prepared,
    prepare,
    prepare_corpus,
)
from notetune.workflows.prepare import inputs as prepare_inputs
from notetune.workflows.progress import Track, named, silent
from notetune.workflows.recipe import Recipe

_RECIPE = "recipe.json"
_SECTIONS = frozenset({"name", "prepare", "pretrain", "downstream", "evaluate"})


def run_study(recipe: Recipe, track: Track = silent) -> Results:
    """Run all stages of a recipe in its run folder and estimate the results.

    A run that was killed goes on: finished stages and cells are kept.

    Raises:
        NotetuneError: What any stage raises; a stage that fails leaves nothing half-written.
    """
    with ExitStack() as held:
        # The recipe's own folder last: taking it clears what is half-written in all of them.
        folders = [*(one.folder for one in recipe.studies.values()), recipe.folder]
        for root in dict.fromkeys(folder.root for folder in folders):
            held.enter_context(runs.locked(root))
            runs.refuse_foreign_json(root / _RECIPE, _SECTIONS.issubset)
        refuse_foreign_looks(recipe)
        runs.write_json(recipe.folder.root / _RECIPE, recipe.as_json())
        return evaluate(
            recipe,
            {name: _train(one, named(track, name)) for name, one in recipe.studies.items()},
        )


def read_study(recipe: Recipe) -> dict[str, Finished]:
    """What finished stages left in the run folder, by backbone.

    Raises:
        RunError: If the notes are not prepared, or a method of step 1 is not trained as its recipe
            says now.
    """
    found = {}
    for name, one in recipe.studies.items():
        prepared = open_prepared(one.folder.prepared)
        corpus = open_corpus(one, prepared)
        found[name] = Finished(one, prepared, corpus, methods.read_all(one, corpus))
    return found


def _train(recipe: Recipe, track: Track) -> Finished:
    prepared = prepare(recipe)
    runs.write_json(recipe.folder.root / _RECIPE, _resolved(recipe, prepared).as_json())
    corpus = prepare_corpus(recipe, prepared)
    trained = methods.pretrain_all(recipe, corpus, track)
    train_cells(recipe, prepared, corpus, track)
    return Finished(recipe, prepared, corpus, trained)


def _resolved(recipe: Recipe, prepared: Prepared) -> Recipe:
    """The recipe with what was chosen for its notes."""
    return intake.resolved(recipe, prepared.intake, prepared.max_pieces(recipe))


def train_cells(
    recipe: Recipe, prepared: Prepared, corpus: Prepared, track: Track = silent
) -> None:
    """Train the baselines, get the encoders ready, and train every cell of a recipe.

    Runs come one after the other, each with its step 1, so that those that are done can be read.
    """
    for task in prepared.tasks:
        for name in recipe.baselines:
            baselines.score_baseline(recipe, prepared, task, name)
    for encoder in recipe.encoders.models if prepared.tasks else ():
        encoders.make_ready(recipe, prepared, encoder)
    cells, joined = downstream.cells(recipe, prepared), hybrids.cells(recipe, prepared)
    for seed in range(recipe.seeds):
        pretrain.train_run(recipe, corpus, seed, track)
        for cell in cells:
            if cell.seed == seed:
                downstream.downstream(recipe, prepared, cell, track)
        for cell in joined:
            if cell.seed == seed:
                hybrids.join(recipe, prepared, cell)


@dataclass(frozen=True)
class Stage:
    """One line of a study's status."""

    name: str
    is_finished: bool


def status(recipe: Recipe) -> list[Stage]:
    """Which stages of a recipe are finished; cells are known once the data are prepared."""
    stages = []
    for name, one in recipe.studies.items():
        lead = f"{name} · " if name else ""
        stages += [Stage(lead + stage.name, stage.is_finished) for stage in _status(one)]
    return stages


def _status(recipe: Recipe) -> list[Stage]:
    is_prepared = runs.is_finished(recipe.folder.prepared, prepare_inputs(recipe))
    stages = [Stage("prepare", is_prepared)]
    if recipe.corpus is not recipe:
        stages.append(Stage("prepare the corpus", is_prepared and are_finished(recipe)))
    if not all(stage.is_finished for stage in stages):
        return stages
    prepared = prepare(recipe)
    corpus = open_corpus(recipe, prepared)
    for name, one in {"": recipe, **recipe.compared}.items():
        tail = f" · {name}" if name else ""
        done = [
            runs.is_finished(one.folder.domain(seed), pretrain.inputs(one, corpus, seed))
            for seed in range(1 if name else recipe.seeds)
        ]
        stages += [Stage(f"pretrain{tail} · seed {n}", is_done) for n, is_done in enumerate(done)]
        is_done = done[0] and perplexity.is_measured(one, corpus, measures_before=one is recipe)
        stages.append(Stage(f"perplexity{tail}", is_done))
    for name in recipe.encoders.models:
        folder = recipe.folder.encoder_tokens(name)
        is_done = runs.is_finished(folder, encoders.inputs(recipe, prepared, name))
        stages.append(Stage(f"encoder {name}", is_done))
    for task in prepared.tasks:
        for baseline in recipe.baselines:
            is_done = baselines.is_made(recipe, prepared, task, baseline)
            stages.append(Stage(f"{task} · {baseline}", is_done))
    trained = downstream.trained_cells(recipe, prepared)
    for cell in downstream.cells(recipe, prepared):
        folder = recipe.folder.cell(cell.task, cell.variant, cell.seed)
        stages.append(Stage(cell.label, cell in trained and not runs.damaged_files(folder)))
    made = set(hybrids.made_cells(recipe, prepared, trained))
    stages += [Stage(cell.label, cell in made) for cell in hybrids.cells(recipe, prepared)]
    return stages
