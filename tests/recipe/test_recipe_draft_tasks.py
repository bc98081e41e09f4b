"""A drafted recipe says what kind of outcome a column holds, or asks."""

import unicodedata

import pytest
from draft_tables import DAYS, alternating, drafts_in

from notetune import sources
from notetune.errors import ConfigError
from notetune.recipe.draft import Choices


@pytest.fixture
def drafted(tmp_path):
    return drafts_in(tmp_path)


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


def test_an_answer_in_brackets_makes_no_lists_of_an_outcome(drafted):
    cells = ["[unclear]", *alternating("1", "0")[1:]]
    with pytest.raises(ConfigError, match="column died holds text; an outcome has 2 to"):
        drafted(Choices(outcomes={"died": None}), died=cells)


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["I10;E11", "E11", "J18;I10", "J18;E11;N17", "N17"], ";"),
        (["I10, E11", "J18"], ","),
        (["401|250", "250", "401", "401|428"], "|"),
        (["pain; fever", "fever", "cough; pain", "cough"], ";"),
    ],
)
def test_labels_that_come_back_in_other_company_are_no_classes(drafted, cells, separator):
    found = drafted(icd_codes=(cells * 40)[:40])
    (task,) = found.recipe.prepare.source.tasks
    assert (task.kind, task.separator) == ("multilabel", separator)
    assert f"icd_codes: labels are taken to stand between {separator!r}." in found.remarks


@pytest.mark.parametrize(
    "cells",
    [
        ["Pain, chest", "Pain, back", "Stroke", "Fever, of unknown origin"],
        ["36,5", "37,5", "36,2", "37,2"],
        ["ward;", "ICU;", "home;", "hospice;"],
    ],
)
def test_words_with_a_comma_stay_classes_and_the_way_out_is_said(drafted, cells):
    found = drafted(outcome=cells * 10)
    (task,) = found.recipe.prepare.source.tasks
    assert (task.kind, task.separator) == ("multiclass", None)
    assert found.remarks[-1].startswith("outcome: each cell is taken for one class. If ")
    said = drafted(Choices(outcomes={"outcome": "multiclass"}), outcome=cells * 10).remarks
    assert not any("for one class" in remark for remark in said)


def test_arrays_of_postgres_are_no_outcome_and_how_to_export_them_is_said(drafted):
    cells = ["{I10,E11}", "{I10}", "{}", "{E11,J18}"] * 10
    said = "icd_codes: arrays in braces, as Postgres prints them, are not read; export the column"
    found = drafted(icd_codes=cells, died=alternating(1, 0))
    assert [task.name for task in found.recipe.prepare.source.tasks] == ["died"]
    assert found.remarks[-1].startswith(said)
    for choices in (Choices(), Choices(outcomes={"icd_codes": "multilabel"})):
        with pytest.raises(ConfigError, match=said):
            drafted(choices, icd_codes=cells)


@pytest.mark.parametrize(
    ("first", "second", "positive"),
    [
        ("died", "survived", "died"),
        ("dead", "alive", "dead"),
        ("survived", "lost", "survived"),
        ("2", "1", "2"),
        ("yes", "unknown", "yes"),
        ("negative", "positive", "positive"),
    ],
)
def test_a_class_is_named_by_the_value_that_counts_where_it_says_neither_yes_nor_no(
    drafted, first, second, positive
):
    found = drafted(Choices(outcomes={"survived": None}), survived=alternating(first, second))
    (task,) = found.recipe.prepare.source.tasks
    negative = second if positive == first else first
    assert (task.positive, task.negative, task.classes) == (positive, negative, (positive,))
    said = f"survived: {positive!r} counts as positive, {negative!r} as negative. To turn it, swap"
    assert sum(remark.startswith(said) for remark in found.remarks) == 1


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("TRUE", "False"), ("Y", "n"), ("1.0", "0.0"), ("J", "N"), ("sì", "no"), ("t", "f")],
)
def test_a_column_that_says_yes_or_no_is_named_by_itself_without_a_remark(
    drafted, positive, negative
):
    for pair in ((positive, negative), (negative, positive)):
        found = drafted(died=alternating(*pair))
        (task,) = found.recipe.prepare.source.tasks
        assert (task.positive, task.negative, task.classes) == (positive, negative, None)
        assert not any("counts as positive" in remark for remark in found.remarks)


def test_answers_are_told_in_every_unicode_form(drafted):
    no = unicodedata.normalize("NFD", "não")
    source = drafted(died=["sim", no, no, no] * 10).recipe.prepare.source
    assert (source.tasks[0].positive, source.tasks[0].negative) == ("sim", "não")
    assert sources.read(source).tasks[0][1].height == 40


def test_outcomes_whose_names_would_be_the_same_are_numbered(drafted):
    names = ("Died (30 d)", "died_30_d", "死亡", "入院")
    found = drafted(Choices(outcomes=dict.fromkeys(names)), **{n: alternating(1, 0) for n in names})
    tasks = {task.name: task.column for task in found.recipe.prepare.source.tasks}
    assert tasks == dict(
        zip(("died_30_d", "died_30_d-2", "outcome", "outcome-2"), names, strict=True)
    )


@pytest.mark.parametrize(
    ("cells", "positive", "negative", "labels"),
    [
        (["Yes", "No", "NO", "yes"], ("Yes", "yes"), None, [1, 0, 0, 1]),
        (["TRUE", "False", "False", "true"], ("TRUE", "true"), "False", [1, 0, 0, 1]),
        (["Died", "lived", "Lived", "lived"], "Died", None, [1, 0, 0, 0]),
        (["Yes", "No", "Unknown", "unknown"], "Yes", "No", [1, 0, None, None]),
        (["Ja", "Nein", "k.A.", "Nein"], "Ja", "Nein", [1, 0, None, 0]),
    ],
)
def test_answers_in_any_case_and_words_that_are_none_are_read_so(
    drafted, cells, positive, negative, labels
):
    found = drafted(died=cells * 10)
    source = found.recipe.prepare.source
    (task,) = source.tasks
    assert (task.kind, task.positive, task.negative) == ("binary", positive, negative)
    read = {
        int(row["note_id"].split("-")[1]) - 1: len(row["labels"])
        for row in sources.read(source).tasks[0][1].to_dicts()
    }
    assert [read.get(row) for row in range(4)] == labels
    words = [word for word, label in zip(cells, labels, strict=True) if label is None]
    for word in words:
        assert any(f"{word!r}" in said and "no value" in said for said in found.remarks)
    if not words:
        assert any(f"died: {cells[0]!r}" in said for said in found.remarks)


def test_a_third_value_is_no_answer_where_one_says_that_there_are_two(drafted):
    cells = (["yes", "no", "sometimes"] * 14)[:40]
    (task,) = drafted(died=cells).recipe.prepare.source.tasks
    assert task.kind == "multiclass"
    source = drafted(Choices(outcomes={"died": "binary"}), died=cells).recipe.prepare.source
    assert (source.tasks[0].kind, source.missing[-1]) == ("binary", "sometimes")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["0", "1", "9"], "died: two of its 3 values say yes and no. For a binary task, empty"),
        (["yes", "no", "at times"], "died: two of its 3 values say yes and no. For a binary"),
        (["mild", "Mild", "some", "none"], "died: some classes differ by letter case alone; write"),
        (["0", "1", "2"], None),
        (["mild", "some", "none"], None),
    ],
)
def test_what_to_check_of_classes_is_said(drafted, cells, said):
    found = drafted(died=(cells * 40)[:40])
    assert found.recipe.prepare.source.tasks[0].kind == "multiclass"
    assert [remark for remark in found.remarks if remark.startswith("died:")] == (
        [remark for remark in found.remarks if remark.startswith(said)] if said else []
    )
    assert len(found.remarks) == (2 if said else 1)


def test_a_class_that_looks_like_an_empty_cell_is_told(drafted):
    found = drafted(outcome=(["None", "Mild", "Severe", "None"] * 10))
    said = (
        "outcome: 20 of the first 40 notes have no value, 'None' among them; where that is a class"
    )
    assert found.remarks[-1].startswith(said)


def test_notes_without_a_label_are_left_out_of_its_task_and_that_is_said(drafted):
    found = drafted(died=[None, *alternating("ja", "nein")[1:]])
    assert found.recipe.prepare.source.policy == "quarantine"
    (task,) = found.recipe.prepare.source.tasks
    assert (task.positive, task.negative) == ("ja", "nein")
    assert found.remarks[-1].startswith("died: 1 of the first 40 notes have no value. `policy:")
    assert drafted(died=alternating(1, 0)).recipe.prepare.source.policy == "strict"


def test_times_are_no_outcome(drafted):
    with pytest.raises(ConfigError, match="no column seems to be an outcome"):
        drafted(date_of_death=DAYS)
    with pytest.raises(ConfigError, match="column date_of_death holds times; an outcome has"):
        drafted(Choices(outcomes={"date_of_death": None}), date_of_death=DAYS)
