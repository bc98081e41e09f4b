"""The tables of a publication with our figures beside.

A row that one of the two lacks is shown all the same.
"""

from collections.abc import Iterable

from notetune.metrics.published import Publication, PublishedMethod, PublishedModel
from notetune.metrics.results import HeadlineRow, MethodRow, Results, SearchRow
from notetune.report.numbers import NOT_AVAILABLE, count, duration, number
from notetune.report.table import Cell, Table, count_cell, number_cell
from notetune.report.tables import auroc_cell, marks, parameters_cell, runs_in_words

_DIGITS_OF_AUROC = 4
_NOTHING = Cell(NOT_AVAILABLE)
_NOT_RUN = Cell(NOT_AVAILABLE, "(not run)")
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
        tuple(
            (
                _name(published.get(name), name),
                *_method_cells(ours.get(name), published.get(name)),
                *(_search_cells(searches.get(name)) if name in ours else (_NOTHING, _NOTHING)),
            )
            for name in _names(published, ours)
        ),
        notes=(publication.about_methods, _BY_NAME),
    )


def models_table(results: Results, publication: Publication) -> Table:
    """Step 2 beside Table 3."""
    published = {row.ours: row for row in publication.models}
    scores = {(row.model, task.task): row for task in results.tasks for row in task.rows}
    means = {row.model: row for row in results.headline}
    head, of_one_run = runs_in_words(scores.values())
    tasks = publication.tasks.values()
    rows = []
    for name in _names(published, [model for model, _ in scores]):
        row = published.get(name)
        cells = [_name(row, name)]
        for place, task in enumerate(tasks):
            score = scores.get((name, task))
            cells.append(auroc_cell(score) if score else _NOT_RUN)
            cells.append(_published_auroc(row.aurocs[place] if row else None))
        cells += [_mean_cell(means.get(name), tasks), _published_auroc(row.mean if row else None)]
        rows.append((*cells, _trials_cell(name, results, tasks)))
    columns = [column for task in (*publication.tasks, "Macro") for column in (task, "Paper")]
    return Table(
        f"Test AUROC beside Table 3 of {publication.source}: {head}.",
        ("Model", *columns, "Trials per task"),
        tuple(rows),
        notes=(
            *marks(results.tasks),
            *([of_one_run] if of_one_run else []),
            publication.about_models,
            _BY_NAME,
        ),
    )


def _names(published: Iterable[str], ours: Iterable[str]) -> tuple[str, ...]:
    """Published rows in their order, then ours that are none of them."""
    return tuple(dict.fromkeys((*published, *ours)))


def _name(row: PublishedMethod | PublishedModel | None, ours: str) -> Cell:
    return Cell(row.row, ours) if row else Cell(ours, "(not in the paper)")


def _method_cells(ours: MethodRow | None, row: PublishedMethod | None) -> tuple[Cell, ...]:
    """Ours and theirs in turn."""
    of_paper = (
        (
            Cell(row.trained),
            number_cell(row.train_perplexity),
            number_cell(row.test_perplexity),
            Cell(row.time),
            count_cell(row.gpus),
        )
        if row
        else (_NOTHING,) * 5
    )
    of_ours = (
        (
            parameters_cell(ours.trainable_parameters, ours.total_parameters),
            number_cell(ours.perplexity.get("train")),
            number_cell(ours.perplexity.get("test")),
            _time_cell(ours.seconds),
            count_cell(ours.processes) if ours.processes else _NOTHING,
        )
        if ours
        else (_NOT_RUN,) * 5
    )
    return tuple(cell for two in zip(of_ours, of_paper, strict=True) for cell in two)


def _search_cells(search: SearchRow | None) -> tuple[Cell, Cell]:
    if search is None:
        return _NOT_SEARCHED, _NOT_SEARCHED
    return count_cell(len(search.trials)), _time_cell(search.seconds)


def _time_cell(seconds: float | None) -> Cell:
    return Cell(duration(seconds), sort=seconds) if seconds else _NOTHING


def _published_auroc(value: float | None) -> Cell:
    return Cell(number(value, _DIGITS_OF_AUROC), sort=value)


def _mean_cell(row: HeadlineRow | None, tasks: Iterable[str]) -> Cell:
    """Our mean, where it is over the same tasks."""
    if row is None:
        return _NOT_RUN
    return auroc_cell(row) if set(row.tasks) == set(tasks) else Cell(NOT_AVAILABLE, "(other tasks)")


def _trials_cell(name: str, results: Results, tasks: Iterable[str]) -> Cell:
    """How many trials the searches of a model had on each task that it was run on."""
    trials = {row.task: len(row.trials) for row in results.searches if row.model == name}
    run = [task.task for task in results.tasks if name in [row.model for row in task.rows]]
    found = sorted({trials.get(task, 0) for task in tasks if task in run})
    if not found:
        return _NOTHING
    if found == [0]:
        return _NOT_SEARCHED
    return Cell(" to ".join(count(n) for n in dict.fromkeys((found[0], found[-1]))), sort=found[-1])
