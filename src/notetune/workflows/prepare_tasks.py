"""The tasks of a source that a recipe wants, split by patient and fit to be taught."""

import polars as pl

from notetune.errors import ConfigError
from notetune.notes import outcomes, splits
from notetune.notes.outcomes import Task
from notetune.notes.sources import Finished, FlowCount
from notetune.workflows.recipe import Recipe


def split_tasks(
    recipe: Recipe, finished: Finished, notes: pl.DataFrame, assignment: pl.DataFrame
) -> tuple[list[tuple[Task, pl.DataFrame]], list[FlowCount]]:
    """The wanted tasks, their tables with a split, and their flow."""
    tasks, flow = [], []
    for task, labels in _wanted_tasks(recipe, finished):
        table, lost = splits.split_table(labels, notes, assignment)
        flow.append(split_flow(f"{task.name}: labelled notes", table.height + lost, table.height))
        tasks.append((task, table))
    return tasks, flow


def checked(task: Task, table: pl.DataFrame, min_train_positives: int) -> tuple[Task, pl.DataFrame]:
    """A task that can be taught, with the classes that are frequent enough."""
    task, table = outcomes.keep_frequent_classes(task, table, min_train_positives)
    outcomes.check_labels(task, table)
    outcomes.check_train_classes(task, table)
    return task, table


def _wanted_tasks(recipe: Recipe, finished: Finished) -> list[tuple[Task, pl.DataFrame]]:
    by_name = {task.name: (task, table) for task, table in finished.tasks}
    wanted = recipe.downstream.tasks or tuple(by_name)
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise ConfigError(
            f"downstream.tasks: the source has no task {unknown[0]}; it has "
            f"{', '.join(by_name) or 'none'}."
        )
    return [by_name[name] for name in wanted]


def split_flow(stage: str, read: int, kept: int) -> FlowCount:
    """Notes that a patient split kept."""
    return FlowCount(stage, read, kept, {"patient in no split": read - kept})
