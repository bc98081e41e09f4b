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


@pytest.mark.parametrize("cell", ["['I10' 'E11']", "['I10', 'E11'", "[0, 0, 1]", "[['I10']]"])
def test_what_only_looks_like_a_list_of_labels_is_refused(tmp_path, cell):
    content = HEADER + f'007,1,,0,low,"{cell}",{CANARY}\n'
    with pytest.raises(DataError, match="line 2: no list of labels of task sites; write names"):
        cohort_of(tmp_path, content, tasks=[SITES])


def test_words_for_missing_mean_missing_and_a_key_changes_them(tmp_path):
    content = HEADER + ROWS + f"010,3,NaT,NA,None,NULL,{CANARY}\n"
    cohort = cohort_of(tmp_path, content, **LENIENT)
    assert [table.height for _, table in cohort.tasks] == [3, 3, 3]
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


@pytest.mark.parametrize(
    "change",
    [
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
