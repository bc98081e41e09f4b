"""What scores rest on, as a table."""

from collections.abc import Sequence

from notetune.metrics.results import DeletionRow
from notetune.report.numbers import number
from notetune.report.table import Table, in_cells, number_cell


def deletions_table(rows: Sequence[DeletionRow]) -> Table:
    """How far scores fall without the sentences that count most, and without others."""
    left_out = rows[0].left_out
    falls = f"Without the top {left_out}", f"Without {left_out} at random"
    return Table(
        "Deletion test: what leaving out sentences of test notes takes from their scores.",
        ("Task", "Model", "Notes", "Sentences a note", "Score", *falls, "95 % of the difference"),
        in_cells(
            (
                *(row.task, row.model, row.notes, number_cell(row.sentences, 1)),
                *(number_cell(value) for value in (row.score, row.top, row.others)),
                "n/a" if row.low is None else f"[{number(row.low)}, {number(row.high)}]",
            )
            for row in rows
        ),
        text_columns=2,
        notes=(
            "Means over notes of different patients; the score is that of the label with the "
            f"highest one, of the first run. Without the top {left_out}: what it falls by when the "
            "sentences that raise it most, each left out alone, are left out together. Where that "
            "is no more than at random, no few sentences carry the score.",
        ),
    )
