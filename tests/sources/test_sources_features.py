"""Columns beside the text, as the table source reads them."""

import json

import polars as pl
import pytest

from notetune import config
from notetune.errors import DataError
from notetune.sources import TableSource, read

CANARY = "zygomorphic"
HEADER = "id,patient,age,sex,ward,text\n"
COLUMNS = {"text": "text", "note_id": "id", "patient_id": "patient"}


def cohort_of(path, **changes):
    values = {"kind": "table", "path": path, "columns": COLUMNS, "features": ["sex", "age"]}
    return read(config.parse(TableSource, values | changes, "recipe"))


def written(folder, rows):
    (folder / "notes.csv").write_text(HEADER + rows)
    return folder / "notes.csv"


def test_columns_beside_the_text_come_as_text_with_each_note(tmp_path):
    rows = "007,1, 7.50 ,f,x,one\n008,1,,m,x,two\n009,2,81,,x,three\n"
    cohort = cohort_of(written(tmp_path, rows))
    assert cohort.columns.columns == ["note_id", "sex", "age"]
    assert cohort.columns.rows() == [("007", "f", "7.50"), ("008", "m", None), ("009", None, "81")]
    assert cohort_of(written(tmp_path, rows), features=[]).columns is None


def test_numbers_of_other_formats_are_spelled_as_in_csv(tmp_path):
    values = [7, 81.0, 2.5, float("nan"), True]
    lines = [
        {"id": str(number), "patient": "1", "text": f"note {number}", "age": value, "sex": None}
        for number, value in enumerate(values)
    ]
    path = tmp_path / "notes.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = cohort_of(path).columns
    assert found["age"].to_list() == ["7", "81", "2.5", None, "1"]
    pl.DataFrame(
        {**pl.DataFrame(lines[:4]).to_dict(), "age": [7.0, 81.0, 2.5, None]}
    ).write_parquet(tmp_path / "notes.parquet")
    found = cohort_of(tmp_path / "notes.parquet").columns
    assert found["age"].to_list() == ["7", "81", "2.5", None]


def test_a_row_that_is_left_out_has_no_columns(tmp_path):
    rows = "007,1,7,f,x,one\n008,1,8,m,x,\n"
    cohort = cohort_of(written(tmp_path, rows), policy="quarantine", max_rejected_share=0.5)
    assert cohort.columns["note_id"].to_list() == ["007"]


@pytest.mark.parametrize("cell", [f"{CANARY} " * 20, f'"{CANARY}\nx"'])
def test_a_column_of_text_is_no_feature_and_is_not_shown(tmp_path, cell):
    with pytest.raises(DataError) as caught:
        cohort_of(written(tmp_path, f"007,1,7,{cell},x,one\n"))
    assert "column sex" in str(caught.value) or "control characters" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_feature_that_the_table_lacks_is_named(tmp_path):
    with pytest.raises(DataError, match="height"):
        cohort_of(written(tmp_path, "007,1,7,f,x,one\n"), features=["height"])
