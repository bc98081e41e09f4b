"""Step 1 by several methods on the same notes: one carries step 2, the others stand beside it."""

from notetune.metrics.results import MethodRow, PerplexityRow
from notetune.workflows.perplexity import AFTER, ALL_SOURCES, BEFORE
from notetune.workflows.prepare import Prepared
from notetune.workflows.pretrain import Pretrained, pretrain, read_pretrained, train_run
from notetune.workflows.progress import Track, silent
from notetune.workflows.recipe import Recipe

NO_METHOD = "none"


def recipes(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe of each method of step 1; that of the domain adapter first."""
    return {recipe.pretrain.adapter.kind: recipe, **recipe.compared}


def pretrain_all(
    recipe: Recipe, prepared: Prepared, track: Track = silent
) -> dict[str, Pretrained]:
    """Train the first run of every method, the domain adapter first, or read what is there."""
    return {
        name: pretrain(one, prepared, track, measures_before=one is recipe)
        for name, one in recipes(recipe).items()
    }


def pretrain_runs(recipe: Recipe, prepared: Prepared, track: Track = silent) -> None:
    """Train the domain adapter of every run that is not there yet."""
    for seed in range(recipe.seeds):
        train_run(recipe, prepared, seed, track)


def read_all(recipe: Recipe, prepared: Prepared) -> dict[str, Pretrained]:
    """What finished methods left in the run folder.

    Raises:
        RunError: If one is not finished, or was trained with other settings or on other notes.
    """
    return {
        name: read_pretrained(one, prepared, measures_before=one is recipe)
        for name, one in recipes(recipe).items()
    }


def perplexity_rows(methods: dict[str, Pretrained]) -> list[PerplexityRow]:
    """Perplexities before and after the domain adapter's training, and after each other one's."""
    first, *others = methods
    rows = list(methods[first].perplexity)
    for name in others:
        rows += [
            row.model_copy(update={"model": name})
            for row in methods[name].perplexity
            if row.model == AFTER
        ]
    return rows


def method_rows(methods: dict[str, Pretrained]) -> list[MethodRow]:
    """The methods side by side, as in Table 2 of the paper, after a row without any."""
    first = next(iter(methods.values()))
    rows = [MethodRow(method=NO_METHOD, perplexity=_by_split(first, BEFORE))]
    for name, trained in methods.items():
        record = trained.record
        rows.append(
            MethodRow(
                method=name,
                trainable_parameters=record.trainable_parameters,
                total_parameters=record.total_parameters,
                perplexity=_by_split(trained, AFTER),
                tokens_per_second=record.tokens / record.seconds,
                seconds=record.seconds,
                peak_memory_mib=record.peak_memory_mib,
            )
        )
    return rows


def _by_split(trained: Pretrained, when: str) -> dict[str, float]:
    """Perplexity of each split over all sources."""
    rows = [row for row in trained.perplexity if row.model == when]
    over_all = {row.split for row in rows if row.source == ALL_SOURCES}
    return {
        row.split: row.perplexity
        for row in rows
        if row.source == ALL_SOURCES or row.split not in over_all
    }
