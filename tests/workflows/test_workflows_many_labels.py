"""As many diagnoses as the paper's task has: 1,266 labels, from notes to predictions."""

import csv

import numpy as np
import pytest
from builders import random_llama

from notetune import config
from notetune.metrics.scores import read_scores
from notetune.serve.predictor import load_predictor
from notetune.workflows.evaluate import evaluate
from notetune.workflows.recipe import Recipe
from notetune.workflows.study import read_study, run_study

LABELS = 1_266
NOTES = 60
RECIPE = """
name: many
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks: [{{name: codes, kind: multilabel, column: codes, separator: ";"}}]
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 48
  min_train_positives: 1
pretrain: {{perplexity_documents: 5, tokens_per_row: 256, optim: {{targets_per_step: 512}}}}
downstream:
  variants: [head-only, task-lora]
  tokens_per_row: 256
  epochs: 1
  head_epochs: 2
evaluate: {{draws: 100, baselines: [prevalence, tf-idf]}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    random_llama(folder / "backbone")
    rng = np.random.default_rng(0)
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "codes"])
        for number in range(NOTES):
            codes = [f"{code:04}" for code in range(LABELS) if rng.random() < 0.3]
            writer.writerow([f"n{number}", f"p{number}", f"note {number} of pain", ";".join(codes)])
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return config.load(Recipe, folder / "recipe.yaml")


def test_a_study_of_1266_labels_trains_scores_and_predicts(recipe):
    results = run_study(recipe)
    (task,) = results.tasks
    assert {row.model for row in task.rows} == {"prevalence", "tf-idf", "head-only", "task-lora"}
    for variant in ("head-only", "task-lora"):
        folder = recipe.folder.cell("codes", variant, 0)
        table = read_scores(folder / "test.parquet")
        assert table.scores_NK.shape == (len(table.note_ids_N), LABELS)
        assert table.classes == tuple(f"{code:04}" for code in range(LABELS))
        texts = [f"note {note[1:]} of pain" for note in table.note_ids_N.tolist()]
        predicted = load_predictor(folder, recipe.backbone).predict(texts).scores_NK
        assert np.abs(predicted - table.scores_NK).max() < 1e-5
    assert evaluate(recipe, read_study(recipe)).tasks == results.tasks
