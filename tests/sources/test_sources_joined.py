"""The notes of a stay become one note: in order of time, with one label, and counted."""

import pytest

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.notes.overlap import late_notes
from notetune.sources import read
from notetune.sources.joined import joined
from notetune.sources.tables.source import TableSource

HEADER = "id,patient,visit,when,died,until,age,text\n"
COLUMNS = {"text": "text", "note_id": "id", "patient_id": "patient", "stay_id": "visit"}
DIED = {"name": "died", "kind": "binary", "column": "died"}
UNTIL = DIED | {"prediction_time": "until"}
ROWS = (
    "a,1,v1,2150-01-03,1,2150-01-03,63,third\n"
    "b,2,v2,2150-01-01,0,2150-01-02,40,other\n"
    "c,1,v1,2150-01-01,1,2150-01-03,61,second\n"
    "d,1,v1,,1,2150-01-03,60,first\n"
    "e,1,v1,2150-01-03,1,2150-01-03,64,fourth\n"
    "f,1,,2150-01-09,0,2150-01-02,65,alone\n"
)


def stream_of(folder, rows=ROWS, columns=COLUMNS | {"time": "when"}, **changes):
    (folder / "notes.csv").write_text(HEADER + rows)
    values = {"kind": "table", "path": folder / "notes.csv", "columns": columns}
    return config.parse(TableSource, {**values, "tasks": [DIED], **changes}, "recipe").open()


def joined_of(stream, *tasks, **settings):
    found = joined(stream, tasks, **settings)
    (notes,) = found.chunks
    return notes, found.finish()


def test_notes_of_a_stay_stand_in_order_of_time_those_without_first_and_ties_as_read(tmp_path):
    notes, finished = joined_of(stream_of(tmp_path, features=["age"]))
    told = notes.select("note_id", "patient_id", "stay_id", "source", "text").rows()
    assert told == [
        ("v1", "1", "v1", "note", "first\n\nsecond\n\nthird\n\nfourth"),
        ("v2", "2", "v2", "note", "other"),
        ("f", "1", None, "note", "alone"),
    ]
    assert notes["time"].dt.day().to_list() == [3, 1, 9]
    ((_, table),) = finished.tasks
    assert table.rows() == [("v1", ["died"]), ("v2", []), ("f", [])]
    assert finished.columns.rows() == [("v1", "64"), ("v2", "40"), ("f", "65")]
    assert finished.flow[-1] == FlowCount(
        "notes of one stay joined by time; 1 without a time come first, 1 of no stay are left "
        "alone",
        6,
        3,
        {"later than the prediction time": 0, "joined to an earlier note of the stay": 3},
    )


def test_notes_after_the_first_prediction_time_of_their_stay_are_dropped_on_request(tmp_path):
    rows = ROWS.replace("c,1,v1,2150-01-01,1,2150-01-03", "c,1,v1,2150-01-01,1,2150-01-02")
    rows = rows.replace("d,1,v1,,1,2150-01-03", "d,1,v1,,1,").replace(
        "e,1,v1,2150-01-03,1", "e,1,v1,2150-01-03,"
    )
    notes, finished = joined_of(
        stream_of(tmp_path, rows, tasks=[UNTIL], policy="quarantine"), drops_late=True
    )
    assert notes["text"].to_list() == ["other", "second", "alone"]
    ((_, table),) = finished.tasks
    assert table["prediction_time"].dt.day().to_list() == [2, 2, 2]
    rejected = {
        "later than the prediction time": 2,
        "without a time": 1,
        "joined to an earlier note of the stay": 0,
    }
    assert finished.flow[-1].rejected == rejected
    with pytest.raises(DataError, match="1 of 3 stays have different labels or prediction times"):
        joined_of(stream_of(tmp_path, rows, tasks=[UNTIL], policy="quarantine"))


def test_a_label_that_stands_on_a_late_note_is_that_of_its_stay_and_lost_stays_are_counted(
    tmp_path,
):
    rows = (
        "a,1,v1,2150-01-01 09:00:00,,,63,early\n"
        "b,1,v1,2150-01-09 09:00:00,1,2150-01-02 00:30:00,63,discharge\n"
        "c,2,v2,2150-01-01 09:00:00,0,2150-01-02 00:30:00,40,early too\n"
        "d,3,v3,2150-01-09 09:00:00,1,2150-01-02 00:30:00,50,late alone\n"
        "e,4,,2150-01-09 09:00:00,1,2150-01-02 00:30:00,50,of no stay\n"
    )
    stream = stream_of(tmp_path, rows, tasks=[UNTIL], policy="quarantine", features=["age"])
    notes, finished = joined_of(stream, drops_late=True)
    assert notes["text"].to_list() == ["early", "early too", "of no stay"]
    ((_, table),) = finished.tasks
    told = table.select("note_id", "labels", day=table["prediction_time"].dt.day())
    assert told.rows() == [("v1", ["died"], 2), ("v2", [], 2), ("e", ["died"], 2)]
    assert finished.columns["note_id"].to_list() == ["v1", "v2", "e"]
    assert "1 of no stay are left alone, 1 stays have no note in time" in finished.flow[-1].stage


def test_notes_of_unknown_time_are_left_out_on_request_or_said_of_their_document(tmp_path):
    rows = (
        "a,1,v1,2150-01-02 09:00:00,1,2150-01-03 12:00:00,63,in time\n"
        "b,1,v1,,1,2150-01-03 12:00:00,63,of any time\n"
        "c,2,v2,2150-01-03,0,2150-01-03 12:00:00,40,of that day\n"
        "d,2,v2,2150-01-03 11:00:00,0,2150-01-03 12:00:00,40,in time\n"
        "e,3,v3,,0,,50,of a stay without a prediction time\n"
        "f,4,v4,2150-01-02,0,2150-01-03 12:00:00,40,of the day before\n"
    )
    notes, finished = joined_of(stream_of(tmp_path, rows, tasks=[UNTIL]))
    assert notes["text"].to_list()[:2] == ["of any time\n\nin time", "of that day\n\nin time"]
    ((_, table),) = finished.tasks
    that_day = "of the day of the prediction time, without an hour"
    assert table["unjudged"].to_list() == ["without a time", that_day, None, None]
    said = late_notes("died", "test", notes, table).not_judged.split("; ")
    held = [f"1 notes hold notes {that_day}", "1 notes hold notes without a time"]
    assert said == [*held, "1 notes lack a prediction time"]

    notes, finished = joined_of(stream_of(tmp_path, rows, tasks=[UNTIL]), drops_late=True)
    assert notes["text"].to_list() == [
        *("in time", "in time"),
        *("of a stay without a prediction time", "of the day before"),
    ]
    rejected = {"later than the prediction time": 0, "without a time": 1, that_day: 1}
    assert finished.flow[-1].rejected == rejected | {"joined to an earlier note of the stay": 0}
    assert finished.tasks[0][1]["unjudged"].to_list() == [None] * 4


def test_labels_that_disagree_stop_with_their_number_and_the_way_out(tmp_path):
    rows = ROWS.replace("e,1,v1,2150-01-03,1", "e,1,v1,2150-01-03,0")
    other = DIED | {"name": "other", "column": "until", "positive": "2150-01-03", "negative": None}
    stream = stream_of(tmp_path, rows, tasks=[DIED, other])
    told = r"notes of 1 of 3 stays have .* of task died; .* or set prepare\.join to none"
    with pytest.raises(DataError, match=told):
        joined_of(stream)
    notes, finished = joined_of(stream_of(tmp_path, rows, tasks=[DIED, other]), "other")
    assert notes.height == 3
    assert dict(finished.tasks[1][1].iter_rows()) == {"v1": ["other"], "v2": [], "f": []}


def test_a_stay_of_several_patients_and_notes_without_any_stay_stop(tmp_path):
    with pytest.raises(DataError, match=r"stay v1 has notes of several patients \(1 of 3 stays\)"):
        joined_of(stream_of(tmp_path, ROWS.replace("e,1,", "e,9,")))
    rows = ROWS.replace(",v1,", ",,").replace(",v2,", ",,")
    with pytest.raises(DataError, match="none of the 6 notes names its stay"):
        joined_of(stream_of(tmp_path, rows))


def test_a_note_whose_id_is_that_of_a_stay_has_an_id_apart_with_its_label_and_columns(tmp_path):
    rows = ROWS.replace("f,1,,", "v1,3,,")
    notes, finished = joined_of(stream_of(tmp_path, rows, features=["age"]))
    told = notes.select("note_id", "patient_id", "stay_id").rows()
    apart = "v1 (of no stay)"
    assert told == [("v1", "1", "v1"), ("v2", "2", "v2"), (apart, "3", None)]
    ((_, table),) = finished.tasks
    assert table.rows() == [("v1", ["died"]), ("v2", []), (apart, [])]
    assert finished.columns.rows() == [("v1", "64"), ("v2", "40"), (apart, "65")]


def test_ids_that_are_the_same_all_the_same_are_refused(tmp_path):
    rows = ROWS.replace("f,1,,", "v1,1,,") + "v1 (of no stay),1,,2150-01-09,0,2150-01-02,65,b\n"
    values = {"kind": "table", "path": tmp_path / "notes.csv", "columns": COLUMNS}
    stream_of(tmp_path, rows)
    source = config.parse(TableSource, values, "recipe")
    assert read(source).notes.height == 7
    told = r"note id v1 \(of no stay\) is given to 2 notes \(1 ids are repeated\)"
    with pytest.raises(DataError, match=told):
        read(source, "by time")


def test_without_patients_each_stay_counts_as_one(tmp_path):
    columns = {"text": "text", "note_id": "id", "stay_id": "visit"}
    stream = stream_of(tmp_path, columns=columns)
    (notes,) = stream.chunks
    assert notes["patient_id"].to_list() == ["v1", "v2", "v1", "v1", "v1", "f"]
    stages = [flow.stage for flow in stream.finish().flow]
    assert "no patient id: each stay counts as its own patient" in stages


def test_a_source_is_read_joined_on_request_and_sources_of_several_kinds_are_a_stay(tmp_path):
    stream_of(tmp_path)
    source = config.parse(
        TableSource,
        {"kind": "table", "path": tmp_path / "notes.csv", "columns": COLUMNS | {"time": "when"}},
        "recipe",
    )
    assert read(source).notes.height == 6
    assert read(source, "by time").notes["note_id"].to_list() == ["v1", "v2", "f"]
    stream = stream_of(tmp_path)
    (chunk,) = stream.chunks
    chunk = chunk.with_columns(source=chunk["note_id"].replace({"a": "radiology"}))
    mixed = joined(type(stream)(iter([chunk]), stream.finish))
    (notes,) = mixed.chunks
    assert notes["source"].to_list() == ["stay", "b", "f"]
