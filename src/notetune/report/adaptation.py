"""Step 1 as tables: its methods side by side, and perplexity by source."""

from collections.abc import Sequence

from notetune.metrics.results import MethodRow, PerplexityRow
from notetune.report.table import Table, in_cells, number_cell
from notetune.report.tables import (
    marks_of_methods,
    parameters_cell,
    perplexity_cells,
    time_cell,
)

_ROWS_SHOWN = 15


def methods_table(methods: Sequence[MethodRow]) -> Table:
    """The methods of step 1 side by side, with their perplexities and costs."""
    splits = ("train", "validation", "test", "general")
    costs = ("Tokens/s", "Time", "Peak MiB")
    return Table(
        "Perplexity before (none) and after each method of step 1, and what its training cost.",
        ("Method", "Trained parameters", *(split.capitalize() for split in splits), *costs),
        in_cells(
            (
                row.method,
                parameters_cell(row),
                *perplexity_cells(row, splits),
                number_cell(row.tokens_per_second, 0),
                time_cell(row.seconds),
                number_cell(row.peak_memory_mib, 0),
            )
            for row in methods
        ),
        notes=(
            *marks_of_methods(methods),
            "Lower is better; 95 % intervals are over the patients of the notes. On general text, "
            "a higher value than before is what was forgotten.",
        ),
    )


def perplexity_table(rows: Sequence[PerplexityRow]) -> Table:
    """Perplexity per method, split and source."""
    return Table(
        "Perplexity per target token and bits per byte of text. Lower is better.",
        ("Method", "Split", "Source", "Perplexity", "Bits per byte", "Tokens"),
        in_cells(
            (
                "/".join(name for name in (row.backbone, row.method or "none") if name),
                *(row.split, row.source, row.perplexity, row.bits_per_byte, row.tokens),
            )
            for row in rows
        ),
        text_columns=3,
        is_sortable=len(rows) > _ROWS_SHOWN,
        is_collapsed=len(rows) > _ROWS_SHOWN,
    )
