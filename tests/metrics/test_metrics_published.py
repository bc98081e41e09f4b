"""The published figures are whole, add up, and name what `recipes/paper.yaml` trains."""

from pathlib import Path
from statistics import mean

from notetune import config
from notetune.metrics.published import publication
from notetune.recipe.models import name_in_study
from notetune.recipe.recipe import Recipe

GEMA_2023 = publication("gema-2023")
PAPER = Path(__file__).parents[2] / "recipes/paper.yaml"
SLIPS = {  # printed, and what the five tasks give
    "core+full": (0.6940, 0.6894),
    "llama-7b/head-only": (0.5861, 0.5994),
    "pmc-llama-7b/domain-frozen": (0.6006, 0.6170),
}


def test_every_row_and_task_of_the_tables_is_one_that_the_recipe_trains():
    recipe = config.load(Recipe, PAPER)
    assert recipe.evaluate.published == "gema-2023"
    assert set(GEMA_2023.tasks.values()) == set(recipe.downstream.tasks)
    assert list(GEMA_2023.tasks) == ["PMV", "MOR", "LOS", "DIAG", "PROC"]
    methods = [
        name_in_study(backbone, method)
        for backbone, one in recipe.studies.items()
        for method in (one.pretrain.adapter.kind, *one.pretrain.compare)
    ]
    assert len(methods) == 11
    assert sorted(row.ours for row in GEMA_2023.methods) == sorted(methods)
    variants = {model.label for model in recipe.models if model.kind == "variant"}
    encoders = {f"{name}+full" for name in recipe.encoders.models}
    assert len(GEMA_2023.models) == 17
    assert {row.ours for row in GEMA_2023.models} == variants | encoders


def test_a_printed_mean_is_that_of_its_tasks_but_where_the_note_says_so():
    for row in GEMA_2023.models:
        assert len(row.aurocs) == 5
        of_tasks = mean(row.aurocs)
        if row.ours in SLIPS:
            assert (row.mean, round(of_tasks, 4)) == SLIPS[row.ours]
            assert f"{of_tasks:.4f}" in GEMA_2023.about_models
        else:
            assert abs(row.mean - of_tasks) < 1e-4


def test_figures_are_those_of_the_paper():
    models = {row.ours: (*row.aurocs, row.mean) for row in GEMA_2023.models}
    best = (0.5381, 0.8302, 0.7326, 0.8193, 0.8831, 0.7607)
    assert models["llama-7b/domain-trainable+task-lora"] == best
    assert models["bluebert+full"] == (0.5731, 0.8134, 0.7292, 0.7339, 0.7662, 0.7232)
    methods = {row.ours: row for row in GEMA_2023.methods}
    full = methods["clinical-llama-7b/full"]
    assert (full.train_perplexity, full.test_perplexity, full.gpus) == (1.811, 2.210, 4)
    assert methods["pmc-llama-7b/p-tuning"].time == "22:28:15"
