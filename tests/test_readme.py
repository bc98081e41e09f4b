"""What README shows of a command is what the command prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
# Other processors sum in another order, which training carries on: scores may be a little other,
# and so may the marks of those that are near one another. Words must be the same.
TOLERANCE, MINUS = 0.02, "\u2212"
MARKS = re.compile(r"[≈★](?= |$)")
NUMBER = re.compile(r"[+\u2212]?\d[\d,.]*")
DURATION = re.compile(r"# (?:s|min|h # min)(?= |$)")
SCORE = re.compile(r"[+\u2212]?[01]\.\d{3}")


def demo_parts():
    """The lines of README's demo, in the parts that `...` separates."""
    block = README.read_text(encoding="utf-8").split("ended in\n\n```\n")[1].split("```")[0]
    return [[line for line in part.splitlines() if is_told(line)] for part in block.split("...\n")]


def is_told(line):
    """Whether a line is more than the rule under the head of a table."""
    return bool(line.strip(" ─"))


def in_words(line):
    numbered = NUMBER.sub("#", " ".join(MARKS.sub("", line).split()))
    return DURATION.sub("a time", numbered)


def scores(lines):
    return [float(score.replace(MINUS, "-")) for score in SCORE.findall(" ".join(lines))]


def test_the_demo_prints_what_readme_says(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "notetune", "demo", "--folder", tmp_path / "demo"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "98", "OMP_NUM_THREADS": "1"},
    )
    printed = [line.rstrip() for line in done.stdout.splitlines() if is_told(line)]
    words = [in_words(line) for line in printed]
    parts = demo_parts()
    assert len(parts) == 2
    for part in parts:
        first = words.index(in_words(part[0]))
        found = printed[first : first + len(part)]
        assert [in_words(line) for line in found] == [in_words(line) for line in part]
        assert len(scores(part)) > 10
        assert scores(found) == pytest.approx(scores(part), abs=TOLERANCE)
