import csv
import gzip
import io
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.errors import DataError
from notetune.strict_csv import Row, find_csv, read_rows, read_table, require_csv

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
CANARY = "zygomorphic"
HEADER = b"note_id,text,label\n"
GOOD = HEADER + f'1,"{CANARY} one\nline two",a\n2,{CANARY},b\n'.encode()


def rows_of(path, columns=("note_id", "text"), **options):
    return list(read_rows(path, columns, **options))


def gzipped(content):
    return gzip.compress(content, mtime=0)


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_characters="\0", codec="utf-8"))] * 3),
        min_size=1,
        max_size=8,
    )
)
def test_reads_back_what_the_csv_module_wrote_line_breaks_included(tmp_path_factory, rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [("A", "b", "C"), *rows]
    )
    path = tmp_path_factory.mktemp("csv") / "notes.csv"
    path.write_bytes(buffer.getvalue().encode())
    got = rows_of(path, ["a", "B", "c"])
    assert [row.cells for row in got] == rows
    content = buffer.getvalue()
    starts = [2 + sum("".join(row).count("\n") + 1 for row in rows[:n]) for n in range(len(rows))]
    assert [row.line for row in got] == starts
    assert content.count("\n") == starts[-1] + "".join(rows[-1]).count("\n")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", GOOD),
        ("mark.csv", b"\xef\xbb\xbf" + GOOD),
        ("crlf.csv", GOOD.replace(b"\n", b"\r\n").replace(b"one\r\n", b"one\n")),
        ("no_last_newline.csv", GOOD[:-1]),
        ("blank_end.csv", GOOD + b"\r\n\n"),
        ("packed.csv.gz", gzipped(GOOD)),
        ("members.csv.gz", gzipped(GOOD[:30]) + gzipped(GOOD[30:])),
        ("UPPER.CSV", GOOD.replace(b"note_id,text", b"NOTE_ID, Text")),
    ],
)
def test_harmless_variants_give_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert rows_of(tmp_path / name) == [
        Row(2, ("1", f"{CANARY} one\nline two")),
        Row(4, ("2", CANARY)),
    ]


@pytest.mark.parametrize("mark", ";\t|")
def test_the_separator_is_that_of_the_first_line(tmp_path, mark):
    text = 'note_id,"name, first",text\n1,"a;b|c","d, e\nf"\n2,,g\n'
    parts = text.split('"')  # those outside quotes have even numbers
    parts[::2] = [part.replace(",", mark) for part in parts[::2]]
    (tmp_path / "a.csv").write_text('"'.join(parts))
    rows = [row.cells for row in read_rows(tmp_path / "a.csv", ["note_id", "name, first", "text"])]
    assert rows == [("1", "a;b|c", "d, e\nf"), ("2", "", "g")]


def test_the_mark_that_stands_most_often_separates_and_a_tie_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id;age, years;text\n1;50;fell, no pain\n")
    assert [row.cells for row in read_rows(tmp_path / "a.csv", ["text"])] == [("fell, no pain",)]
    (tmp_path / "a.csv").write_text('height 5";text;id\n1;a;b\n')
    assert [row.cells for row in read_rows(tmp_path / "a.csv", ["text"])] == [("a",)]
    (tmp_path / "a.csv").write_text("id;main, other\n1;2\n")
    with pytest.raises(DataError, match="line 1: two marks may be what separates the columns"):
        list(read_rows(tmp_path / "a.csv", ["id"]))


def test_a_column_may_be_named_with_the_spaces_of_its_header(tmp_path):
    (tmp_path / "a.csv").write_text("Patient ID ,text\n1,one\n")
    assert [row.cells for row in read_rows(tmp_path / "a.csv", ["Patient ID "])] == [("1",)]


BAD = {
    "separator named": ("a.csv", b"sep=,\n" + GOOD, "line 1: it says what separates the columns"),
    "tab named": ("a.csv", b'"SEP=\t"\r\n' + GOOD, "line 1: it says what separates the columns"),
    "missing column": ("a.csv", GOOD.replace(b"text", b"body"), "line 1: no column 'text' among 3"),
    "near column": ("a.csv", GOOD.replace(b"text", b"texts"), "the nearest is 'texts'"),
    "no header": ("a.csv", GOOD.removeprefix(HEADER), "line 1: no column 'note_id'"),
    "repeated column": ("a.csv", GOOD.replace(b"label", b"TEXT"), "columns 2 and 3 have the same"),
    "latin-1": ("a.csv", GOOD + f"3,caf\xe9 {CANARY},a\n".encode("latin-1"), "line 5: bytes that"),
    "utf-16": ("a.csv", GOOD.decode().encode("utf-16"), "line 1: the file is UTF-16"),
    "utf-16 without mark": ("a.csv", GOOD.decode().encode("utf-16-le"), "line 1: NUL byte"),
    "nul": ("a.csv", GOOD + f"3,{CANARY}\0,a\n".encode(), "line 5: NUL byte"),
    "unterminated quote": ("a.csv", GOOD + f'3,"{CANARY}\nx,y\n'.encode(), "line 5: a quote opens"),
    "text after quote": ("a.csv", GOOD + f'3,"{CANARY}"x,a\n'.encode(), "line 5: text follows"),
    "short row": ("a.csv", GOOD + f"3,{CANARY}\n".encode(), "line 5: short row: 2 cells where"),
    "long row": ("a.csv", GOOD + f"3,{CANARY},a,b\n".encode(), "line 5: long row: 4 cells where"),
    "blank line": ("a.csv", GOOD + b"\n\nd,4\n", "line 5: blank line"),
    "lone return": ("a.csv", GOOD + f"3,{CANARY}\rx,a\n".encode(), "line 5: a lone carriage"),
    "empty": ("a.csv", b"", "is empty"),
    "empty, compressed": ("a.csv.gz", gzipped(b""), "is empty"),
    "header only": ("a.csv", HEADER, "has a header and no rows"),
    "not compressed": ("a.csv.gz", GOOD, "is not compressed by gzip"),
    "compressed unnamed": ("a.csv", gzipped(GOOD), "name it a.csv.gz"),
    "cut": ("a.csv.gz", gzipped(GOOD)[:-12], "is damaged or cut"),
    "damaged": ("a.csv.gz", gzipped(GOOD)[:20] + b"\xff" * 9 + gzipped(GOOD)[29:], "damaged"),
    "trailing garbage": ("a.csv.gz", gzipped(GOOD) + b"garbage", "is damaged or cut"),
    "other suffix": ("a.tsv", GOOD, "neither .csv nor .csv.gz"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_fault_is_one_line_with_file_and_rule_and_no_cell(tmp_path, case):
    name, content, expected = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path / name)
    message = str(caught.value)
    assert expected in message
    assert str(tmp_path / name) in message
    assert "\n" not in message
    assert CANARY not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_the_catalogue_of_faults_is_complete():
    assert len(BAD) == 25


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    expected = {"none": "missing", "folder": "folder", "pipe": "regular file", "loop": "csv"}
    for name, word in expected.items():
        with pytest.raises(DataError, match=word):
            rows_of(tmp_path / f"{name}.csv")


def test_a_cell_may_be_as_long_as_the_limit_and_no_longer(tmp_path):
    path = tmp_path / "long.csv"
    for cell in ("x" * 200_001, "x\n" * 100_000 + "x", "\u20ac" * 200_001):
        path.write_bytes(HEADER + f'1,"{cell}",a\n'.encode())
        assert rows_of(path, max_chars=200_001)[0].cells == ("1", cell)
        with pytest.raises(DataError, match="line 2: a cell over 200,000 characters"):
            rows_of(path, max_chars=200_000)


def test_a_line_far_over_the_limit_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzipped(HEADER + b"1," + b"x" * 3_000_000))
    with pytest.raises(DataError, match="line 2: a line over 8,096 bytes"):
        rows_of(path, max_chars=1_000)


def test_a_fault_in_a_header_of_two_lines_is_none_of_a_row(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_bytes(b'id,"te\nx\0t"\n1,a\n2,b\n')
    with pytest.raises(DataError, match="line 1: NUL byte"):
        rows_of(path, ["id"], on_bad_row=lambda *fault: pytest.fail(str(fault)))


def test_a_table_keeps_codes_as_they_are_and_turns_empty_cells_into_null(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text('row_id,code\n1,0066\n2,""\n3,\n4,NA\n5, 7.0 \n')
    table = read_table(path, ["CODE", "ROW_ID"])
    assert table.schema == {"line": pl.Int64, "CODE": pl.String, "ROW_ID": pl.String}
    assert table["CODE"].to_list() == ["0066", None, None, "NA", " 7.0 "]
    assert table["line"].to_list() == [2, 3, 4, 5, 6]


def test_finds_a_table_by_name_in_any_case_and_prefers_the_plain_one(tmp_path):
    assert find_csv(tmp_path, "notes") is None
    with pytest.raises(DataError, match=r"holds no notes\.csv and no notes\.csv\.gz"):
        require_csv(tmp_path, "notes")
    (tmp_path / "Notes.csv.gz").touch()
    assert require_csv(tmp_path, "notes").name == "Notes.csv.gz"
    (tmp_path / "NOTES.csv").touch()
    assert require_csv(tmp_path, "notes").name == "NOTES.csv"
    with pytest.raises(DataError, match="is not a folder"):
        find_csv(tmp_path / "none", "notes")


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "mimic3_demo").is_dir(), reason="open data not found")
@pytest.mark.parametrize(
    ("name", "position", "rows"),
    [
        ("DIAGNOSES_ICD", 4, 1761),
        ("PROCEDURES_ICD", 4, 506),
        ("D_ICD_DIAGNOSES", 1, 14567),
        ("D_ICD_PROCEDURES", 1, 3882),
    ],
)
def test_every_code_of_the_mimic_demo_is_the_text_of_its_file(name, position, rows):
    path = DATA / "mimic3_demo" / f"{name}.csv"
    # The columns up to the code hold no quotes, so that splitting at commas is an oracle.
    raw = [line.split(",")[position] for line in path.read_text().splitlines()[1:]]
    codes = read_table(path, ["ICD9_CODE"])["ICD9_CODE"].to_list()
    assert codes == raw
    assert len(codes) == rows
    assert any(code.startswith("0") for code in codes)
