"""Tables in chunks, from many files, with labels and codes from other tables."""

import gzip
import json
import stat
import tracemalloc
from datetime import datetime

import polars as pl
import pytest

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.notes.outcomes import label_matrix
from notetune.sources import (
    TableSource,
    files_of,
    open_notes,
    read,
    starting_from,
    write_rejections,
)
from notetune.sources.cohort import REJECTIONS_SCHEMA

CANARY = "zygomorphic"
IDS = {"text": "text", "note_id": "id", "patient_id": "patient"}
NOTES = "id,patient,visit,when,text\n" + "".join(
    f"n{i},p{i // 2},v{i},2150-01-0{i + 1} 08:00:00,{CANARY} {i}\n" for i in range(4)
)


def source_of(path, **changes):
    return config.parse(
        TableSource, {"kind": "table", "path": path, "columns": IDS} | changes, "recipe"
    )


def cohort_of(folder, **changes):
    (folder / "notes.csv").write_text(NOTES)
    return read(source_of(folder / "notes.csv", **changes))


def labels_of(cohort):
    ((_, table),) = cohort.tasks
    return dict(table.select("note_id", "labels").iter_rows())


def test_a_table_passes_in_chunks_of_at_most_10_000_notes_the_same_each_time(tmp_path):
    path = tmp_path / "notes.csv.gz"
    rows = "".join(f"n{i},p{i % 7},some text {i},{i % 2}\n" for i in range(25_001))
    path.write_bytes(gzip.compress(f"id,patient,text,died\n{rows}".encode(), 1))
    task = {"name": "death", "kind": "binary", "column": "died"}
    readings = []
    for _ in range(2):
        stream = open_notes(source_of(path, tasks=[task]))
        readings.append(list(stream.chunks))
        finished = stream.finish()
    assert [chunk.height for chunk in readings[0]] == [10_000, 10_000, 5_001]
    for first, second in zip(*readings, strict=True):
        assert first.equals(second)
    ((_, table),) = finished.tasks
    assert table["note_id"].to_list() == pl.concat(readings[0])["note_id"].to_list()
    assert table["labels"].list.len().sum() == 12_500
    assert finished.flow == (
        FlowCount("notes", 25_001, 25_001),
        FlowCount("task death", 25_001, 25_001, {"missing label": 0}),
    )


def test_a_chunk_of_long_notes_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr("notetune.sources.tables.stream._CHARS_PER_CHUNK", 1_000)
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps({"text": "x" * 400})] * 7))
    stream = open_notes(source_of(tmp_path / "a.jsonl", columns={"text": "text"}))
    assert [chunk.height for chunk in stream.chunks] == [3, 3, 1]


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr("notetune.sources.tables.stream._CHARS_PER_CHUNK", 8_000_000)

    def peak_bytes(notes):
        path = tmp_path / f"{notes}.csv.gz"
        text = "a note that says little " * 400
        rows = "".join(f'n{i},p,"{text}"\n' for i in range(notes))
        path.write_bytes(gzip.compress(f"id,patient,text\n{rows}".encode(), 1))
        tracemalloc.start()
        count = sum(chunk.height for chunk in open_notes(source_of(path)).chunks)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == notes
        return peak

    small, large = peak_bytes(1_600), peak_bytes(3_200)  # 2 and 4 chunks
    assert 8_000_000 < small < large < small + 500_000
    assert large < 16_000_000  # one chunk of text, and not the one before it too


def test_a_folder_and_a_pattern_stand_for_their_files_in_order(tmp_path):
    shards = tmp_path / "shards"
    (shards / "deeper").mkdir(parents=True)
    frame = pl.DataFrame({"text": ["one", "two", "three"]})
    frame[:1].write_parquet(shards / "a.parquet")
    frame[1:2].write_parquet(shards / "b.parquet")
    frame[2:].write_parquet(shards / "deeper" / "c.parquet")
    (shards / "_SUCCESS").touch()
    (shards / ".b.parquet.crc").touch()
    by_folder = read(source_of(shards, columns={"text": "text"}))
    assert by_folder.notes["text"].to_list() == ["one", "two", "three"]
    assert by_folder.notes["note_id"].to_list() == ["note-1-1", "note-2-1", "note-3-1"]
    assert read(source_of(shards / "**" / "*.parquet", columns={"text": "text"})).notes.equals(
        by_folder.notes
    )
    for number, name in enumerate(("x.csv", "y.csv")):
        (tmp_path / name).write_text(f"text\n{number}\n")
    both = read(source_of(tmp_path / "[xy].csv", columns={"text": "text"}))
    assert both.notes["text"].to_list() == ["0", "1"]
    with pytest.raises(DataError, match=r"leads to no \.parquet file"):
        read(source_of(tmp_path / "*.nothing"))


def test_repeated_ids_are_found_across_files(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        pl.DataFrame({"text": ["t"], "id": [7], "patient": [1]}).write_parquet(tmp_path / name)
    with pytest.raises(DataError, match=r"b\.parquet, row 1: note id repeated with the same text"):
        read(source_of(tmp_path))


def test_a_parquet_file_longer_than_one_slice_is_read_whole_and_in_order(tmp_path):
    path = tmp_path / "long.parquet"
    texts = [f"text {i}" for i in range(12_345)]
    pl.DataFrame({"TEXT": texts}).write_parquet(path, row_group_size=5_001)
    assert read(source_of(path, columns={"text": "text"})).notes["text"].to_list() == texts


SITES = pl.DataFrame({"visit": ["v0", "v1", "v9"], "died": [True, False, True]})


def test_labels_come_from_another_table_by_any_id(tmp_path):
    SITES.write_parquet(tmp_path / "labels.parquet")
    labels = {"path": tmp_path / "labels.parquet", "id_column": "visit", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "visit", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {"n0": ["death"], "n1": []}
    assert cohort.flow[1:] == (
        FlowCount("rows of the table for task death", 3, 3, {}),
        FlowCount("ids of the table for task death", 3, 2, {"no such note": 1}),
        FlowCount("task death", 4, 2, {"missing label": 2}),
    )
    assert label_matrix(*cohort.tasks[0]).tolist() == [[1], [0]]


def test_a_label_table_can_bring_the_prediction_time(tmp_path):
    frame = pl.DataFrame({"subject": ["p0"], "at": [datetime(2150, 1, 1, 12)], "value": [1]})  # noqa: DTZ001
    frame.write_parquet(tmp_path / "labels.parquet")
    labels = {"path": tmp_path / "labels.parquet", "id_column": "subject", "label_column": "value"}
    task = {"name": "death", "kind": "binary", "column": "patient", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task | {"prediction_time": "at"}])
    ((_, table),) = cohort.tasks
    assert table["prediction_time"].to_list() == frame["at"].to_list() * 2
    own = {"name": "p", "kind": "multiclass", "column": "patient", "prediction_time": "when"}
    ((_, table),) = cohort_of(tmp_path, tasks=[own]).tasks
    assert table["prediction_time"].to_list()[1] == datetime(2150, 1, 2, 8)  # noqa: DTZ001


def test_a_label_of_a_note_that_does_not_exist_stops_or_is_counted(tmp_path):
    (tmp_path / "labels.csv").write_text("id,died\nn0,1\nn1,0\n n2,0\n4,1\n5,1\n")
    labels = {"path": tmp_path / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "id", "labels": labels}
    with pytest.raises(DataError, match="2 of the 5 notes with a label of task death do not exist"):
        cohort_of(tmp_path, tasks=[task])
    cohort = cohort_of(tmp_path, tasks=[task], policy="quarantine")
    assert FlowCount("ids of the table for task death", 5, 3, {"no such note": 2}) in cohort.flow
    (tmp_path / "labels.csv").write_text("id,died\n0,1\n1,0\n")
    with pytest.raises(DataError, match="no note has a label of task death"):
        cohort_of(tmp_path, tasks=[task], policy="quarantine")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("n0,1\nn0,0\n", "line 3: an earlier row gives this id another label of task death"),
        ("n0,1\nn1,2\n", "line 3: label of task death is neither positive nor negative"),
        ("n0,1\n,0\n", "line 3: missing row id"),
        ("n0,1\nn1\n", "line 3: short row"),
    ],
)
def test_a_faulty_label_table_stops(tmp_path, rows, problem):
    (tmp_path / "labels.csv").write_text(f"id,died\n{rows}")
    labels = {"path": tmp_path / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "id", "labels": labels}
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, tasks=[task])
    assert problem in str(caught.value)


CODES = """visit,code,version
v0,00845,9
v0,0084,9
v0,V3000,9
v1,E8497,9
v1,e11.9,10
v1,,9
,0010,9
v9,9999,9
"""
CODE_CASES = {
    "ICD-9": ({"version": "icd9"}, {"n0": ["008", "V30"], "n1": ["E11", "E849"]}),
    "as they are": (
        {"version": "as-is"},
        {"n0": ["0084", "00845", "V3000"], "n1": ["E8497", "e11.9"]},
    ),
    "both": (
        {"version_column": "version"},
        {"n0": ["ICD-9 008", "ICD-9 V30"], "n1": ["ICD-10 E11", "ICD-9 E849"]},
    ),
    "procedures": (
        {"version": "icd9", "of": "procedures"},
        {"n0": ["008", "V30"], "n1": ["E84", "e11"]},
    ),
    "ICD-10 procedures": (
        {"version": "icd10", "of": "procedures"},
        {"n0": ["0084", "V300"], "n1": ["E11.", "E849"]},
    ),
}


@pytest.mark.parametrize("case", CODE_CASES)
def test_codes_become_categories_with_their_zeros(tmp_path, case):
    changes, expected = CODE_CASES[case]
    (tmp_path / "codes.csv").write_text(CODES)
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes | changes}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == expected
    rows = FlowCount("rows of the table for task icd", 8, 6, {"no id or no code": 2})
    assert rows in cohort.flow
    assert FlowCount("task icd", 4, 2, {"missing label": 2}) in cohort.flow


def test_codes_can_be_restricted_to_classes_and_need_a_known_version(tmp_path):
    (tmp_path / "codes.csv").write_text(CODES)
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    codes |= {"version": "icd9"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    cohort = cohort_of(tmp_path, tasks=[task | {"classes": ["V30", "008", "X"]}])
    assert labels_of(cohort) == {"n0": ["008", "V30"]}
    assert cohort.tasks[0][0].classes == ("V30", "008", "X")
    (tmp_path / "codes.csv").write_text(CODES.replace("e11.9,10", "e11.9,11"))
    del codes["version"]
    task["codes"] = codes | {"version_column": "version"}
    with pytest.raises(DataError, match="line 6: ICD version is neither 9 nor 10"):
        cohort_of(tmp_path, tasks=[task])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "binary", "codes": {"version": "icd9"}},
        {"codes": {}},
        {"codes": {"version": "icd9", "version_column": "v"}},
        {"codes": {"version": "icd11"}},
        {"codes": {"version": "icd9"}, "labels": {"path": "l.csv", "label_column": "l"}},
    ],
)
def test_an_impossible_code_or_label_table_is_refused(tmp_path, change):
    for name in {"codes", "labels"} & set(change):
        change[name] = {"path": "c.csv", "id_column": "i"} | change[name]
    if "codes" in change:
        change["codes"]["code_column"] = "c"
    with pytest.raises(ConfigError):
        source_of("a.csv", tasks=[{"name": "t", "kind": "multilabel", "column": "x"} | change])


@pytest.mark.parametrize("name", ["", "a\tb", "two\nlines", "x" * 121])
def test_a_name_in_the_users_words_is_one_line_of_at_most_120_characters(name):
    task = {"name": "t", "kind": "multilabel", "column": "Cardiovascular / Pulmonary"}
    at = {
        "source": {"source": name},
        "features.0": {"features": [name]},
        "columns.text": {"columns": {"text": name}},
        "tasks.0.column": {"tasks": [task | {"column": name}]},
        "tasks.0.classes.0": {"tasks": [task | {"classes": [name]}]},
    }
    for key, changes in at.items():
        with pytest.raises(ConfigError, match=f"{key}: it should be one line of 1 to 120") as error:
            source_of("a.csv", **changes)
        assert name not in str(error.value) or not name
    assert source_of("a.csv", tasks=[task]).tasks[0].column == "Cardiovascular / Pulmonary"


def test_every_path_of_a_source_starts_from_the_data_folder_and_counts_as_its_file(tmp_path):
    codes = {"path": "c.csv", "id_column": "i", "code_column": "c", "version": "icd9"}
    task = {"name": "t", "kind": "multilabel", "column": "x", "codes": codes}
    source = starting_from(source_of("sub/*.parquet", tasks=[task]), tmp_path)
    assert source.path == tmp_path / "sub" / "*.parquet"
    assert source.tasks[0].codes.path == tmp_path / "c.csv"
    assert files_of(source) == []
    (tmp_path / "sub").mkdir()
    files = [tmp_path / "c.csv", tmp_path / "sub" / "a.parquet", tmp_path / "sub" / "b.parquet"]
    for file in files:
        file.touch()
    assert files_of(source) == files
    assert files_of(source.model_copy(update={"path": tmp_path})) == files
    absolute = starting_from(source_of("/else/a.csv"), tmp_path)
    assert str(absolute.path) == "/else/a.csv"


def test_the_list_of_rejected_rows_is_private_and_harmless_in_a_spreadsheet(tmp_path, umask):
    rows = [("a.csv", 2, "=cmd()", "empty text"), ("a.csv", 3, None, "short row")]
    path = tmp_path / "rejections.csv"
    write_rejections(pl.DataFrame(rows, schema=REJECTIONS_SCHEMA, orient="row"), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == (
        "file,line,note_id,reason\na.csv,2,'=cmd(),empty text\na.csv,3,,short row\n"
    )
