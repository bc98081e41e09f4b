"""A small hospital file with its recipe, and what the tests of workflows do with studies."""

import csv
import io
import os
import re
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders import random_llama

from notetune.cli import main

CANARY = "zyxcanary"
RECIPE = """
name: small
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
seeds: 2
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    source: visit
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
      - {{name: stay, kind: multiclass, column: stay}}
      - {{name: codes, kind: multilabel, column: codes, separator: ";"}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 48
  min_train_positives: 3
pretrain:
  perplexity_documents: 20
  adapter: {{kind: lora, rank: 2, alpha: 4}}
  tokens_per_row: 256
  optim: {{targets_per_step: 512, peak_lr: 5e-3}}
downstream:
  adapter: {{kind: lora, rank: 2, alpha: 4}}
  epochs: 1
  max_pieces: 1
  tokens_per_row: 256
evaluate: {{draws: 100}}
"""


def small_study(folder: Path) -> Path:
    """A folder with a backbone, notes and `recipe.yaml` for them."""
    random_llama(folder / "backbone")
    write_notes(folder / "notes.csv")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder


def write_notes(path: Path, *, rows: int = 90) -> Path:
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "died", "stay", "codes"])
        for number in range(rows):
            died = int(rng.random() < 0.4)
            stay = ["short", "long"][int(rng.random() < 0.5)]
            codes = [c for c in ("0389", "V58", "E88") if rng.random() < 0.4] or ["0031"]
            words = f"{CANARY} {number} shock" if died else f"{CANARY} {number} well"
            text = f"{words} {stay} " + " ".join(codes) + " filler" * int(rng.integers(1, 9))
            writer.writerow([f"n{number:03}", f"p{number // 2}", text, died, stay, ";".join(codes)])
    return path


def write_word_notes(path: Path, count: int, *, first: int = 0, most_words: int = 19) -> Path:
    """Notes of a few words each, one per patient, with two labels that no word tells."""
    rng = np.random.default_rng(first)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "died", "stay"])
        for number in range(first, first + count):
            words = int(rng.integers(2, most_words + 1))
            text = " ".join(rng.choice(["well", "ill", "pain", "fever"], words))
            row = [f"n{number}", f"p{number}", f"{number} {text}", number % 2, number // 2 % 2]
            writer.writerow(row)
    return path


PROGRESS = re.compile(r" \d+/\d+( ·|$)")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str

    @property
    def complaints(self) -> list[str]:
        """The lines on standard error that are no progress."""
        return [line for line in self.stderr.strip().splitlines() if not PROGRESS.search(line)]


def notetune(*arguments):
    """The command line in this process, with what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["notetune", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
    return Done(exit_.value.code or 0, out.getvalue(), err.getvalue())


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sigterm_after(number, of=""):
    """Progress that gets SIGTERM after some steps of what has this in its label."""

    def track(label, steps, _total, _describe, _done=0):
        for count, step in enumerate(steps, start=1):
            if count == number and of in label:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    return track
