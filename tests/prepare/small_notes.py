"""A recipe for ninety notes, and what preparing them leaves."""

import csv
import random
from pathlib import Path

from notetune import config
from notetune.prepare import shards
from notetune.recipe.recipe import Recipe

NOTES = 90
PER_SHARD = 12
RECIPE = """
name: small
runs: {folder}/runs
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    source: report
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  opener: bos
  max_tokens: 32
  allow_leaks: true
"""
PHRASES = ["chest pain", "denies fever", "lungs clear,", " heart regular", "5 mg b.i.d.\n"]


def write_notes(path: Path) -> None:
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "died"])
        for number in range(NOTES):
            text = " ".join(rng.choices(PHRASES, k=rng.randint(1, 20)))
            writer.writerow([f"n{number:03}", f"p{number // 2}", text, number % 2])


def small_notes(folder: Path, monkeypatch) -> Path:
    """A folder with notes and a recipe, for shards of a few notes."""
    monkeypatch.setattr(shards, "_NOTES_PER_SHARD", PER_SHARD)
    write_notes(folder / "notes.csv")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder


def recipe_in(folder: Path, *overrides: str, **options) -> Recipe:
    recipe = config.load(Recipe, folder / "recipe.yaml", list(overrides))
    changed = recipe.prepare.model_copy(update={"workers": 1, **options})
    return recipe.model_copy(update={"prepare": changed})


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def hidden_in(folder: Path) -> list[str]:
    """What is left beside the prepared folder, but for locks."""
    names = {path.name for path in folder.iterdir()} - {"prepared"}
    return sorted(name for name in names if not name.endswith(".lock"))
