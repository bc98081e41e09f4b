"""A recipe for each adapter method in step 1."""

from builders import random_llama
from small_study import write_word_notes

from notetune import config
from notetune.recipe.recipe import Recipe

RECIPE = """
name: NAME
runs: {place}/runs
backbone: {place}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {place}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 40
pretrain:
  perplexity_documents: 20
  tokens_per_row: 64
  optim: {{targets_per_step: 512, peak_lr: 5e-3}}
downstream:
  tokens_per_row: 64
  epochs: 1
  adapter: {{kind: lora, rank: 2, dora: true}}
evaluate: {{draws: 100, baselines: [prevalence]}}
"""
ADAPTERS = {
    "lora": "{kind: lora, rank: 2, rslora: true}",
    "prefix": "{kind: prefix, virtual_tokens: 4, projection: true, hidden: 8}",
    "prompt": "{kind: prompt, virtual_tokens: 20, init: text}",
    "p-tuning": "{kind: p-tuning, virtual_tokens: 4, reparameterisation: lstm, hidden: 8}",
    "adaptation-prompt": "{kind: adaptation-prompt, length: 3, layers: 1}",
    "full": "{kind: full}",
}
NF4 = ("name=nf4", "dtype=nf4", "downstream.adapter={kind: lora, rank: 2}")


def small_notes_and_recipe(folder):
    random_llama(folder / "backbone")
    write_word_notes(folder / "notes.csv", 40, most_words=8)
    (folder / "recipe.yaml").write_text(RECIPE.format(place=folder))
    return folder


def load(place, kind, *overrides):
    settings = [f"name={kind}", f"pretrain.adapter={ADAPTERS[kind]}", *overrides]
    return config.load(Recipe, place / "recipe.yaml", settings)
