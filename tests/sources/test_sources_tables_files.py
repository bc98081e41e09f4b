"""Files of every format give the same rows, and a damaged one stops."""

import gzip
import json
from decimal import Decimal

import polars as pl
import pytest
from table_of_letters import (
    CANARY,
    GRADE,
    HEADER,
    LENIENT,
    ROWS,
    cohort_of,
    labels_of,
    source_of,
)

from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.tables.files import names_in


def test_a_damaged_first_line_of_json_hides_no_column(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": \n{"id": 7.0, "text": "a"}\n{"id": 8, "text": "b"}\n')
    assert names_in(tmp_path / "a.jsonl") == ["id", "text"]
    columns = {"text": "text", "note_id": "id"}
    source = source_of(tmp_path / "a.jsonl", columns=columns, tasks=[], **LENIENT)
    assert read(source).notes["note_id"].to_list() == ["7", "8"]


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


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} is (missing|not a file); check the path"):
        read(source_of(tmp_path / name))


def test_an_id_in_parquet_that_is_no_whole_number_is_refused(tmp_path):
    pl.DataFrame({"id": [7.5], "text": [CANARY]}).write_parquet(tmp_path / "a.parquet")
    columns = {"text": "text", "note_id": "id"}
    with pytest.raises(DataError, match=r"row 1: column id holds a float; store ids and labels"):
        read(source_of(tmp_path / "a.parquet", columns=columns, tasks=[]))
    with pytest.raises(
        DataError, match=r"columns\.time: .*no column 'other' among 2; there are id, text"
    ):
        read(source_of(tmp_path / "a.parquet", columns=columns | {"time": "other"}, tasks=[]))


def test_whole_floats_and_decimals_of_parquet_are_whole_numbers(tmp_path):
    long = Decimal("12345678901234567890123")
    frame = pl.DataFrame(
        {
            "text": ["a", "b", "c"],
            "id": pl.Series([long, Decimal(8), Decimal(9)], dtype=pl.Decimal(38, 0)),
            "patient": [1.0, 2.0, 3.0],
            "died": [1.0, 0.0, float("nan")],
            "weight": pl.Series([Decimal("70.50"), None, Decimal(8)], dtype=pl.Decimal(6, 2)),
            "row number": [1, 2, 3],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    columns = {"text": "text", "note_id": "id", "patient_id": "patient"}
    task = {"name": "died", "kind": "binary", "column": "died"}
    features = {"features": ["weight", "row number"], "policy": "quarantine"}
    cohort = read(source_of(tmp_path / "a.parquet", columns=columns, tasks=[task], **features))
    assert cohort.notes["note_id"].to_list() == [str(long), "8", "9"]
    assert cohort.notes["patient_id"].to_list() == ["1", "2", "3"]
    assert labels_of(cohort) == {"died": {str(long): ["died"], "8": []}}
    assert cohort.columns["weight"].to_list() == ["70.5", None, "8"]
    assert cohort.columns["row number"].to_list() == ["1", "2", "3"]


@pytest.mark.parametrize("number", ["1.23457E+12", "1,23457E+12", "1E+12", "1.2e+12"])
@pytest.mark.parametrize("key", ["note_id", "patient_id", "stay_id"])
def test_an_id_that_a_spreadsheet_rounded_is_refused_by_its_column(tmp_path, key, number):
    (tmp_path / "a.csv").write_text(f"x;text\n{number};{CANARY}\n")
    columns = {"text": "text", key: "x"}
    said = r"a\.csv, line 2: column x holds a number with an exponent, .*; export its ids as text"
    with pytest.raises(DataError, match=said) as told:
        read(source_of(tmp_path / "a.csv", columns=columns, tasks=[], policy="quarantine"))
    assert number not in str(told.value)


def test_a_space_that_breaks_no_line_is_a_space_in_a_label(tmp_path):
    rows = "1,1,,0,Heart\u00a0failure,lung,a\n2,1,,0,Heart failure,lung,b\n3,1,,0,Stroke,lung,c\n"
    cohort = cohort_of(tmp_path, HEADER + rows, tasks=[GRADE])
    assert cohort.tasks[0][0].classes == ("Heart failure", "Stroke")


def test_columns_that_differ_by_case_alone_are_refused_where_case_does_not_count(tmp_path):
    frame = pl.DataFrame({"text": ["a"], "Text": ["b"], "id": ["1"]})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    frame.write_csv(tmp_path / "a.csv")
    for name, said in (("a.parquet", "text and Text differ by case"), ("a.csv", "the same name")):
        with pytest.raises(DataError, match=said):
            read(source_of(tmp_path / name, columns={"text": "text"}, tasks=[]))
    cohort = read(source_of(tmp_path / "a.jsonl", columns={"text": "Text"}, tasks=[]))
    assert cohort.notes["text"].to_list() == ["b"]
