"""Tables of notes with outcomes in their columns: what they become, and what is refused."""

import json
import os
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from table_of_letters import (
    CANARY,
    HEADER,
    ROWS,
    cohort_of,
    labels_of,
    source_of,
)

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.outcomes import label_matrix
from notetune.sources import read
from notetune.sources.cohort import NOTES_SCHEMA
from notetune.sources.tables.source import TableSource

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
WARD_HEADER = "id,patient,age,sex,ward,text\n"
COLUMNS = {"text": "text", "note_id": "id", "patient_id": "patient"}


def test_a_table_becomes_notes_tasks_and_a_flow(tmp_path):
    cohort = cohort_of(tmp_path, source="letter")
    assert dict(cohort.notes.schema) == NOTES_SCHEMA
    assert cohort.notes["note_id"].to_list() == ["007", "008", "009"]
    assert cohort.notes["patient_id"].to_list() == ["1", "1", "2"]
    assert cohort.notes["source"].unique().to_list() == ["letter"]
    assert cohort.notes["time"].to_list() == [
        datetime.fromisoformat("2150-01-02 03:04:05"),
        None,
        datetime.fromisoformat("2150-01-02 23:00:00"),
    ]
    assert cohort.notes["text"][0] == f"{CANARY} one\nline two"
    assert labels_of(cohort) == {
        "sites": {"007": ["heart", "lung"], "008": ["lung"], "009": ["heart"]},
        "death": {"007": ["death"], "008": [], "009": []},
        "grade": {"007": ["low"], "008": ["high"], "009": ["low"]},
    }
    assert [task.classes for task, _ in cohort.tasks] == [
        ("heart", "lung"),
        ("death",),
        ("high", "low"),
    ]
    assert cohort.flow[0] == FlowCount("notes", 3, 3, {})
    assert [flow.stage for flow in cohort.flow] == [
        "notes",
        "task sites",
        "task death",
        "task grade",
    ]


def test_without_ids_notes_are_named_by_line_and_each_is_its_own_patient(tmp_path):
    cohort = cohort_of(tmp_path, columns={"text": "text"})
    assert cohort.notes["note_id"].to_list() == ["note-2", "note-4", "note-5"]
    assert cohort.notes["patient_id"].to_list() == ["note-2", "note-4", "note-5"]
    stage = "no patient id: each note counts as its own patient"
    assert FlowCount(stage, 3, 3, {}) in cohort.flow


ALWAYS_WRONG = {
    "text for a label": (
        f"010,3,,0,{CANARY * 20},lung,x\n",
        {},
        "line 6: column grade holds a label over 120 characters",
    ),
    "text for an id": (f"{CANARY * 20},3,,0,low,lung,x\n", {}, "line 6: the note id in column id"),
    "open quote": (f'010,3,,0,low,lung,"{CANARY}\n', {}, "line 6: a quote opens here and never"),
    "missing column": (
        f"010,3,,0,low,lung,{CANARY}\n",
        {"columns": {"text": "body"}},
        "line 1: no column 'body'",
    ),
    "one class only": (
        f"010,3,,0,low,lung,{CANARY}\n",
        {"tasks": [{"name": "p", "kind": "multiclass", "column": "p"}]},
        "line 1: no column 'p'",
    ),
}


@pytest.mark.parametrize("case", ALWAYS_WRONG)
@pytest.mark.parametrize("policy", ["strict", "quarantine"])
def test_a_wrong_column_or_an_open_quote_stops_under_every_policy(tmp_path, case, policy):
    row, changes, expected = ALWAYS_WRONG[case]
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, HEADER + ROWS + row, policy=policy, **changes)
    assert f"{tmp_path / 'notes.csv'}, {expected}" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_merging_unites_multilabel_notes_of_one_patient_and_never_of_two(tmp_path):
    content = HEADER + (
        "1,1,,0,low,lung,Same text\n"
        "2,1,,0,low,heart,Same text \n"
        "3,2,,0,low,skin,Same text\n"
        "4,1,,0,low,heart,Same text\n"
        "5,1,,1,high,skin,Other\n"
    )
    cohort = cohort_of(tmp_path, content, duplicate_texts="merge")
    assert labels_of(cohort)["sites"] == {"1": ["heart", "lung"], "3": ["skin"], "5": ["skin"]}
    merge = FlowCount("merge of equal texts", 5, 3, {"same text as an earlier note": 2})
    assert merge in cohort.flow
    assert cohort_of(tmp_path, content).notes.height == 5


def test_merging_notes_that_disagree_on_one_answer_stops(tmp_path):
    content = HEADER + f"1,1,,0,low,lung,{CANARY}\n2,1,,1,low,lung,{CANARY}\n"
    with pytest.raises(DataError, match="notes 1 and 2 have the same text and different") as caught:
        cohort_of(tmp_path, content, duplicate_texts="merge")
    assert CANARY not in str(caught.value)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "mtsamples").is_dir(), reason="open data not found")
def test_mtsamples_has_the_published_counts():
    source = source_of(
        DATA / "mtsamples" / "mtsamples.csv.gz",
        columns={"text": "transcription", "note_id": "note_id"},
        tasks=[{"name": "specialty", "kind": "multilabel", "column": "medical_specialty"}],
        duplicate_texts="merge",
        policy="quarantine",
        max_rejected_share=0.01,
    )
    cohort = read(source)
    assert cohort.flow[0] == FlowCount("notes", 4_999, 4_966, {"empty text": 33})
    assert cohort.rejections["reason"].to_list() == ["empty text"] * 33
    assert cohort.notes.height == 2_357
    ((task, table),) = cohort.tasks
    assert len(task.classes) == 40
    labels_per_note = label_matrix(task, table).sum(axis=1)
    assert (labels_per_note > 1).sum() == 2_148
    assert labels_per_note.sum() <= 4_966


def with_columns(path, **changes):
    values = {"kind": "table", "path": path, "columns": COLUMNS, "features": ["sex", "age"]}
    return read(config.parse(TableSource, values | changes, "recipe"))


def written(folder, rows):
    (folder / "notes.csv").write_text(WARD_HEADER + rows)
    return folder / "notes.csv"


def test_columns_beside_the_text_come_as_text_with_each_note(tmp_path):
    rows = "007,1, 7.50 ,f,x,one\n008,1,,m,x,two\n009,2,81,,x,three\n"
    cohort = with_columns(written(tmp_path, rows))
    assert cohort.columns.columns == ["note_id", "sex", "age"]
    assert cohort.columns.rows() == [("007", "f", "7.50"), ("008", "m", None), ("009", None, "81")]
    assert with_columns(written(tmp_path, rows), features=[]).columns is None


def test_numbers_of_other_formats_are_spelled_as_in_csv(tmp_path):
    values = [7, 81.0, 2.5, float("nan"), True]
    lines = [
        {"id": str(number), "patient": "1", "text": f"note {number}", "age": value, "sex": None}
        for number, value in enumerate(values)
    ]
    path = tmp_path / "notes.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = with_columns(path).columns
    assert found["age"].to_list() == ["7", "81", "2.5", None, "1"]
    pl.DataFrame(
        {**pl.DataFrame(lines[:4]).to_dict(), "age": [7.0, 81.0, 2.5, None]}
    ).write_parquet(tmp_path / "notes.parquet")
    found = with_columns(tmp_path / "notes.parquet").columns
    assert found["age"].to_list() == ["7", "81", "2.5", None]


def test_a_row_that_is_left_out_has_no_columns(tmp_path):
    rows = "007,1,7,f,x,one\n008,1,8,m,x,\n"
    cohort = with_columns(written(tmp_path, rows), policy="quarantine", max_rejected_share=0.5)
    assert cohort.columns["note_id"].to_list() == ["007"]


@pytest.mark.parametrize("cell", [f"{CANARY} " * 20, f'"{CANARY}\nx"'])
def test_a_column_of_text_is_no_feature_and_is_not_shown(tmp_path, cell):
    with pytest.raises(DataError) as caught:
        with_columns(written(tmp_path, f"007,1,7,{cell},x,one\n"))
    assert "column sex" in str(caught.value) or "control characters" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_feature_that_the_table_lacks_is_named(tmp_path):
    with pytest.raises(DataError, match="height"):
        with_columns(written(tmp_path, "007,1,7,f,x,one\n"), features=["height"])
