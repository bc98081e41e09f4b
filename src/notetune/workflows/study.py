"""A whole study: every stage in order, each skipped when it is already done."""

from contextlib import ExitStack
from dataclasses import dataclass

from notetune import runs
from notetune.metrics.results import Results
from notetune.workflows import baselines, downstream, encoders, methods, pretrain
from notetune.workflows.evaluate import evaluate
from notetune.workflows.finished import Finished
from notetune.workflows.prepare import Prepared, open_corpus, open_prepared, prepare, prepare_corpus
from notetune.workflows.prepare import inputs as prepare_inputs
from notetune.workflows.progress import Track, named, silent
from notetune.workflows.recipe import Recipe


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
        runs.write_json(recipe.folder.root / "recipe.json", recipe.as_json())
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
    corpus = prepare_corpus(recipe, prepared)
    trained = methods.pretrain_all(recipe, corpus, track)
    train_cells(recipe, prepared, track)
    return Finished(recipe, prepared, corpus, trained)


def train_cells(recipe: Recipe, prepared: Prepared, track: Track = silent) -> None:
    """Train the baselines, get the encoders ready, and train every cell of a recipe."""
    for task in prepared.tasks:
        baselines.score_baselines(recipe, prepared, task)
    for name in recipe.encoders.models if prepared.tasks else ():
        encoders.make_ready(recipe, prepared, name, track)
    for cell in downstream.cells(recipe, prepared):
        downstream.downstream(recipe, prepared, cell, track)


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
        has_corpus = runs.is_finished(recipe.folder.corpus, prepare_inputs(recipe.corpus))
        stages.append(Stage("prepare the corpus", has_corpus))
    if not all(stage.is_finished for stage in stages):
        return stages
    prepared = prepare(recipe)
    corpus = open_corpus(recipe, prepared)
    methods_of_step_1 = {"pretrain": recipe}
    methods_of_step_1 |= {f"pretrain · {name}": one for name, one in recipe.compared.items()}
    for name, one in methods_of_step_1.items():
        is_done = runs.is_finished(one.folder.domain, pretrain.inputs(one, corpus))
        stages.append(Stage(name, is_done))
    for name in recipe.encoders.models:
        folder = encoders.stage_folder(recipe, name)
        is_done = runs.is_finished(folder, encoders.inputs(recipe, prepared, name))
        stages.append(Stage(f"encoder {name}", is_done))
    trained = downstream.trained_cells(recipe, prepared)
    for cell in downstream.cells(recipe, prepared):
        folder = recipe.folder.cell(cell.task, cell.variant, cell.seed)
        stages.append(Stage(cell.label, cell in trained and not runs.damaged_files(folder)))
    return stages
