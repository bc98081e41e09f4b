"""A small finished study, kept as the release that made it left it.

`python tests/release_study.py` makes it anew. That is done once for each release, as CONTRIBUTING
says: one made by the code that is tested would show nothing.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from builders import random_llama
from small_study import write_notes

ARCHIVE = Path(__file__).parent / "examples" / "release-0.2.0.tar.gz"
RECIPE = """
schema: 1
name: study
backbone: backbone
device: cpu
prepare:
  source:
    kind: table
    path: notes.csv
    columns: {text: text, note_id: note, patient_id: patient}
    tasks: [{name: died, kind: binary, column: died}]
  split: {kind: fractions, validation: 0.2, test: 0.3}
  max_tokens: 48
  min_train_positives: 3
pretrain:
  perplexity_documents: 20
  adapter: {kind: lora, rank: 2, alpha: 4, targets: [q_proj]}
  tokens_per_row: 256
  optim: {targets_per_step: 512, peak_lr: 5e-3}
downstream:
  adapter: {kind: lora, rank: 2, alpha: 4, targets: [q_proj]}
  variants: [head-only, domain-frozen+task-lora]
  epochs: 1
  tokens_per_row: 256
evaluate: {draws: 100}
"""


def make(archive: Path) -> None:
    """Run the study and pack it, without its report, which every release writes anew."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        random_llama(folder / "backbone")
        os.utime(write_notes(folder / "notes.csv"), (0, 0))  # a time that an archive holds exactly
        (folder / "recipe.yaml").write_text(RECIPE.lstrip(), encoding="utf-8")
        command = [sys.executable, "-m", "notetune", "study", "run", "recipe.yaml"]
        subprocess.run(command, cwd=folder, check=True)
        shutil.rmtree(folder / "runs" / "study" / "report")
        (folder / "runs" / "study" / "jobs.jsonl").unlink()  # names this machine
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(folder, ".", filter=_nobody)


def unpack(folder: Path) -> Path:
    """The study in a folder, as it was left."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
    return member


if __name__ == "__main__":
    make(ARCHIVE)
