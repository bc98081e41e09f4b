"""Step 1 as tables: its methods side by side, and perplexity by source."""

from collections.abc import Sequence

from notetune.metrics.results import MethodRow, PerplexityRow
from notetune.report.numbers import NOT_AVAILABLE, duration, number
from notetune.report.table import Cell, Table, count_cell
from notetune.report.tables import parameters_cell


def methods_table(methods: Sequence[MethodRow]) -> Table:
    """The methods of step 1 side by side, with their perplexities and costs."""
    splits = {
        "train": "Train",
        "validation": "Validation",
        "test": "Test",
        "general": "General",
    }
    rows = []
    for row in methods:
        perplexities = [row.perplexity.get(split) for split in splits]
        rows.append(
            (
                Cell(row.method),
                parameters_cell(row.trainable_parameters, row.total_parameters),
                *(Cell(number(value, 2), sort=value) for value in perplexities),
                Cell(number(row.tokens_per_second, 0), sort=row.tokens_per_second),
                Cell(duration(row.seconds) if row.seconds else NOT_AVAILABLE, sort=row.seconds),
                Cell(number(row.peak_memory_mib, 0), sort=row.peak_memory_mib),
            )
        )
    costs = ("Tokens/s", "Time", "Peak MiB")
    return Table(
        "Perplexity before (none) and after each method of step 1, and what its training cost.",
        ("Method", "Trained parameters", *splits.values(), *costs),
        tuple(rows),
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
                Cell(number(row.perplexity), sort=row.perplexity),
                Cell(number(row.bits_per_byte), sort=row.bits_per_byte),
                count_cell(row.tokens),
            )
            for row in rows
        ),
        text_columns=3,
    )
