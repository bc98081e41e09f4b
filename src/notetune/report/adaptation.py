"""Step 1 as tables: its methods side by side, and perplexity by source."""

from collections.abc import Sequence

from notetune.metrics.results import MethodRow, PerplexityRow
from notetune.report.numbers import NOT_AVAILABLE, duration
from notetune.report.table import Cell, Table, count_cell, number_cell
from notetune.report.tables import parameters_cell


def methods_table(methods: Sequence[MethodRow]) -> Table:
    """The methods of step 1 side by side, with their perplexities and costs."""
    splits = ("train", "validation", "test", "general")
    costs = ("Tokens/s", "Time", "Peak MiB")
    return Table(
        "Perplexity before (none) and after each method of step 1, and what its training cost.",
        ("Method", "Trained parameters", *(split.capitalize() for split in splits), *costs),
        tuple(
            (
                Cell(row.method),
                parameters_cell(row.trainable_parameters, row.total_parameters),
                *(number_cell(row.perplexity.get(split), 2) for split in splits),
                number_cell(row.tokens_per_second, 0),
                Cell(duration(row.seconds) if row.seconds else NOT_AVAILABLE, sort=row.seconds),
                number_cell(row.peak_memory_mib, 0),
            )
            for row in methods
        ),
        notes=(
            "Lower is better. On general text, a higher value than before is what was forgotten.",
        ),
    )


def adapted(row: PerplexityRow) -> str:
    """What a perplexity is of: a backbone with the adapter of a method, or with none."""
    method = row.method or "none"
    return f"{row.backbone}/{method}" if row.backbone else method


def perplexity_table(rows: Sequence[PerplexityRow]) -> Table:
    """Perplexity per method, split and source."""
    return Table(
        "Perplexity per target token and bits per byte of text. Lower is better.",
        ("Method", "Split", "Source", "Perplexity", "Bits per byte", "Tokens"),
        tuple(
            (
                Cell(adapted(row)),
                Cell(row.split),
                Cell(row.source),
                number_cell(row.perplexity),
                number_cell(row.bits_per_byte),
                count_cell(row.tokens),
            )
            for row in rows
        ),
        text_columns=3,
    )
