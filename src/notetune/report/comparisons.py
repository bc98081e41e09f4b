"""Models against models as tables: what was declared, and what was looked at besides."""

from notetune.metrics.results import Comparison, Results, TaskResult
from notetune.report.numbers import count, p_text, signed
from notetune.report.table import Cell, Table, estimate_cell, in_cells

_ROWS_SHOWN = 8
_COULD_SHOW = (
    "Could have shown: the smallest true difference that a test set of this size and as many runs "
    "find in 80 % of studies, as far as these runs tell how much runs differ."
)
_ABOVE_0 = "Above 0: the model is better than the one it is compared with."


def primary_table(results: Results) -> Table:
    """All declared comparisons of the study; none of them is left out of the correction."""
    found = [(task.task, item) for task in results.tasks for item in task.primary]
    family = f"Holm p of {count(max((item.family for _, item in found), default=0))}"
    return Table(
        "Primary comparisons: differences in AUROC on the same patients.",
        ("Task", "Model", "Against", "Difference", "p", family, "Found", "Could have shown"),
        in_cells(
            (
                *(task, _model(item), item.against, *_difference_cells(item)),
                Cell(p_text(item.p_holm), sort=item.p_holm),
                Cell("yes" if item.is_found else "no", is_strong=item.is_found),
                _detectable(item),
            )
            for task, item in found
        ),
        text_columns=3,
        notes=(
            f"{_ABOVE_0} Found: p below .05 after Holm's correction for all of them; one that "
            f"could not be tested counts as p = 1. Intervals are not corrected. {_COULD_SHOW}",
        ),
    )


def exploratory_table(task: TaskResult) -> Table:
    """The other comparisons of one task."""
    return Table(
        f"{task.task}: exploratory differences in AUROC on the same patients.",
        ("Model", "Against", "Difference", "p", "Could have shown"),
        in_cells(
            (item.model, item.against, *_difference_cells(item), _detectable(item))
            for item in task.exploratory
        ),
        text_columns=2,
        notes=(
            f"{_ABOVE_0} Not declared in the recipe: p is not corrected, and of many differences "
            "some are below .05 by chance. They suggest what to ask next and show nothing. "
            f"{_COULD_SHOW}",
        ),
        is_collapsed=len(task.exploratory) > _ROWS_SHOWN,
    )


def _model(item: Comparison) -> str:
    """Its name, and which models were the best validated one in how many runs."""
    runs = sum(item.chosen.values())
    chosen = ", ".join(
        model if times == runs else f"{model} ({times} of {runs} runs)"
        for model, times in item.chosen.items()
    )
    named = f"{item.model}: {chosen}" if chosen else item.model
    return f"{named} (could not be: {', '.join(item.left_out)})" if item.left_out else named


def _detectable(item: Comparison) -> float | None:
    """None where nothing is tested, or both rank alike: then nothing varies."""
    return None if item.is_same or item.p_value is None else item.detectable


def _difference_cells(item: Comparison) -> tuple[Cell, Cell]:
    """The difference and its p-value."""
    is_untested = item.difference is not None and item.p_value is None and item.reason
    p_cell = Cell(p_text(item.p_value), f"({item.reason})" if is_untested else "", item.p_value)
    return estimate_cell(item.difference, item.reason, signed), p_cell
