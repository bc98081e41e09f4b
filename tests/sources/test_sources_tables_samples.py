"""Labels at prediction times: which note each is predicted from."""

import random
from datetime import datetime, timedelta

import polars as pl
import pytest
from table_of_visits import CANARY, IDS, NOTES, source_of

from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.notes.outcomes import label_matrix
from notetune.sources import read
from notetune.sources.cohort import SAMPLED_TASK_SCHEMA

DAY = datetime(2150, 1, 1)  # noqa: DTZ001
COLUMNS = IDS | {"time": "when"}
SAMPLES = {
    "subject_id": ["p0", "p0", "p0", "p1", "p9"],
    "prediction_time": [DAY + timedelta(hours=hours) for hours in (7, 8, 99, 56, 99)],
    "boolean_value": [True, False, True, True, True],
}


def at(*hours):
    return [DAY + timedelta(hours=one) for one in hours]


def samples_of(folder, frame, kind="binary", **changes):
    """The cohort of notes n0 and n1 of p0, n2 and n3 of p1, at 8 o'clock of four days."""
    (folder / "tasks").mkdir(exist_ok=True)
    pl.DataFrame(frame).write_parquet(folder / "tasks" / "0.parquet")
    (folder / "notes.csv").write_text(changes.pop("notes", NOTES))
    samples = {"path": folder / "tasks", **changes.pop("samples", {})}
    task = {"name": "death", "kind": kind, "column": "patient", "samples": samples}
    task |= changes.pop("task", {})
    notes = {"columns": COLUMNS, "tasks": [task]} | changes
    return read(source_of(folder / "notes.csv", **notes))


def test_each_sample_has_the_latest_note_at_or_before_its_prediction_time(tmp_path):
    cohort = samples_of(tmp_path, SAMPLES)
    ((task, table),) = cohort.tasks
    assert table.schema == pl.Schema(SAMPLED_TASK_SCHEMA)
    early, late, other = at(8, 99, 56)
    assert table.rows() == [
        ("n0", [], early, "n0@2150-01-01T08:00:00"),
        ("n1", ["death"], late, "n1@2150-01-05T03:00:00"),
        ("n2", ["death"], other, "n2@2150-01-03T08:00:00"),
    ]
    assert label_matrix(task, table).tolist() == [[0], [1], [1]]
    assert cohort.flow[1:] == (
        FlowCount("rows of the samples of task death", 5, 5, {}),
        FlowCount(
            "samples of task death, each with its latest note",
            5,
            3,
            {
                "no note with a time under the id": 1,
                "no note at or before the prediction time": 1,
            },
        ),
    )


def latest_note(notes, subject, moment):
    """By the definition: of all notes of the subject up to the moment, the last of the latest.

    Midnight is a day alone, which may have lasted beyond a moment of that day.
    """
    found = None
    for note_id, whose, time in notes:
        is_allowed = whose == subject and time is not None and time <= moment
        is_allowed = is_allowed and (time.hour > 0 or time.date() < moment.date())
        if is_allowed and (found is None or time >= found[1]):
            found = note_id, time
    return found and found[0]


def test_a_note_may_be_that_of_several_samples_and_matching_is_that_of_the_definition(tmp_path):
    rng = random.Random(0)
    notes = [
        (f"n{n}", f"s{rng.randrange(12)}", rng.choice([None, *at(*range(0, 40, 2))]))
        for n in range(80)
    ]
    lines = [f"{name},{whose},{time or ''},{CANARY}\n" for name, whose, time in notes]
    wanted = {(f"s{rng.randrange(14)}", rng.choice(at(*range(40)))): rng.random() < 0.5
              for _ in range(150)}  # fmt: skip
    frame = {
        "subject_id": [name for name, _ in wanted],
        "prediction_time": [moment for _, moment in wanted],
        "boolean_value": list(wanted.values()),
    }
    cohort = samples_of(tmp_path, frame, notes="id,patient,when,text\n" + "".join(lines))
    ((_, table),) = cohort.tasks
    expected = {}
    for (whose, moment), value in wanted.items():
        if note_id := latest_note(notes, whose, moment):
            expected[note_id, moment] = ["death"] if value else []
    found = {(note_id, moment): labels for note_id, labels, moment, _ in table.rows()}
    assert found == expected
    assert len(table) == len(expected) > 80
    assert table["sample_id"].is_unique().all()
    labels_of_note = table.group_by("note_id").agg(pl.col("labels").list.len().n_unique())
    assert (labels_of_note["labels"] == 2).sum() > 5  # the same note with different labels


def test_a_note_of_the_day_of_the_prediction_time_is_not_known_to_be_in_time(tmp_path):
    notes = "id,patient,when,text\n" + "".join(
        f"{name},{patient},{when},{CANARY} {name}\n"
        for name, patient, when in (
            ("before", "p0", "2150-01-04"),
            ("that day", "p0", "2150-01-05"),
            ("morning", "p1", "2150-01-05 07:00:00"),
            ("whole day", "p1", "2150-01-05"),
            ("alone", "p2", "2150-01-05"),
        )
    )
    hours = [4 * 24 + 8, 5 * 24, 4 * 24 + 8, 4 * 24 + 8]
    frame = {
        "subject_id": ["p0", "p0", "p1", "p2"],
        "prediction_time": at(*hours),
        "boolean_value": [True, True, False, True],
    }
    cohort = samples_of(tmp_path, frame, notes=notes)
    assert cohort.tasks[0][1]["note_id"].to_list() == ["before", "that day", "morning"]
    reason = "no note before the day of the prediction time, and one of that day without hour"
    assert cohort.flow[2].rejected[reason] == 1
    with pytest.raises(DataError, match=f"none of the 1 samples .* 1 have {reason}"):
        samples_of(tmp_path, {name: cells[3:] for name, cells in frame.items()}, notes=notes)


@pytest.mark.parametrize(
    ("values", "kind", "task", "expected"),
    [
        ({"boolean_value": [True, False]}, "binary", {}, [["death"], []]),
        ({"integer_value": [0, 1]}, "binary", {}, [[], ["death"]]),
        ({"integer_value": [3, 11]}, "multiclass", {}, [["3"], ["11"]]),
        ({"integer_value": [3, 4]}, "multiclass", {"borders": [3]}, [["<=3"], [">3"]]),
        ({"float_value": [2.5, 9.0]}, "multiclass", {"borders": [3]}, [["<=3"], [">3"]]),
        ({"categorical_value": ["low", "high"]}, "multiclass", {}, [["low"], ["high"]]),
        (
            {"boolean_value": [None, None], "categorical_value": ["low", "high"]},
            "multiclass",
            {},
            [["low"], ["high"]],
        ),
    ],
)
def test_the_filled_value_column_is_the_label(tmp_path, values, kind, task, expected):
    frame = {"subject_id": ["p0", "p1"], "prediction_time": at(99, 99)} | values
    ((_, table),) = samples_of(tmp_path, frame, kind, task=task).tasks
    assert table["labels"].to_list() == expected


def test_a_missing_label_and_a_repeated_row_are_counted(tmp_path):
    frame = {
        "subject_id": ["p0", "p0", "p1", "p1"],
        "prediction_time": at(99, 99, 99, 98),
        "boolean_value": [True, True, False, None],
    }
    cohort = samples_of(tmp_path, frame)
    left_out = {"same as an earlier row": 1, "missing label": 1}
    assert cohort.flow[1] == FlowCount("rows of the samples of task death", 4, 2, left_out)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"boolean_value": None, "value": [CANARY] * 5},
            "tasks: no column boolean_value, integer_value, float_value or categorical_value; name",
        ),
        (
            {"integer_value": [None, 1, None, None, None]},
            "row 2: boolean_value and integer_value are both filled; name the one that is meant",
        ),
        ({"prediction_time": [DAY, None, DAY, DAY, DAY]}, "row 2: missing prediction time; fill"),
        ({"subject_id": ["p0", None, "p1", "p1", "p1"]}, "row 2: missing row id"),
        ({"prediction_time": [DAY] * 5}, "row 2: an earlier row gives this subject_id another"),
        ({"prediction_time": [CANARY] * 5}, "row 1: unreadable time"),
        ({"boolean_value": None, "float_value": [0.5] * 5}, "row 1: float_value holds a number"),
        ({"boolean_value": None, "categorical_value": [CANARY] * 5}, "neither positive nor"),
        (
            {"prediction_time": at(0, 1, 2, 3, 4)},
            "none of the 5 samples of task death has a note: 1 have no note with a time under the "
            "id; 4 have no note at or before",
        ),
    ],
)
def test_a_faulty_table_of_samples_is_one_line(tmp_path, changes, problem):
    frame = {name: values for name, values in (SAMPLES | changes).items() if values}
    with pytest.raises(DataError, match=problem) as caught:
        samples_of(tmp_path, frame)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quarantine_leaves_bad_rows_out_and_lists_them(tmp_path):
    frame = SAMPLES | {"prediction_time": [None, *SAMPLES["prediction_time"][1:]]}
    lenient = {"policy": "quarantine", "max_rejected_share": 0.5}
    cohort = samples_of(tmp_path, frame, **lenient)
    assert cohort.rejections["reason"].to_list() == ["missing prediction time"]
    assert cohort.tasks[0][1].height == 3


@pytest.mark.parametrize("days", [(9, 2, None), (None, 9, 2), (2, None, 9)])
def test_a_merged_note_has_the_earliest_time_and_the_samples_of_all_its_ids(tmp_path, days):
    times = [f"2150-01-{day:02} 01:00" if day else "" for day in days]
    rows = [f"n{number},p,v{number},{time},same\n" for number, time in enumerate(times)]
    hours = {"subject_id": ["v0", "v1", "v2"], "prediction_time": at(48, 25, 24)}
    cohort = samples_of(
        tmp_path,
        hours | {"boolean_value": [True, False, True]},
        task={"column": "visit"},
        notes="".join(["id,patient,visit,when,text\n", *rows]),
        duplicate_texts="merge",
    )
    assert cohort.notes["time"].to_list() == at(25)
    ((_, table),) = cohort.tasks
    samples = table.select("note_id", "labels", "prediction_time").rows()
    assert samples == [("n0", ["death"], at(48)[0]), ("n0", [], at(25)[0])]


def test_other_columns_can_be_named_and_merged_notes_keep_their_samples(tmp_path):
    frame = {"who": ["p0"], "at": at(99), "boolean_value": [True], "other": ["0"]}
    named = {"id_column": "who", "prediction_time": "at", "label_column": "other"}
    ((_, table),) = samples_of(tmp_path, frame, samples=named, duplicate_texts="merge").tasks
    assert table["note_id"].to_list() == ["n1"]
    assert table["labels"].to_list() == [[]]


def test_a_task_with_samples_has_nothing_beside_them(tmp_path):
    with pytest.raises(ConfigError, match="a task with samples has no labels, codes or predict"):
        samples_of(tmp_path, SAMPLES, task={"prediction_time": "when"})
