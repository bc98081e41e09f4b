"""What a survey says of columns, in every format, without a text."""

import json

import polars as pl
import pytest

from notetune.errors import ConfigError, DataError
from notetune.sources.tables.survey import survey

LONG = "Admitted with chest pain radiating to the left arm since the morning."


@pytest.fixture
def table():
    rows = range(60)
    return pl.DataFrame(
        {
            "Note Id": [f"n{row}" for row in rows],
            "text": [f"{LONG} {row}" for row in rows],
            "died": [row % 2 for row in rows],
            "smokes": [row % 3 == 0 for row in rows],
            "weight": [None if row % 4 == 0 else 50 + row / 7 for row in rows],
            "seen": [f"2150-01-{1 + row % 28:02} 10:00:00" for row in rows],
            "unit": ["ICU" if row % 5 else "ward" for row in rows],
            "drugs": ["aspirin;heparin" if row % 2 else f"drug {row}" for row in rows],
            "empty": [None] * 60,
        },
        schema_overrides={"empty": pl.String},
    )


HOLDS = {
    "Note Id": "text",
    "text": "text",
    "died": "2 values",
    "weight": "numbers",
    "unit": "2 values",
    "drugs": "31 values",
    "empty": "nothing",
}


def found_in(path):
    return {column.name: column for column in survey(path).columns}


def test_a_csv_file_says_what_its_columns_hold(tmp_path, table):
    table.write_csv(tmp_path / "notes.csv")
    columns = found_in(tmp_path / "notes.csv")
    assert list(columns) == table.columns
    assert {name: columns[name].holds for name in HOLDS} == HOLDS
    assert columns["died"].levels == {"0": 30, "1": 30}
    assert columns["weight"].filled == 45
    assert columns["drugs"].separator == ";"
    assert columns["unit"].separator is None
    assert columns["Note Id"].is_unique
    assert not columns["unit"].is_unique
    assert columns["seen"].times == 60
    assert columns["text"].mean_chars > len(LONG)


def test_parquet_and_json_lines_say_the_same(tmp_path, table):
    table.write_csv(tmp_path / "notes.csv")
    table.write_parquet(tmp_path / "notes.parquet")
    table.write_ndjson(tmp_path / "notes.jsonl")
    said = [
        {name: column.holds for name, column in found_in(tmp_path / file).items()}
        for file in ("notes.csv", "notes.parquet", "notes.jsonl")
    ]
    assert len(said[0]) == 9
    assert said[0] == said[1] == said[2]


def test_truth_values_are_those_that_labels_are_read_as(tmp_path, table):
    table.write_parquet(tmp_path / "notes.parquet")
    assert found_in(tmp_path / "notes.parquet")["smokes"].levels == {"1": 20, "0": 40}


def test_lists_are_lists(tmp_path):
    rows = [{"text": LONG, "codes": ["I10", "E11"] if row % 2 else []} for row in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "cases.jsonl").write_text(lines)
    codes = found_in(tmp_path / "cases.jsonl")["codes"]
    assert (codes.holds, codes.bracketed, codes.levels) == ("lists", 5, None)


def test_a_key_that_the_first_object_lacks_is_a_column_too(tmp_path):
    rows = [{"text": LONG, "died": 1}, {"text": LONG, "ward": "ICU", "": 1}, {"text": None}]
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = survey(path)
    found = [(one.name, one.rows, one.filled) for one in seen.columns]
    assert found == [("text", 3, 2), ("died", 1, 1), ("ward", 1, 1)]
    assert (seen.rows, seen.damaged) == (3, 0)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id,text,died,2019", "a,b,1,7"),
        ("id,text,died,18-64,65+", "a,b,1,0,1"),
        ("id,text,died,no", "a,b,1,0"),
    ],
)
def test_unusual_names_of_columns_are_names(tmp_path, header, row):
    (tmp_path / "notes.csv").write_text(f"{header}\n{row}\n{row}\n")
    assert [column.name for column in survey(tmp_path / "notes.csv").columns] == header.split(",")


def test_boxes_that_are_ticked_with_their_name_have_a_header(tmp_path):
    (tmp_path / "notes.csv").write_text("id,text,fever,cough\na,b,fever,\nc,d,,cough\n")
    assert len(survey(tmp_path / "notes.csv").columns) == 4


def test_damaged_rows_are_left_out(tmp_path):
    (tmp_path / "notes.csv").write_text("text,died\na,1\nb\nc,0\n")
    seen = survey(tmp_path / "notes.csv")
    assert (seen.rows, seen.damaged, seen.columns[1].levels) == (2, 1, {"1": 1, "0": 1})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.csv", "", "is empty"),
        ("notes.jsonl", "", "is empty; it needs at least one object"),
        ("notes.jsonl", "[1]\n", "not a JSON object"),
        ("notes.txt", "text\n", "is no .csv"),
        ("notes.csv", ",\na,b\n", "names no column"),
        ("notes.csv", f"n1,{LONG},ward\nn2,{LONG},ICU\n", "line 1: these seem to be cells"),
        ("notes.csv", "101,Chest pain\n102,Cough\n", "line 1: these seem to be cells"),
        ("notes.csv", "n1,chest pain,2150-01-01 10:00\nn2,cough,\n", "line 1: these seem to be"),
        ("notes.csv", "n1,chest pain,yes\nn2,cough,no\n", "line 1: these seem to be cells"),
        ("notes.csv", "p1,chest pain,died\np1,cough,died\n", "line 1: these seem to be cells"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said) as refused:
        survey(tmp_path / name)
    assert "chest pain" not in str(refused.value).lower()


@pytest.mark.parametrize("name", ["no", "y", "diag1", "survived", "#"])
def test_names_are_taken_for_names(tmp_path, name):
    (tmp_path / "notes.csv").write_text(f"text,{name}\n{LONG},survived\n{LONG},died\n")
    assert list(found_in(tmp_path / "notes.csv")) == ["text", name]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_columns_whose_name_cannot_be_shown_are_left_out_unless_they_are_named(tmp_path, suffix):
    odd = ["", "Has the patient been told " * 3, "died\n(30 d)"]
    table = pl.DataFrame(
        {"text": [LONG, "b"], **{name: ["y", "n"] for name in odd}, "died": [0, 1]}
    )
    path = tmp_path / f"notes.{suffix}"
    write = {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}
    write[suffix](path)
    seen = survey(path)
    assert [column.name for column in seen.columns] == ["text", "died"]
    assert [name.strip() for name in seen.unread] == [name.strip() for name in odd]
    with pytest.raises(ConfigError, match="has 11 characters; a name has 1 to 60, all printable"):
        seen.column(odd[2])
