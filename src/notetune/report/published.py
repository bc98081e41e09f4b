"""The tables of a publication with our figures beside.

A row that one of the two lacks is shown all the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from notetune.metrics.published import Publication, PublishedMethod, PublishedModel
from notetune.metrics.results import HeadlineRow, MethodRow, Results
from notetune.report.numbers import NOT_AVAILABLE, count
from notetune.report.table import NOT_RUN, Cell, Table, Value, in_cells, number_cell
from notetune.report.tables import (
    auroc_cell,
    marks,
    marks_of_methods,
    parameters_cell,
    perplexity_cells,
    runs_in_words,
    time_cell,
)

_DIGITS_OF_AUROC = 4
_NOT_SEARCHED = Cell("none", sort=0)
_BY_NAME = (
    "Rows and tasks are matched by the names in recipes/paper.yaml. Trials: what a search of the "
    "settings tried on validation notes before."
)


def methods_table(results: Results, publication: Publication) -> Table:
    """Step 1 beside Table 2."""
    published = {row.ours: row for row in publication.methods}
    ours = {row.method: row for row in results.methods}
    searches = {row.model: row for row in results.searches if not row.task}
    rows: list[tuple[Value, ...]] = []
    for name in dict.fromkeys((*published, *ours)):
        row, search = published.get(name), searches.get(name)
        paper: tuple[Value, ...] = (None,) * 5
        if row:
            paper = (row.trained, row.train_perplexity, row.test_perplexity, row.time, row.gpus)
        trials: tuple[Value, Value] = (_NOT_SEARCHED,) * 2 if name in ours else (None, None)
        if search and name in ours:
            trials = len(search.trials), time_cell(search.seconds)
        rows.append((_name(row, name), *_in_turn(_method(ours.get(name)), paper), *trials))
    pairs = (
        *("Trained parameters", "Paper"),
        *("Train perplexity", "Paper"),
        *("Test perplexity", "Paper"),
        *("Time of step 1", "Paper, h:m:s"),
        *("Processes", "Paper, GPUs"),
    )
    return Table(
        f"Step 1 beside Table 2 of {publication.source}.",
        ("Method", *pairs, "Trials", "Time of trials"),
        in_cells(rows),
        notes=(*marks_of_methods(results.methods), publication.about_methods, _BY_NAME),
    )


def models_table(results: Results, publication: Publication) -> Table:
    """Step 2 beside Table 3."""
    published = {row.ours: row for row in publication.models}
    scores = {(row.model, task.task): row for task in results.tasks for row in task.rows}
    means = {row.model: row for row in results.headline}
    head, of_one_run = runs_in_words(scores.values())
    tasks = publication.tasks.values()
    rows: list[tuple[Value, ...]] = []
    for name in dict.fromkeys((*published, *(model for model, _ in scores))):
        row, found = published.get(name), [scores.get((name, task)) for task in tasks]
        ours = [auroc_cell(one) if one else NOT_RUN for one in found]
        ours.append(_mean_cell(means.get(name), tasks))
        of_row = (*row.aurocs, row.mean) if row else (None,) * len(ours)
        paper = (number_cell(value, _DIGITS_OF_AUROC) for value in of_row)
        run_on = [task for task in tasks if (name, task) in scores]
        trials = _trials_cell(name, run_on, results)
        rows.append((_name(row, name), *_in_turn(ours, paper), trials))
    columns = [column for task in (*publication.tasks, "Macro") for column in (task, "Paper")]
    return Table(
        f"Test AUROC beside Table 3 of {publication.source}: {head}.",
        ("Model", *columns, "Trials per task"),
        in_cells(rows),
        notes=(*marks(results.tasks), *of_one_run, publication.about_models, _BY_NAME),
    )


def _name(row: PublishedMethod | PublishedModel | None, ours: str) -> Cell:
    return Cell(row.row, ours) if row else Cell(ours, "(not in the paper)")


def _method(ours: MethodRow | None) -> Sequence[Value]:
    if ours is None:
        return (NOT_RUN,) * 5
    perplexities = perplexity_cells(ours, ("train", "test"), digits=3)
    return (parameters_cell(ours), *perplexities, time_cell(ours.seconds), ours.processes)


def _in_turn(ours: Iterable[Value], paper: Iterable[Value]) -> Iterator[Value]:
    return chain.from_iterable(zip(ours, paper, strict=True))


def _mean_cell(row: HeadlineRow | None, tasks: Iterable[str]) -> Cell:
    """Our mean, where it is over the same tasks."""
    if row is None:
        return NOT_RUN
    return auroc_cell(row) if set(row.tasks) == set(tasks) else Cell(NOT_AVAILABLE, "(other tasks)")


def _trials_cell(name: str, tasks: Iterable[str], results: Results) -> Cell:
    """How many trials the searches of a model had on each task that it was run on."""
    trials = {row.task: len(row.trials) for row in results.searches if row.model == name}
    found = sorted({trials.get(task, 0) for task in tasks})
    if not found:
        return Cell(NOT_AVAILABLE)
    if found == [0]:
        return _NOT_SEARCHED
    return Cell(" to ".join(count(n) for n in dict.fromkeys((found[0], found[-1]))), sort=found[-1])
