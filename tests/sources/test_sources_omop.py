from datetime import datetime

import polars as pl
import pytest

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.sources import read
from notetune.sources.omop import OmopSource

CANARY = "zygomorphic"
HEADER = (
    "note_id,person_id,note_date,note_datetime,note_type_concept_id,note_class_concept_id,"
    "note_title,note_text,visit_occurrence_id\n"
)
ROWS = (
    f'1,07,2150-01-02,2150-01-02 08:30:00,32831,706391,Summary,"{CANARY}\r\none",11\n'
    f"2,07,2150-01-03,,44814645,0,,{CANARY} two,12\n"
    f"3,08,2150-01-04,,32831,0,Letter,{CANARY} three,\n"
)


def source_of(path, **changes):
    return config.parse(OmopSource, {"kind": "omop", "path": path} | changes, "recipe")


def cohort_of(folder, content=HEADER + ROWS, name="note.csv", **changes):
    (folder / name).write_text(content, newline="")
    return read(source_of(folder / name, **changes))


def test_a_note_table_becomes_notes_with_datetime_or_else_date(tmp_path):
    cohort = cohort_of(tmp_path)
    assert cohort.notes.rows() == [
        ("1", "07", "11", "note", datetime(2150, 1, 2, 8, 30), f"{CANARY}\none"),  # noqa: DTZ001
        ("2", "07", "12", "note", datetime(2150, 1, 3), f"{CANARY} two"),  # noqa: DTZ001
        ("3", "08", None, "note", datetime(2150, 1, 4), f"{CANARY} three"),  # noqa: DTZ001
    ]
    assert cohort.flow == (FlowCount("notes", 3, 3),)


def test_upper_case_tables_and_parquet_give_the_same(tmp_path):
    expected = cohort_of(tmp_path)
    upper = cohort_of(tmp_path, HEADER.upper() + ROWS, name="NOTE.CSV")
    assert upper.notes.equals(expected.notes)
    frame = pl.DataFrame(
        {
            "NOTE_ID": [1, 2, 3],
            "PERSON_ID": ["07", "07", "08"],
            "NOTE_DATE": expected.notes["time"].dt.date(),
            "NOTE_DATETIME": [expected.notes["time"][0], None, None],
            "NOTE_TEXT": expected.notes["text"],
            "VISIT_OCCURRENCE_ID": [11.0, 12.0, None],
        }
    )
    frame.write_parquet(tmp_path / "note.parquet")
    assert read(source_of(tmp_path / "note.parquet")).notes.equals(expected.notes)
    frame.drop("NOTE_DATETIME").write_parquet(tmp_path / "note.parquet")
    days = read(source_of(tmp_path / "note.parquet")).notes["time"]
    assert days.to_list() == expected.notes["time"].dt.truncate("1d").to_list()
    frame.drop("VISIT_OCCURRENCE_ID").write_parquet(tmp_path / "note.parquet")
    assert read(source_of(tmp_path / "note.parquet")).notes["stay_id"].null_count() == 3


@pytest.mark.parametrize(
    ("changes", "sources"),
    [
        ({"grouped_by": "note_type_concept_id"}, ["32831", "44814645", "32831"]),
        (
            {"grouped_by": "note_type_concept_id", "groups": {"32831": "discharge"}},
            ["discharge", "44814645", "discharge"],
        ),
        ({"grouped_by": "note_title"}, ["summary", "note", "letter"]),
    ],
)
def test_notes_are_grouped_by_a_column_on_request(tmp_path, changes, sources):
    assert cohort_of(tmp_path, **changes).notes["source"].to_list() == sources


def test_a_title_that_is_a_text_is_not_taken_for_a_group(tmp_path):
    content = HEADER + ROWS.replace("Letter", CANARY * 20)
    with pytest.raises(DataError, match="line 5: column note_title has over 120") as caught:
        cohort_of(tmp_path, content, grouped_by="note_title")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "rows", "expected"),
    [
        ("note_id", "1,0\n2,1\n3,1\n", {"1": [], "2": ["death"], "3": ["death"]}),
        ("person_id", "07,1\n99,0\n", {"1": ["death"], "2": ["death"]}),
        ("visit_occurrence_id", "11,1\n12,0\n", {"1": ["death"], "2": []}),
    ],
)
def test_labels_come_per_note_person_or_visit(tmp_path, column, rows, expected):
    (tmp_path / "labels.csv").write_text(f"{column},died\n{rows}")
    labels = {"path": tmp_path / "labels.csv", "id_column": column, "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": column, "labels": labels}
    ((_, table),) = cohort_of(tmp_path, tasks=[task]).tasks
    assert dict(table.iter_rows()) == expected


def test_the_table_of_deaths_says_who_died_and_absence_who_did_not(tmp_path):
    (tmp_path / "death.csv").write_text(
        "person_id,death_date,death_datetime,death_type_concept_id,cause_concept_id\n"
        "08,2150-02-01,2150-02-01 03:00:00,32817,0\n"
        "08,2150-02-01,,32815,4306655\n"
        "99,2150-03-01,,32817,0\n"
    )
    labels = {"path": tmp_path / "death.csv", "id_column": "person_id", "absent": "negative"}
    task = {"name": "death", "kind": "binary", "column": "person_id", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task])
    ((found, table),) = cohort.tasks
    assert found.classes == ("death",)
    assert dict(table.iter_rows()) == {"1": [], "2": [], "3": ["death"]}
    assert cohort.flow == (
        FlowCount("notes", 3, 3),
        FlowCount("rows of the table for task death", 3, 2, {"same as an earlier row": 1}),
        FlowCount(
            "ids of the table for task death; 1 others count as negative", 2, 1, {"no such note": 1}
        ),
        FlowCount("task death", 3, 3, {"missing label": 0}),
    )
    labels = {"path": tmp_path / "death.csv", "id_column": "person_id", "label_column": "person_id"}
    task |= {"labels": labels, "negative": None, "prediction_time": "death_datetime"}
    with pytest.raises(DataError, match="another label of task death or another prediction time"):
        cohort_of(tmp_path, tasks=[task])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"1,07,2150-01-02,,1,0,,{CANARY},\n", "note id repeated with another text"),
        (f",07,2150-01-02,,1,0,,{CANARY},\n", "missing note id"),
        (f"4,,2150-01-02,,1,0,,{CANARY},\n", "missing patient id"),
        (f"4,07,{CANARY},,1,0,,{CANARY},\n", "unreadable time"),
        (f"4,07,2150-01-02,,\a,0,,{CANARY},\n", "control characters in column note_type"),
        ("4,07,2150-01-02,,1,0,,,\n", "empty text"),
        (f"4,07,2150-01-02,,1,0,{CANARY},\n", "short row"),
    ],
)
def test_a_bad_row_stops_or_is_counted(tmp_path, row, reason):
    grouped = {"grouped_by": "note_type_concept_id"}
    with pytest.raises(DataError, match=f"line 6: {reason}") as caught:
        cohort_of(tmp_path, HEADER + ROWS + row, **grouped)
    assert CANARY not in str(caught.value)
    lenient = {"policy": "quarantine", "max_rejected_share": 0.25}
    cohort = cohort_of(tmp_path, HEADER + ROWS + row, **grouped, **lenient)
    ((found, count),) = cohort.flow[0].rejected.items()
    assert found.startswith(reason)
    assert (cohort.flow[0].read, cohort.flow[0].kept, count) == (4, 3, 1)
    assert cohort.rejections["line"].to_list() == [6]


def test_json_lines_and_unknown_columns_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not \.csv, \.csv\.gz or \.parquet"):
        cohort_of(tmp_path, "{}", name="note.jsonl")
    with pytest.raises(DataError, match="no column 'note_text'"):
        cohort_of(tmp_path, (HEADER + ROWS).replace("note_text", "body"))
    with pytest.raises(ConfigError):
        source_of(tmp_path, grouped_by="provider_id")
