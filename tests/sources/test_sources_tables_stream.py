"""Tables in chunks and from many files."""

import gzip
import json
import tracemalloc

import polars as pl
import pytest
from table_of_visits import source_of

from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.sources import read


def test_a_table_passes_in_chunks_of_at_most_10_000_notes_the_same_each_time(tmp_path):
    path = tmp_path / "notes.csv.gz"
    rows = "".join(f"n{i},p{i % 7},some text {i},{i % 2}\n" for i in range(25_001))
    path.write_bytes(gzip.compress(f"id,patient,text,died\n{rows}".encode(), 1))
    task = {"name": "death", "kind": "binary", "column": "died"}
    readings = []
    for _ in range(2):
        stream = source_of(path, tasks=[task]).open()
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


def test_notes_that_begin_as_markup_are_counted_in_a_notice(tmp_path):
    texts = ["{\\rtf1\\ansi x}", " <html><p>x</p>", '<?xml version="1.0"?>', "BP <html", "x"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    flow = read(source_of(tmp_path / "a.jsonl", columns={"text": "text"})).flow
    said = (
        "3 of 5 notes begin as RTF, HTML or XML, and their markup is read as text; write them as "
        "plain text."
    )
    assert flow[0] == FlowCount("notes", 5, 5, notice=said)


def test_a_chunk_of_long_notes_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr("notetune.sources.tables.stream._CHARS_PER_CHUNK", 1_000)
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps({"text": "x" * 400})] * 7))
    stream = source_of(tmp_path / "a.jsonl", columns={"text": "text"}).open()
    assert [chunk.height for chunk in stream.chunks] == [3, 3, 1]


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr("notetune.sources.tables.stream._CHARS_PER_CHUNK", 8_000_000)

    def peak_bytes(notes):
        path = tmp_path / f"{notes}.csv.gz"
        text = "a note that says little " * 400
        rows = "".join(f'n{i},p,"{text}"\n' for i in range(notes))
        path.write_bytes(gzip.compress(f"id,patient,text\n{rows}".encode(), 1))
        tracemalloc.start()
        count = sum(chunk.height for chunk in source_of(path).open().chunks)
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
    with pytest.raises(DataError, match="nothing leads to no file"):
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
