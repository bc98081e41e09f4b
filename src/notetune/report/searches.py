"""Searches for settings as tables."""

from collections.abc import Sequence

from notetune.metrics.results import SearchRow
from notetune.report.numbers import count
from notetune.report.table import Cell, Table, in_cells

_BY = {"perplexity": "perplexity", "auroc": "AUROC", "loss": "log loss"}


def searches_table(searches: Sequence[SearchRow]) -> Table:
    """What each search found, and what its winner is worth."""
    return Table(
        "Settings that were searched, on validation notes alone.",
        ("Search", "Judged by", "Winner", "Trials", "Validation", "Corrected"),
        in_cells(
            (
                *(row.search, _BY[row.objective]),
                ", ".join(f"{key} {_setting(value)}" for key, value in row.point.items()),
                *(len(row.trials), row.validation, row.corrected),
            )
            for row in searches
        ),
        text_columns=3,
        notes=(
            "Validation: the winner's score on the notes that chose it, which flatters it. "
            "Corrected: for the choice among the trials (bootstrap bias-corrected "
            "cross-validation). What each trial kept was chosen on these notes too, so it may "
            "still flatter; the test score of the model does not.",
        ),
    )


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
