"""What README and the guide show of a command is what the command prints."""

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
import typer
from tiny_families import CAUSAL_TYPES, FATES, NOT_BUILT

from notetune.cli import main
from notetune.cli.app import app

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs/guide"
PAGES = (ROOT / "README.md", *sorted(GUIDE.glob("*.md")))
# Other processors sum in another order, which training carries on: scores may be a little other,
# and so may the marks of those that are near one another. Words must be the same.
TOLERANCE, MINUS = 0.02, "\u2212"
MARKS = re.compile(r"[≈★](?= |$)")
NUMBER = re.compile(r"[+\u2212]?\d[\d,.]*")
DURATION = re.compile(r"# (?:s|min|h # min)(?= |$)")
SCORE = re.compile(r"[+\u2212]?[01]\.\d{3}")


def demo_parts():
    """The lines of the demo, in the parts that `...` separates."""
    page = (GUIDE / "demo.md").read_text(encoding="utf-8")
    block = page.split("ended in\n\n```\n")[1].split("```")[0]
    return [[line for line in part.splitlines() if is_told(line)] for part in block.split("...\n")]


def is_told(line):
    """Whether a line is more than the rule under the head of a table."""
    return bool(line.strip(" ─"))


def in_words(line):
    numbered = NUMBER.sub("#", " ".join(MARKS.sub("", line).split()))
    return DURATION.sub("a time", numbered)


def scores(lines):
    return [float(score.replace(MINUS, "-")) for score in SCORE.findall(" ".join(lines))]


def commands():
    """The commands of the blocks of all pages, each as its words; those of README first."""
    lines = [line for block in blocks(r"\w*") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("notetune ")]


def blocks(language):
    """The blocks of all pages in a language."""
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [block for text in texts for block in pattern.findall(text)]


def test_every_command_is_understood():
    top = typer.main.get_command(app)
    for _, *words in commands():
        command, left = top, words
        while hasattr(command, "commands"):
            name, *left = left
            command = command.commands[name]
        command.make_context(name, left)  # raises where an option or an argument is unknown
    assert len(commands()) >= 9


@pytest.mark.slow
def test_the_way_from_a_table_to_a_report_and_to_new_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOTETUNE_DATA", raising=False)
    words = [
        "fever",
        "cough",
        "pain",
        "rash",
        "syncope",
        "oedema",
        "anaemia",
        "asthma",
        "stroke",
        "fracture",
    ]
    draws = [random.Random(row) for row in range(160)]
    died = [draw.random() < 0.5 for draw in draws]
    table = pl.DataFrame(
        {
            "note_id": [f"n{row}" for row in range(160)],
            "patient_id": [f"p{row // 2}" for row in range(160)],
            "text": [
                " ".join(draw.choices(words, k=14) + ["sepsis"] * dead)
                for draw, dead in zip(draws, died, strict=True)
            ],
            "died": [int(dead) for dead in died],
        }
    )
    table.write_csv("notes.csv")
    table[:9].drop("died").write_csv("new.csv")
    own = [words for _, *words in commands()][:5]
    assert [" ".join(words[:2]) for words in own][1:4] == ["study run", "study run", "study status"]
    for words in own:
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code, capsys.readouterr().err
    assert Path("runs/notes/report/report.html").is_file()
    scores = pl.read_csv("scores.csv")
    assert scores["label"].to_list() == ["died"] * 9
    assert scores["score"].is_between(0, 1).all()

    fit, use = blocks("python")
    notes = pd.DataFrame(table.to_dict(as_series=False))
    names = {"notes": notes, "new_notes": notes[:9].drop(columns="died")}
    exec(fit, names)
    assert "AUROC" in capsys.readouterr().out
    assert len(names["scores"]) == 9
    exec(use.replace("/models/llama-3.2-1b", "tiny"), names)
    assert names["scores"].shape == (1, 1)


def test_the_demo_prints_what_its_page_says(tmp_path):
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


def backbone_rows():
    """The cells of the table of backbones."""
    text = (GUIDE / "backbones.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_the_table_of_backbones_says_was_tried_is_what_the_tests_try():
    rows = backbone_rows()
    assert len(rows) >= 25
    for name, kind, *_, tried in rows:
        kind = kind.strip("`")
        is_built = kind == "modernbert" or (kind in CAUSAL_TYPES and kind not in NOT_BUILT)
        if tried == "weights":
            assert any(word in name for word in ("tiny", "SmolLM2", "MiniLM")), name
        else:
            assert (tried != "not tried") == is_built, name
        if kind in FATES and tried != "weights":
            assert tried.endswith(", alone") == (FATES[kind] == "one document"), name
    assert {tried for *_, tried in rows} == {
        *("weights", "random weights", "random weights, alone", "not tried"),
    }


def test_the_table_of_backbones_multiplies_parameters_by_bytes():
    for _, _, billions, _, _, *cells, _ in backbone_rows():
        for cell, width in zip(cells, (4, 2, 0.55), strict=True):
            size = float(billions) * width
            card = next((str(card) for card in (24, 48, 80) if size <= 0.8 * card), "none")
            assert cell == f"{size:.1f}, {card}"
