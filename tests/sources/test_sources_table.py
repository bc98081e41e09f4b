import gzip
import json
import os
import re
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.notes.outcomes import label_matrix
from notetune.sources import Cohort, TableSource, read
from notetune.sources.cohort import NOTES_SCHEMA, TASK_SCHEMA

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
CANARY = "zygomorphic"
LENIENT = {"policy": "quarantine", "max_rejected_share": 0.5}
ALL = {"text": "text", "note_id": "id", "patient_id": "patient", "time": "time"}
SITES = {"name": "sites", "kind": "multilabel", "column": "sites", "separator": ";"}
DEATH = {"name": "death", "kind": "binary", "column": "died"}
GRADE = {"name": "grade", "kind": "multiclass", "column": "grade"}
HEADER = "id,patient,time,died,grade,sites,text\n"
ROWS = (
    f'007,1,2150-01-02 03:04:05,1,low,heart; lung,"{CANARY} one\r\nline two "\n'
    f"008,1,,0,high,lung,{CANARY} three\n"
    f"009,2,2150-01-03T00:00:00+01:00,0,low,heart,{CANARY} four\n"
)


def source_of(path, **changes):
    return config.parse(
        TableSource,
        {"kind": "table", "path": path, "columns": ALL, "tasks": [SITES, DEATH, GRADE]} | changes,
        "recipe",
    )


def cohort_of(folder, content=HEADER + ROWS, **changes):
    path = folder / "notes.csv"
    path.write_bytes(content.encode())
    return read(source_of(path, **changes))


def labels_of(cohort):
    return {task.name: dict(table.iter_rows()) for task, table in cohort.tasks}


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


def test_csv_gz_jsonl_and_parquet_give_the_same_cohort(tmp_path):
    expected = cohort_of(tmp_path)
    records = [
        {"id": "007", "patient": "1", "time": "2150-01-02T03:04:05", "died": True, "grade": "low"},
        {"id": "008", "patient": "1", "time": None, "died": 0, "grade": "high"},
        {"id": "009", "patient": "2", "time": "2150-01-02 23:00:00", "died": "0", "grade": "low"},
    ]
    rows = zip(
        records, [["heart", "lung"], ["lung"], ["heart"]], expected.notes["text"], strict=True
    )
    records = [record | {"sites": sites, "text": text} for record, sites, text in rows]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((HEADER + ROWS).encode()))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    frame = pl.DataFrame([record | {"died": int(record["died"])} for record in records])
    frame.with_columns(pl.col("time").str.to_datetime(strict=False)).write_parquet(
        tmp_path / "a.parquet"
    )
    for name in ("a.csv.gz", "a.jsonl", "a.parquet"):
        cohort = read(source_of(tmp_path / name))
        assert cohort.notes.equals(expected.notes), name
        assert labels_of(cohort) == labels_of(expected), name
        assert cohort.flow == expected.flow, name


def test_without_ids_notes_are_named_by_line_and_each_is_its_own_patient(tmp_path):
    cohort = cohort_of(tmp_path, columns={"text": "text"})
    assert cohort.notes["note_id"].to_list() == ["note-2", "note-4", "note-5"]
    assert cohort.notes["patient_id"].to_list() == ["note-2", "note-4", "note-5"]
    stage = "no patient id: each note counts as its own patient"
    assert FlowCount(stage, 3, 3, {}) in cohort.flow


# Row to add on line 6, changes to the source, what the strict policy says, the quarantine's reason.
FAULTY_ROWS = {
    "empty text": ("010,3,,0,low,lung,\n", {}, "empty text"),
    "text of white space": ('010,3,,0,low,lung," \t\r\n"\n', {}, "empty text"),
    "repeated id": (
        f"008,3,,0,low,lung,{CANARY}\n",
        {},
        "note id repeated with another text",
    ),
    "repeated row": (
        f"008,3,,0,low,lung,{CANARY} three\n",
        {},
        "note id repeated with the same text",
    ),
    "no id": (f",3,,0,low,lung,{CANARY}\n", {}, "missing note id"),
    "no patient": (f"010,,,0,low,lung,{CANARY}\n", {}, "missing patient id"),
    "no time": (f"010,3,{CANARY},0,low,lung,{CANARY}\n", {}, "unreadable time"),
    "control characters in an id": (
        f"0\x0710,3,,0,low,lung,{CANARY}\n",
        {},
        "control characters in column id",
    ),
    "unknown class": (
        f"010,3,,0,low,{CANARY},{CANARY}\n",
        {"tasks": [SITES | {"classes": ["heart", "lung"]}, DEATH, GRADE]},
        "unknown class of task sites",
    ),
    "not binary": (
        f"010,3,,{CANARY},low,lung,{CANARY}\n",
        {},
        "label of task death is neither positive nor negative",
    ),
    "short row": (f"010,3,,0,low,{CANARY}\n", {}, "short row"),
    "long row": (f"010,3,,0,low,lung,{CANARY},x\n", {}, "long row"),
    "blank line": ("\n", {}, "blank line"),
    "NUL byte": (f"010,3,,0,low,lung,{CANARY}\0\n", {}, "NUL byte"),
}


@pytest.mark.parametrize("case", FAULTY_ROWS)
def test_a_faulty_row_stops_with_file_line_and_remedy_or_is_counted(tmp_path, case):
    row, changes, reason = FAULTY_ROWS[case]
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, HEADER + ROWS + row, policy="strict", **changes)
    assert re.search(rf"{tmp_path / 'notes.csv'}, line 6: {reason}[:;(]?", str(caught.value))
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    cohort = cohort_of(tmp_path, HEADER + ROWS + row, **changes, **LENIENT)
    assert cohort.flow[0] == FlowCount("notes", 4, 3, {reason: 1})
    assert cohort.notes.equals(cohort_of(tmp_path).notes)
    ((file, line, note_id, why),) = cohort.rejections.iter_rows()
    assert (file, line, why) == (str(tmp_path / "notes.csv"), 6, reason)
    assert note_id in (None, "008", "010")


def test_quarantine_stops_above_its_share_and_says_what_is_wrong(tmp_path):
    faulty = HEADER + ROWS + f",3,,0,low,lung,{CANARY}\n" * 2 + f"010,3,,0,low,{CANARY}\n"
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, faulty, policy="quarantine", max_rejected_share=0.49)
    assert "3 of 6 rows cannot be used (2 missing note id, 1 short row; the first is" in str(
        caught.value
    )
    assert "line 6). That is 50.00% and at most 49.00% may be" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert cohort_of(tmp_path, faulty, policy="quarantine", max_rejected_share=0.5)
    with pytest.raises(DataError, match=r"at most 0\.10% may be"):
        cohort_of(tmp_path, faulty, policy="quarantine")


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


def test_the_first_characters_of_codes_are_their_categories(tmp_path):
    lines = [
        {"text": "a", "sites": ["i10", "e11.9", "e11.2"]},
        {"text": "b", "sites": ["i10.1"]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = SITES | {"first_characters": 3}
    cohort = read(source_of(tmp_path / "a.jsonl", columns={"text": "text"}, tasks=[task]))
    assert labels_of(cohort)["sites"] == {"note-1": ["e11", "i10"], "note-2": ["i10"]}


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


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", f'{{"text": "{CANARY}"\n', "line 1: not a JSON object in UTF-8"),
        ("a.jsonl", f'"{CANARY}"\n', "line 1: not a JSON object"),
        ("a.jsonl", f'{{"text": "a"}}\n{{"txt": "{CANARY}"}}\n', "line 2: no key text"),
        ("a.jsonl", f'{{"text": ["{CANARY}"]}}\n', "line 1: column text is not text"),
        ("a.jsonl", "[" * 100_000, "line 1: not a JSON object"),
        ("a.jsonl", "", "none of its 0 rows can be used"),
        ("a.jsonl", '{"text": ""}', "line 1: empty text"),
        ("a.parquet", CANARY, "is not a readable Parquet file"),
        ("a.jsonl.gz", CANARY, "is not compressed by gzip"),
        ("a.xlsx", CANARY, "is no .csv, .csv.gz, .jsonl, .jsonl.gz, .parquet"),
    ],
)
def test_a_damaged_file_of_another_format_stops(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read(source_of(tmp_path / name, columns={"text": "text"}, tasks=[]))
    assert problem in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} is (missing|not a file); check the path"):
        read(source_of(tmp_path / name))


def test_a_decimal_id_in_parquet_is_refused_since_its_zeros_are_lost(tmp_path):
    pl.DataFrame({"id": [7.0], "text": [CANARY]}).write_parquet(tmp_path / "a.parquet")
    columns = {"text": "text", "note_id": "id"}
    with pytest.raises(DataError, match=r"row 1: column id holds a float; store ids and labels"):
        read(source_of(tmp_path / "a.parquet", columns=columns, tasks=[]))
    with pytest.raises(DataError, match="no column other"):
        read(source_of(tmp_path / "a.parquet", columns=columns | {"time": "other"}, tasks=[]))


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


def test_a_flow_that_does_not_balance_cannot_exist():
    with pytest.raises(DataError, match="5 rows read, but 3 kept and 1 rejected"):
        FlowCount("notes", 5, 3, {"empty text": 1})


def test_a_cohort_checks_its_columns_ids_and_task_notes(tmp_path):
    cohort = cohort_of(tmp_path)
    (task, table), *_ = cohort.tasks
    with pytest.raises(DataError, match="columns"):
        Cohort(cohort.notes.drop("time"), (), ())
    with pytest.raises(DataError, match="a note id is given to two notes"):
        Cohort(pl.concat([cohort.notes, cohort.notes]), (), ())
    extra = pl.DataFrame({"note_id": ["999"], "labels": [["lung"]]}, schema=TASK_SCHEMA)
    with pytest.raises(DataError, match="1 labelled notes are not in the notes"):
        Cohort(cohort.notes, ((task, pl.concat([table, extra])),), ())


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
