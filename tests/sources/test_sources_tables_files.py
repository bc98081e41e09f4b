"""Files of every format give the same rows, and a damaged one stops."""

import gzip
import json

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

from notetune.errors import DataError
from notetune.sources import read


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


def test_a_decimal_id_in_parquet_is_refused_since_its_zeros_are_lost(tmp_path):
    pl.DataFrame({"id": [7.0], "text": [CANARY]}).write_parquet(tmp_path / "a.parquet")
    columns = {"text": "text", "note_id": "id"}
    with pytest.raises(DataError, match=r"row 1: column id holds a float; store ids and labels"):
        read(source_of(tmp_path / "a.parquet", columns=columns, tasks=[]))
    with pytest.raises(
        DataError, match=r"columns\.time: .*no column 'other' among 2; there are id, text"
    ):
        read(source_of(tmp_path / "a.parquet", columns=columns | {"time": "other"}, tasks=[]))


@pytest.mark.parametrize(
    ("cell", "time"),
    [
        ("2150-01-02 03:04:05 UTC", "2150-01-02T03:04:05"),
        ("2150-01-02T03:04:05.250Z", "2150-01-02T03:04:05.250000"),
        ("2150-01-02", "2150-01-02T00:00:00"),
        ("2.1.2150", "2150-01-02T00:00:00"),
        ("02.01.2150 03:04", "2150-01-02T03:04:00"),
        ("0001-01-01", "0001-01-01T00:00:00"),
        ("9999-12-31 23:59:59", "9999-12-31T23:59:59"),
    ],
)
def test_times_are_read_to_the_second(tmp_path, cell, time):
    content = HEADER + f"007,1,{cell},0,low,lung,{CANARY}\n"
    (found,) = cohort_of(tmp_path, content, tasks=[]).notes["time"]
    assert found.isoformat() == time


@pytest.mark.parametrize(
    "cell",
    ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "10/23/2150 9:09 PM", "01.23.2150"],
)
def test_times_that_cannot_be_are_said_by_row(tmp_path, cell):
    with pytest.raises(DataError, match=r"line 2: unreadable time; write times as .* in column"):
        cohort_of(tmp_path, HEADER + f"007,1,{cell},0,low,lung,{CANARY}\n")


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
