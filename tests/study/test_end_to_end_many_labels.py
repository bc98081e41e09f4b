"""As many diagnoses as the paper's task has: 1,266 labels, from notes to predictions."""

import csv

import numpy as np
import pytest
from small_study import small_study

from notetune import config
from notetune.metrics.scores import read_scores
from notetune.recipe.recipe import Recipe
from notetune.serve.predictor import load_predictor
from notetune.study.evaluate import evaluate
from notetune.study.run import run_study

LABELS = 1_266
NOTES = 60
SETTINGS = [
    "prepare.min_train_positives=1",
    "prepare.allow_leaks=true",
    "seeds=1",
    "downstream.tasks=[codes]",
    "downstream.variants=[head-only, task-lora]",
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    small_study(folder)
    rng = np.random.default_rng(0)
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "died", "stay", "codes"])
        for number in range(NOTES):
            codes = [f"{code:04}" for code in range(LABELS) if rng.random() < 0.3]
            row = [f"n{number}", f"p{number}", f"note {number} of pain"]
            writer.writerow([*row, number % 2, ("short", "long")[number % 2], ";".join(codes)])
    return config.load(Recipe, folder / "recipe.yaml", SETTINGS)


def test_a_study_of_1266_labels_trains_scores_and_predicts(recipe):
    results = run_study(recipe)
    (task,) = results.tasks
    baselines = {"prevalence", "tf-idf", "tf-idf-all", "tf-idf-cut"}
    assert {row.model for row in task.rows} == {*baselines, "head-only", "task-lora", "hybrid"}
    for variant in ("head-only", "task-lora", "hybrid"):
        folder = recipe.folder.cell("codes", variant, 0)
        table = read_scores(folder / "test.parquet")
        assert table.scores_NK.shape == (len(table.note_ids_N), LABELS)
        assert table.classes == tuple(f"{code:04}" for code in range(LABELS))
        texts = [f"note {note[1:]} of pain" for note in table.note_ids_N.tolist()]
        predicted = load_predictor(folder, recipe.backbone).predict(texts).scores_NK
        assert np.abs(predicted - table.scores_NK).max() < 1e-5
    assert evaluate(recipe).tasks == results.tasks
