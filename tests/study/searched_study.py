"""The small study with a search in each step."""

from small_study import small_study

from notetune import config
from notetune.recipe.recipe import Recipe
from notetune.study.listing import jobs

STACKED = "domain-frozen+task-lora"
TUNE = """
tune:
  trials: 4
  starts: 2
  pretrain: {optim.peak_lr: [1e-4, 5e-3, 2e-2], adapter.rank: [1, 2, 3]}
  downstream: {optim.peak_lr: {low: 1e-4, high: 1e-1, log: true}}
"""


def searched_study(folder):
    place = small_study(folder)
    with (place / "recipe.yaml").open("a") as file:
        file.write(TUNE)
    return place


def load(place, *overrides):
    few = ["downstream.tasks=[died]", f"downstream.variants=[head-only,{STACKED}]"]
    return config.load(Recipe, place / "recipe.yaml", [*few, *overrides])


def searches_of(recipe):
    return [job for job in jobs(recipe) if job.stage == "search"]
