from datetime import datetime, timedelta

import polars as pl
import pytest

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.recipe.recipe import Recipe
from notetune.sources import read
from notetune.sources.meds import MedsSource
from notetune.sources.splits import split_patients

CANARY = "zygomorphic"
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "note": pl.String,
}
MORNING = datetime(2150, 1, 2, 8)  # noqa: DTZ001
SHARDS = {
    "train/0": [
        (7, None, "GENDER//F", None, None, None),
        (7, MORNING, "NOTE//DS//AD", None, f"{CANARY} addendum", "a"),
        (7, MORNING, "LAB//50912", 1.5, f"{CANARY} not a note", None),
        (7, MORNING, "NOTE//DS", None, f"{CANARY}\r\nsummary", "b"),
    ],
    "held_out/0": [
        (9, MORNING, "NOTE//RR", None, f"{CANARY} chest", "c"),
        (9, MORNING, "NOTE", None, f"{CANARY} too short a code", "d"),
    ],
    "tuning/0": [(8, MORNING, "LAB//1", 2.0, None, None)],
}
NOTES = {"NOTE//DS": "discharge", "NOTE//RR": "radiology", "NOTE//DS//AD": "addendum"}


def write_shards(folder, shards=SHARDS):
    for name, rows in shards.items():
        path = folder / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(path)


def source_of(folder, **changes):
    return config.parse(
        MedsSource, {"kind": "meds", "folder": folder, "notes": NOTES} | changes, "recipe"
    )


def test_events_under_the_codes_become_notes_in_the_order_of_the_shards(tmp_path):
    write_shards(tmp_path)
    cohort = read(source_of(tmp_path))
    assert cohort.notes.rows() == [
        ("held_out/0-1", "9", None, "radiology", MORNING, f"{CANARY} chest"),
        ("train/0-2", "7", None, "addendum", MORNING, f"{CANARY} addendum"),
        ("train/0-4", "7", None, "discharge", MORNING, f"{CANARY}\nsummary"),
    ]
    assert cohort.flow == (FlowCount("notes", 7, 3, {"another code": 4}),)
    named = read(source_of(tmp_path, note_id="note"))
    assert named.notes["note_id"].to_list() == ["c", "a", "b"]
    assert read(source_of(tmp_path, stay_id="note")).notes["stay_id"].to_list() == ["c", "a", "b"]


def test_labels_of_the_standard_give_a_task_with_its_prediction_time(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "labels").mkdir()
    pl.DataFrame(
        {"subject_id": [7, 9], "prediction_time": [MORNING] * 2, "boolean_value": [True, False]}
    ).write_parquet(tmp_path / "labels" / "0.parquet")
    task = {
        "name": "death",
        "kind": "binary",
        "column": "subject_id",
        "labels": {
            "path": tmp_path / "labels",
            "id_column": "subject_id",
            "label_column": "boolean_value",
        },
        "prediction_time": "prediction_time",
    }
    cohort = read(source_of(tmp_path, tasks=[task]))
    ((_, table),) = cohort.tasks
    assert table.rows() == [
        ("held_out/0-1", [], MORNING),
        ("train/0-2", ["death"], MORNING),
        ("train/0-4", ["death"], MORNING),
    ]


def test_a_label_file_of_the_standard_is_a_task_of_samples(tmp_path):
    """The example of the standard's own description of labels, on notes of its subjects."""
    days = [datetime(2021, month, 1) for month in (3, 4, 5)]  # noqa: DTZ001
    notes = [
        (subject, day - timedelta(hours=1), "NOTE//DS", None, f"{CANARY} {subject} {day}", None)
        for subject in (1, 2, 3)
        for day in days[:2]
    ]
    write_shards(tmp_path, {"0": notes})
    frame = {
        "subject_id": [1, 2, 3],
        "prediction_time": days,
        "boolean_value": [True, False, False],
    }
    schema = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}
    for shard, rows in (("a/0", slice(2)), ("a/1", slice(2, 3)), ("b", slice(0))):
        path = tmp_path / "tasks" / "readmission" / f"{shard}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = pl.DataFrame(frame, schema_overrides=schema)[rows]
        part.write_parquet(path)
    task = {"name": "back", "kind": "binary", "column": "subject_id"}
    task["samples"] = {"path": tmp_path / "tasks" / "readmission"}
    ((_, table),) = read(source_of(tmp_path, tasks=[task])).tasks
    assert table.select("note_id", "labels", "prediction_time").rows() == [
        ("0-1", ["back"], days[0]),
        ("0-4", [], days[1]),
        ("0-6", [], days[2]),
    ]


def test_the_metadata_say_the_split(tmp_path):
    write_shards(tmp_path)
    words = {7: "train", 8: "tuning", 9: "held_out", 5: "train"}
    (tmp_path / "metadata").mkdir()
    path = tmp_path / "metadata" / "subject_splits.parquet"
    pl.DataFrame({"subject_id": list(words), "split": list(words.values())}).write_parquet(path)
    source = {"kind": "meds", "folder": "cohort", "notes": NOTES}
    recipe = {"name": "ours", "data": str(tmp_path), "prepare": {"source": source}}
    recipe["prepare"]["split"] = {"kind": "column"}
    (tmp_path / "cohort").symlink_to(tmp_path)
    split = config.parse(Recipe, recipe, "recipe").preparation.split
    expected = [("7", "train"), ("8", "validation"), ("9", "test")]
    assert split_patients(["9", "8", "7"], split).rows() == expected
    path.unlink()
    with pytest.raises(DataError, match=r"subject_splits\.parquet is not a file; check the path"):
        split_patients(["9", "8", "7"], split)


def test_notes_far_apart_in_a_long_shard_are_all_found(tmp_path):
    rows = [
        (i, MORNING, "NOTE//RR" if i % 997 == 0 else "LAB//1", None, f"{CANARY} {i}", None)
        for i in range(20_000)
    ]
    write_shards(tmp_path, {"0": rows})
    stream = source_of(tmp_path).open()
    ids = [name for chunk in stream.chunks for name in chunk["note_id"]]
    assert ids == [f"0-{i + 1}" for i in range(0, 20_000, 997)]
    assert stream.finish().flow[0].read == 20_000


def test_a_note_without_text_stops_or_is_counted(tmp_path):
    shards = {**SHARDS, "train/1": [(7, None, "NOTE//DS", None, None, None)]}
    write_shards(tmp_path, shards)
    with pytest.raises(DataError, match=r"train/1\.parquet, row 1: empty text") as caught:
        read(source_of(tmp_path))
    assert CANARY not in str(caught.value)
    lenient = read(source_of(tmp_path, policy="quarantine", max_rejected_share=0.25))
    assert lenient.flow[0] == FlowCount("notes", 8, 3, {"empty text": 1, "another code": 4})
    # The share is that of the notes, not of all events.
    with pytest.raises(DataError, match=r"1 of 4 rows .* That is 25\.00%"):
        read(source_of(tmp_path, policy="quarantine", max_rejected_share=0.2))


def test_words_for_missing_are_no_note(tmp_path):
    rows = [(7, MORNING, "NOTE//DS", None, text, None) for text in ("NULL", "nan", CANARY)]
    write_shards(tmp_path, {"0": rows})
    with pytest.raises(DataError, match="row 1: empty text"):
        read(source_of(tmp_path))
    cohort = read(source_of(tmp_path, policy="quarantine", max_rejected_share=0.7))
    assert cohort.notes["text"].to_list() == [CANARY]
    assert read(source_of(tmp_path, missing=[])).notes.height == 3


def test_a_folder_without_shards_or_columns_is_named(tmp_path):
    with pytest.raises(DataError, match=r"is not a folder with Parquet files; name the folder"):
        read(source_of(tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data leads to no \.parquet file"):
        read(source_of(tmp_path))
    pl.DataFrame({"subject_id": [1]}).write_parquet(tmp_path / "data" / "0.parquet")
    with pytest.raises(
        DataError, match=r"0\.parquet: no column 'time' among 1; there are subject_id"
    ):
        read(source_of(tmp_path))
    with pytest.raises(ConfigError):
        source_of(tmp_path, notes={})
