"""`notetune init` and `notetune recipes`, as a person types them."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

from notetune import config
from notetune.cli import main
from notetune.prepare.prepared import open_prepared
from notetune.recipe.recipe import Recipe

ROOT = Path(__file__).parents[2]
WORDS = ["fever", "cough", "pain", "rash", "dyspnoea", "fracture", "syncope", "oedema", "sepsis"]


def notetune(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    output = capsys.readouterr()
    return end.value.code, output.out, output.err


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pl.DataFrame(
        {
            "note": [" ".join(random.Random(row).choices(WORDS, k=12)) for row in range(60)],
            "patient": [f"p{row // 2}" for row in range(60)],
            "died": [int(row % 3 == 0) for row in range(60)],
        }
    )
    table.write_csv("My notes.csv")
    return Path("My notes.csv")


def test_a_table_becomes_a_recipe_that_runs(capsys, notes):
    code, out, _ = notetune(capsys, "init", notes)
    assert code == 0
    assert "notetune study run my-notes.yaml" in out
    assert pl.read_csv(notes)["note"][0] not in out
    code, out, err = notetune(capsys, "prepare", "my-notes.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["flow"][0]["read"] == 60


def test_a_long_name_of_a_file_is_cut_to_that_of_a_study(capsys, notes):
    notes.rename(f"{'discharge ' * 8}.csv")
    code, out, err = notetune(capsys, "init", f"{'discharge ' * 8}.csv")
    assert code == 0, err
    (recipe,) = Path().glob("*.yaml")
    assert config.load(Recipe, recipe).name == recipe.stem == ("discharge-" * 8)[:64]
    assert str(recipe) in out


@pytest.fixture
def codes(notes):
    """Notes without an outcome, and a table of the codes of their patients."""
    pl.read_csv(notes).drop("died").write_csv("cases.csv")
    rows = [(f"p{row % 30}", row % 4, ("I10", "e11.9", "V30.0")[row % 3]) for row in range(90)]
    table = pl.DataFrame(rows, schema=["case", "rank", "code"], orient="row")
    table.write_csv("codes.csv")
    return Path("codes.csv")


def test_a_table_of_codes_becomes_a_task_with_its_categories(capsys, codes):
    code, out, err = notetune(capsys, "init", "cases.csv", "--codes", codes)
    assert code == 0, err
    assert "Those of codes.csv by the first 90 rows" in out
    assert "I10" not in out
    code, out, err = notetune(capsys, "prepare", "cases.yaml", "prepare.min_train_positives=1")
    assert code == 0, err
    task = open_prepared(Path("runs/cases/prepared")).tasks["codes"].task
    assert task.classes == ("E11", "I10", "V30")


def test_without_an_outcome_the_ways_out_are_said(capsys, codes):
    code, _, err = notetune(capsys, "init", "cases.csv")
    assert (code, "--outcome COLUMN" in err, "--codes FILE" in err) == (2, True, True)
    code, _, err = notetune(capsys, "init", "cases.csv", "--codes-id", "case")
    assert (code, "go with --codes FILE" in err) == (2, True)


def test_what_was_guessed_is_there_for_machines(capsys, notes):
    code, out, _ = notetune(capsys, "init", notes, "-o", "ours.yaml", "--json")
    said = json.loads(out)
    assert (code, said["rows"], said["recipe"]) == (0, 60, "ours.yaml")
    assert said["keys"]["prepare"]["source"]["tasks"][0]["column"] == "died"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--outcome", "died=often"), "the kinds are binary, multiclass, multilabel"),
        (("--outcome", "died", "--outcome", "died=binary"), "--outcome died is given twice"),
        (("--outcome", "age"), "there is no column age"),
        (("--output", "My notes.csv"), "exists already"),
    ],
)
def test_faults_are_one_line(capsys, notes, arguments, said):
    code, out, err = notetune(capsys, "init", notes, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert notes.read_text().startswith("note,patient,died")


def test_an_export_of_fhir_is_led_to_its_recipe(capsys, tmp_path):
    (tmp_path / "DocumentReference.ndjson").touch()
    for path in (tmp_path, tmp_path / "DocumentReference.ndjson"):
        code, out, err = notetune(capsys, "init", path)
        assert (code, out) == (2, "")
        assert "notetune recipes fhir -o fhir.yaml" in err


def test_shipped_recipes_are_listed_and_copied(capsys, tmp_path):
    code, out, _ = notetune(capsys, "recipes", "--json")
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert (code, sorted(json.loads(out))) == (0, names)
    assert all(json.loads(out).values())
    code, _, _ = notetune(capsys, "recipes", "eicu", "-o", tmp_path / "mine.yaml")
    assert code == 0
    assert (tmp_path / "mine.yaml").read_text() == (ROOT / "recipes/eicu.yaml").read_text()
    code, _, err = notetune(capsys, "recipes", "eicu", "-o", tmp_path / "mine.yaml")
    assert (code, "exists already" in err) == (2, True)
    code, _, err = notetune(capsys, "recipes", "nope")
    assert (code, "there is no recipe nope" in err) == (2, True)


def test_the_shapes_that_a_shipped_recipe_counts_on_are_found_from_anywhere(capsys, tmp_path):
    notetune(capsys, "recipes", "paper", "-o", tmp_path / "paper.yaml")
    study = config.load(Recipe, tmp_path / "paper.yaml")
    folders = {Path(one.backbone) for one in study.studies.values()}
    folders |= {Path(folder) for folder in study.encoders.models.values()}
    assert len(folders) == 6
    assert all((folder / "config.json").is_file() for folder in folders)
