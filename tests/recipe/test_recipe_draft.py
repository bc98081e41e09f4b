"""A drafted recipe says what columns are, or asks."""

import polars as pl
import pytest
import yaml

from notetune import config
from notetune.errors import ConfigError
from notetune.recipe.draft import Choices, draft
from notetune.recipe.recipe import Recipe
from notetune.sources.tables.survey import survey

LONG = "Admitted with chest pain radiating to the left arm since the morning."


@pytest.fixture
def drafted(tmp_path):
    """Drafts of a table with these columns beside its texts."""

    def made(choices=None, **columns):
        path = tmp_path / "notes.parquet"
        texts = [f"{LONG} {row}" for row in range(40)]
        pl.DataFrame({"body": texts, **columns}).write_parquet(path)
        return draft(path, survey(path), choices or Choices(), "ours", "tiny")

    return made


def alternating(first, second):
    return [first if row % 4 == 0 else second for row in range(40)]


def test_columns_are_guessed_by_what_they_hold_and_are_called(drafted):
    found = drafted(
        Note_ID=[f"n{row}" for row in range(40)],
        SUBJECT_ID=[row // 2 for row in range(40)],
        charttime=["2150-01-01 10:00:00"] * 40,
        hospital_expire_flag=alternating(1, 0),
        sex=alternating("F", "M"),
    )
    source = found.recipe.prepare.source
    columns = source.columns
    assert (columns.text, columns.note_id, columns.patient_id, columns.time) == (
        "body",
        "Note_ID",
        "SUBJECT_ID",
        "charttime",
    )
    assert [(task.name, task.kind, task.positive) for task in source.tasks] == [
        ("hospital_expire_flag", "binary", "1")
    ]
    assert found.remarks == ("--outcome would predict these too: sex.",)
    assert "sex" not in found.uses


@pytest.mark.parametrize(
    ("words", "is_split"),
    [(("Train", "TEST"), True), (("train", "dev"), False), (("a", "b"), False)],
)
def test_a_column_that_splits_the_notes_is_used_so(drafted, words, is_split):
    ids = [f"n{row}" for row in range(40)]
    found = drafted(note_id=ids, died=alternating(1, 0), part=alternating(*words))
    assert (found.uses.get("part") == "split") == is_split
    assert found.recipe.prepare.split.kind == ("column" if is_split else "fractions")


def test_the_text_is_the_recipe(drafted, tmp_path):
    found = drafted(died=alternating("yes", "no"))
    (tmp_path / "ours.yaml").write_text(found.text)
    assert config.load(Recipe, tmp_path / "ours.yaml") == found.recipe
    assert found.text.startswith("# No column names the patient")
    assert yaml.safe_load(found.text) == found.keys


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (alternating(True, False), {"kind": "binary"}),
        (alternating("No", "Yes"), {"kind": "binary", "positive": "Yes", "negative": "No"}),
        (
            alternating("home", "ward"),
            {"kind": "binary", "positive": "home", "negative": "ward", "classes": ["home"]},
        ),
        ([f"class {row % 3}" for row in range(40)], {"kind": "multiclass"}),
        ([["I10"] if row % 2 else [] for row in range(40)], {"kind": "multilabel"}),
        (
            [f"a{row};b{row % 7};c{row}{row}{row}" * 8 for row in range(40)],
            {"kind": "multilabel", "separator": ";"},
        ),
    ],
)
def test_the_kind_of_an_outcome_follows_from_its_values(drafted, cells, expected):
    found = drafted(Choices(text="body", outcomes={"outcome": None}), outcome=cells)
    (task,) = found.keys["prepare"]["source"]["tasks"]
    assert task == {"name": "outcome", "column": "outcome", **expected}
    assert found.recipe


@pytest.mark.parametrize(
    ("choices", "columns", "said"),
    [
        (
            Choices(),
            {"sex": alternating("F", "M")},
            "name it with --outcome COLUMN. It could be sex",
        ),
        (Choices(), {}, "no column seems to be an outcome"),
        (Choices(outcomes={"nope": None}), {}, "there is no column nope; the columns are body"),
        (Choices(outcomes={"body": None}), {}, "column body holds text; an outcome has 2 to"),
        (Choices(text="died"), {"died": alternating(1, 0)}, "no column seems to be an outcome"),
        (
            Choices(outcomes={"unit": "binary"}),
            {"unit": [f"{row % 3}" for row in range(40)]},
            "column unit holds 3 values; a binary outcome has two",
        ),
    ],
)
def test_what_cannot_be_told_is_asked(drafted, choices, columns, said):
    with pytest.raises(ConfigError) as error:
        drafted(choices, **columns)
    assert said in str(error.value)


def test_a_table_without_long_texts_asks_for_the_text(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("a,died\nshort,1\nbrief,0\nsmall,0\n")
    with pytest.raises(ConfigError, match="name it with --text COLUMN"):
        draft(path, survey(path), Choices(), "ours", "tiny")
