"""Searches for settings as tables."""

from collections.abc import Iterator, Sequence
from statistics import median

from notetune.metrics.results import Results, SearchRow
from notetune.report.numbers import count
from notetune.report.table import NOT_RUN, Cell, Table, estimate_cell, in_cells
from notetune.report.tables import perplexity_cell

_FEW_STEPS = 20
_BY = {"perplexity": "perplexity", "auroc": "AUROC", "loss": "log loss"}


def searches_table(searches: Sequence[SearchRow], results: Results | None = None) -> Table:
    """What each search found, and what its winner is worth; on test notes too where it is known."""
    test = ("Test",) if results else ()
    return Table(
        "Settings that were searched, on validation notes alone.",
        ("Search", "Judged by", "Winner", "Trials", "Validation", "Corrected", *test),
        in_cells(
            (
                *(row.search, _BY[row.objective]),
                ", ".join(f"{key} {_setting(value)}" for key, value in row.point.items()),
                *(len(row.trials), row.validation, row.corrected),
                *((_tested(row, results),) if results else ()),
            )
            for row in searches
        ),
        text_columns=3,
        notes=(
            *_too_short(searches),
            *(
                f"{row.search}: the winner is at an end of the space in {', '.join(row.at_ends)}; "
                "a wider one may hold a better one."
                for row in searches
                if row.at_ends
            ),
            "Validation: the winner's score on the notes that chose it, which flatters it. "
            "Corrected: for the choice among the trials (bootstrap bias-corrected "
            "cross-validation). What each trial kept was chosen on these notes too, so it may "
            "still flatter; the test score of the model does not: its AUROC, of step 1 perplexity.",
        ),
    )


def _too_short(searches: Sequence[SearchRow]) -> Iterator[str]:
    for row in searches:
        steps = [trial.steps for trial in row.trials if trial.steps is not None]
        if steps and median(steps) < _FEW_STEPS:
            yield (
                f"{row.search}: its trials took {median(steps):.0f} steps in the median. Rates "
                "that suit so few may be too high for a longer training; see tune.share."
            )


def _tested(search: SearchRow, results: Results) -> Cell:
    """The test score of what was trained with the winner's settings."""
    for method in results.methods if not search.task else ():
        if method.method == search.model:
            return perplexity_cell(method, "test")
    for task in results.tasks:
        for row in task.rows if task.task == search.task else ():
            if row.model == search.model:
                return estimate_cell(row.auroc, row.reason)
    return NOT_RUN


def trials_table(search: SearchRow) -> Table:
    """Every trial of a search."""
    keys = tuple(search.space)
    return Table(
        f"{search.search}: {count(len(search.trials))} trials, proposed by {search.proposer}; "
        + "; ".join(f"{key}: {values}" for key, values in search.space.items())
        + ".",
        ("Trial", *keys, _BY[search.objective]),
        in_cells(
            (
                Cell(str(trial.number), is_strong=trial.number == search.winner),
                *(_setting(trial.point[key]) for key in keys),
                trial.state if trial.score is None else trial.score,
            )
            for trial in search.trials
        ),
        text_columns=1 + len(keys),
        is_sortable=True,
        is_collapsed=True,
    )


def _setting(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower()
