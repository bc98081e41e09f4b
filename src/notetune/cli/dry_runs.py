"""What a dry run prints: each job with its size and time, and what that is based on."""

from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING

from notetune.cli import terminal

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe
    from notetune.study.costs import Costs, TaskCount


def show(recipe: "Recipe", gpu: str | None, *, as_json: bool) -> None:
    """Count what the trainings of a recipe take, and print it."""
    with terminal.busy():
        from notetune.study.costs import costs

    tell(recipe, costs(recipe, gpu, terminal.track), as_json=as_json)


def tell(recipe: "Recipe", costs: "Costs", *, as_json: bool) -> None:
    """Each job with its size and time, and what that is based on; as JSON, the recipe too."""
    if as_json:
        return terminal.show_json({"recipe": recipe.as_json(), **asdict(costs)})
    if costs.tasks:
        _to_learn(recipe.name, costs.tasks)
    for notice in costs.notices:
        terminal.tell(f"Note: {notice}")
    for name, seconds in costs.seconds.items():
        title = f"{name or recipe.name}: {terminal.duration(seconds)} on one {costs.clock}"
        _jobs(title, costs, name)
    for sentence in costs.advice:
        terminal.tell(sentence)
    if any(job.recomputes for job in costs.jobs):
        terminal.tell("r: activations are computed again in the backward pass (key recompute).")
    trainings, measured = (
        sum(len(job.seeds) for job in jobs) for jobs in (costs.trainings, costs.perplexities)
    )
    and_measured = f" and {measured} measurements of perplexity" if measured else ""
    if made := sum(job.made for job in costs.jobs):
        and_measured += f", of which {made} are made"
    fitting = ""
    if costs.memory_gib is not None:
        left_out = [len(job.seeds) for job in costs.jobs if not costs.fits(job)]
        fitting = (
            f" with {costs.memory_gib:g} GiB; not fitting into its memory (!): {sum(left_out)}"
        )
    terminal.tell(
        f"{trainings} trainings{and_measured}: "
        f"{terminal.duration(sum(costs.seconds.values()))} in all on one {costs.clock}{fitting}.\n"
        f"An estimate: operations counted without weights, {costs.rate}; all epochs, with the "
        "rounds on the validation notes and the features that heads start from; without what is "
        "made, reading, encoding, TF-IDF, hybrids, deletion tests, the solving of heads and the "
        "evaluation. Documents and tokens are those of one epoch. Memory: all tensors at the worst "
        "moment of a step; on a CPU, Python and its libraries take about a GiB beside them, and "
        "the C library may keep GiBs of what was freed (docs/guide/machines.md).\n"
        f"Notes: {'; '.join(costs.counts)}.\nNothing was written."
    )
    return None


def _jobs(title: str, costs: "Costs", backbone: str) -> None:
    columns = ("job", "time each", "times", "GiB", "documents", "tokens", "steps", "trained")
    rows = [
        (
            job.name,
            terminal.duration(job.seconds) if job.made < len(job.seeds) else "made",
            f"{len(job.seeds):,}",
            f"{job.memory_gib:,.1f}" + " r" * job.recomputes + " !" * (not costs.fits(job)),
            f"{job.documents:,}",
            f"{job.tokens:,}",
            f"{job.steps:,}",
            f"{job.trainable_parameters:,}",
        )
        for job in costs.jobs
        if job.backbone == backbone
    ]
    terminal.show_table(title, columns, rows)


def _to_learn(name: str, tasks: "Sequence[TaskCount]") -> None:
    columns = ("task", "classes", "training notes", "validation", "test")
    rows = [(task.task, *(f"{count:,}" for count in astuple(task)[1:])) for task in tasks]
    terminal.show_table(f"{name}: what there is to learn", columns, rows)
