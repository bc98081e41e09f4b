"""Which test notes a leak check finds, note by note."""

import random

import pytest

from notetune import config
from notetune.prepare.build import prepare
from notetune.prepare.suspects import suspect_notes
from notetune.recipe.recipe import Recipe

WORDS = ["fever", "cough", "pain", "rash", "syncope", "oedema", "anaemia", "asthma", "stroke"]


def text(number):
    return " ".join(random.Random(number).choices(WORDS, k=40))


@pytest.fixture
def prepared(tmp_path):
    """Notes with a fixed split; of the test notes one is a copy, one late, two tell the outcome."""
    rows = ["note,split,time,predicted,died,text"]
    for number in range(40):
        part = "test" if number < 10 else "train"
        time = "2020-01-02" if number == 1 else "2020-01-01"
        words = {0: text(20), 2: f"{text(2)} expired", 3: f"{text(3)} hospice"}
        note = words.get(number, text(number))
        rows.append(f"n{number},{part},{time},2020-01-01,{number % 2},{note}")
    (tmp_path / "notes.csv").write_text("\n".join(rows) + "\n")
    columns = {"text": "text", "note_id": "note", "time": "time"}
    task = {"name": "mortality", "kind": "binary", "column": "died", "prediction_time": "predicted"}
    source = {"kind": "table", "path": f"{tmp_path}/notes.csv", "columns": columns, "tasks": [task]}
    split = {"kind": "column"}
    recipe = {
        "name": "suspects",
        "runs": str(tmp_path),
        "prepare": {"source": source, "split": split, "allow_leaks": True, "workers": 1},
    }
    return prepare(config.parse(Recipe, recipe, "recipe").preparation)


def test_suspect_test_notes_are_named_by_what_was_found(prepared):
    found = suspect_notes(prepared)["mortality"]
    assert {what: sorted(notes) for what, notes in found.items()} == {
        "words that tell the outcome": ["n2", "n3"],
        "a text nearly that of a training note": ["n0"],
        "written after the prediction time": ["n1"],
    }


def test_they_are_those_that_the_leak_table_counts(prepared):
    counts = {f.check: f.count for f in prepared.findings if f.split_b == "test" and f.count}
    counts |= {f.check: f.count for f in prepared.findings if f.split_a == "mortality" and f.count}
    assert counts["outcome words"] == 2
    assert counts["later than the prediction time"] == 1
    assert counts["near-duplicate text"] == 1
