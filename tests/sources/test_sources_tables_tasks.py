"""Outcomes from a column of the table."""

import json

import pytest
from table_of_letters import (
    CANARY,
    DEATH,
    GRADE,
    HEADER,
    LENIENT,
    ROWS,
    SITES,
    cohort_of,
    labels_of,
    source_of,
)

from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.sources import read


def test_a_missing_label_stops_or_leaves_the_note_without_the_task(tmp_path):
    content = HEADER + ROWS + f"010,3,,,low,,{CANARY}\n"
    with pytest.raises(DataError, match=r"notes\.csv, line 6: missing label of task sites; fill"):
        cohort_of(tmp_path, content)
    cohort = cohort_of(tmp_path, content, policy="quarantine")
    assert [table.height for _, table in cohort.tasks] == [3, 3, 4]
    assert FlowCount("task death", 4, 3, {"missing label": 1}) in cohort.flow
    assert cohort.notes.height == 4


def test_an_empty_list_is_an_answer_and_null_is_none(tmp_path):
    lines = [
        {"text": "a", "sites": []},
        {"text": "b", "sites": None},
        {"text": "c", "sites": ["x"]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cohort = read(
        source_of(tmp_path / "a.jsonl", columns={"text": "text"}, tasks=[SITES], **LENIENT)
    )
    assert labels_of(cohort)["sites"] == {"note-1": [], "note-3": ["x"]}


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['I10', 'E11.9']", ["E11.9", "I10"]),
        ('["I10"]', ["I10"]),
        ("[I10, E11]", ["E11", "I10"]),
        ("[]", []),
        ("[ 'heart failure', ]", ["heart failure"]),
        ("[401, 250]", ["250", "401"]),
        ("I10;E11", ["E11", "I10"]),
    ],
)
def test_a_list_printed_into_a_cell_is_that_list(tmp_path, cell, labels):
    content = HEADER + f'007,1,,0,low,"{cell.replace(chr(34), chr(34) * 2)}",{CANARY}\n'
    content += f"008,1,,0,low,lung,{CANARY}\n"
    found = labels_of(cohort_of(tmp_path, content, tasks=[SITES]))["sites"]
    assert found == {"007": labels, "008": ["lung"]}


@pytest.mark.parametrize(
    ("cell", "labels"),
    [("['I10', None]", ["I10"]), ("I10;NULL", ["I10"]), ("[nan]", []), (";;", None), ("; ", None)],
)
def test_words_for_missing_are_no_labels_and_separators_alone_no_answer(tmp_path, cell, labels):
    content = HEADER + f'007,1,,0,low,"{cell}",{CANARY}\n008,1,,0,low,lung,{CANARY}\n'
    found = labels_of(cohort_of(tmp_path, content, tasks=[SITES], **LENIENT))["sites"]
    assert found == {"008": ["lung"], **({} if labels is None else {"007": labels})}


def test_an_outcome_is_no_feature(tmp_path):
    with pytest.raises(ConfigError, match="features: column DIED is the outcome of task death"):
        source_of(tmp_path / "notes.csv", features=["grade", "DIED"], tasks=[DEATH])


@pytest.mark.parametrize("cell", ["['I10' 'E11']", "['I10', 'E11'", "[0, 0, 1]", "[['I10']]"])
def test_what_only_looks_like_a_list_of_labels_is_refused(tmp_path, cell):
    content = HEADER + f'007,1,,0,low,"{cell}",{CANARY}\n'
    with pytest.raises(DataError, match="line 2: no list of labels of task sites; write names"):
        cohort_of(tmp_path, content, tasks=[SITES])


def test_words_for_missing_mean_missing_and_a_key_changes_them(tmp_path):
    content = HEADER + ROWS + f"010,3,NaT,NA,None,NULL,{CANARY}\n"
    cohort = cohort_of(tmp_path, content, **LENIENT)
    assert [table.height for _, table in cohort.tasks] == [3, 3, 3]
    excel = HEADER + ROWS + f"010,3,#N/A,N/A,n/a,,{CANARY}\n"
    assert [table.height for _, table in cohort_of(tmp_path, excel, **LENIENT).tasks] == [3, 3, 3]
    grades = labels_of(cohort_of(tmp_path, content, tasks=[GRADE], missing=["NaT"]))["grade"]
    assert grades["010"] == ["None"]


def test_a_missing_id_is_no_patient(tmp_path):
    for column in ("id", "patient"):
        row = {"id": "010", "patient": "3", column: "NULL"}
        content = HEADER + ROWS + f"{row['id']},{row['patient']},,0,low,lung,{CANARY}\n"
        with pytest.raises(DataError, match="line 6: missing"):
            cohort_of(tmp_path, content)


def test_the_first_characters_of_codes_are_their_categories(tmp_path):
    lines = [
        {"text": "a", "sites": ["i10", "e11.9", "e11.2"]},
        {"text": "b", "sites": ["i10.1"]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = SITES | {"first_characters": 3}
    cohort = read(source_of(tmp_path / "a.jsonl", columns={"text": "text"}, tasks=[task]))
    assert labels_of(cohort)["sites"] == {"note-1": ["e11", "i10"], "note-2": ["i10"]}


def labels_in_lines(folder, cells, **task):
    """The labels of a task whose column holds these cells of JSON lines."""
    lines = (json.dumps({"text": f"{CANARY} {n}", "x": cell}) for n, cell in enumerate(cells))
    (folder / "a.jsonl").write_text("\n".join(lines))
    task = {"name": "t", "column": "x"} | task
    columns = {"text": "text"}
    cohort = read(source_of(folder / "a.jsonl", columns=columns, tasks=[task], **LENIENT))
    ((found, table),) = cohort.tasks
    return found.classes, table["labels"].to_list()


def test_borders_make_classes_of_numbers_and_belong_to_the_class_below(tmp_path):
    cells = [3, "3.5", 7, 7.01, -1, None]
    task = {"kind": "multiclass", "borders": [3, 7.0]}
    classes, labels = labels_in_lines(tmp_path, cells, **task)
    assert classes == ("<=3", "3-7", ">7")
    assert labels == [["<=3"], ["3-7"], ["3-7"], [">7"], ["<=3"]]
    names = ["short", "middle", "long"]
    classes, labels = labels_in_lines(tmp_path, cells, classes=names, **task)
    assert classes == tuple(names)
    assert labels[:2] == [["short"], ["middle"]]


def test_a_class_without_a_note_stands_between_borders_too(tmp_path):
    task = {"kind": "multiclass", "borders": [0.5, 1.25, 14]}
    classes, _ = labels_in_lines(tmp_path, [0, 20], **task)
    assert classes == ("<=0.5", "0.5-1.25", "1.25-14", ">14")


@pytest.mark.parametrize("cell", ["three", "inf", "1_0", [3]])
def test_what_is_no_number_has_no_place_between_borders(tmp_path, cell):
    with pytest.raises(DataError, match="1 label of task t is no number") as caught:
        labels_in_lines(tmp_path, [cell], kind="multiclass", borders=[3])
    assert "three" not in str(caught.value)


def test_several_cells_can_be_positive_and_all_others_negative(tmp_path):
    cells = ["exp", "20", "home", None, ["home", "exp"], ["home"], []]
    task = {"kind": "binary", "positive": ["exp", "20"], "negative": None}
    assert labels_in_lines(tmp_path, cells, **task)[1] == [["t"], ["t"], [], ["t"], []]
    with pytest.raises(DataError, match="label of task t is neither positive nor negative"):
        labels_in_lines(tmp_path, [["home", "aadvice"]], **task | {"negative": "home"})


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": [DEATH | {"borders": [1]}]},
        {"tasks": [GRADE | {"borders": []}]},
        {"tasks": [GRADE | {"borders": [2, 1]}]},
        {"tasks": [GRADE | {"borders": [1, 1]}]},
        {"tasks": [GRADE | {"borders": [1], "classes": ["low"]}]},
        {"tasks": [DEATH | {"positive": ["1", "0"]}]},
        {"tasks": [DEATH | {"positive": []}]},
        {"tasks": [DEATH, DEATH]},
        {"tasks": [DEATH | {"separator": ";"}]},
        {"tasks": [DEATH | {"classes": ["a", "b"]}]},
        {"tasks": [DEATH | {"positive": "0"}]},
        {"tasks": [DEATH | {"first_characters": 3}]},
        {"policy": "lenient"},
        {"columns": {"note_id": "id"}},
    ],
)
def test_an_impossible_recipe_is_refused(tmp_path, change):
    with pytest.raises(ConfigError):
        source_of(tmp_path / "a.csv", **change)


def test_a_multiclass_column_with_one_value_is_named_with_its_file(tmp_path):
    with pytest.raises(DataError, match=r"notes\.csv, column died: task x: 1 classes for a multi"):
        cohort_of(
            tmp_path,
            HEADER + ROWS.replace(",1,low", ",0,low"),
            tasks=[{"name": "x", "kind": "multiclass", "column": "died"}],
        )
