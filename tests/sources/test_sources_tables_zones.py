"""Times with and without a time zone are not held against each other."""

import polars as pl
import pytest
from table_of_visits import CANARY, IDS, source_of

from notetune.errors import DataError
from notetune.sources import read

COLUMNS = IDS | {"time": "when"}
DIED = {"name": "died", "kind": "binary", "column": "died"}
UNTIL = DIED | {"prediction_time": "until"}
NAIVE, ZONED, DAY = "2020-01-01 00:30:00", "2020-01-01T00:30:00+02:00", "2020-01-01"


def notes_of(folder, when, until, **changes):
    rows = [f"n{n},p{n},v{n},{time},{until},{n % 2},{CANARY} {n}" for n, time in enumerate(when)]
    path = folder / "notes.csv"
    path.write_text("\n".join(["id,patient,visit,when,until,died,text", *rows]))
    return read(source_of(path, **{"columns": COLUMNS, "tasks": [UNTIL], **changes}))


def labels_of(folder, until):
    (folder / "deaths.csv").write_text(f"visit,died,until\nv0,1,{until}\nv1,0,{until}\n")
    table = {"path": folder / "deaths.csv", "id_column": "visit", "label_column": "died"}
    return {"tasks": [UNTIL | {"column": "visit", "labels": table}]}


def samples_of(folder, until):
    frame = {"subject_id": ["p0", "p1"], "until": [until] * 2, "died": ["1", "0"]}
    pl.DataFrame(frame).write_csv(folder / "samples.csv")
    table = {"path": folder / "samples.csv", "prediction_time": "until", "label_column": "died"}
    return {"tasks": [DIED | {"column": "patient", "samples": table}]}


def of_notes(folder, until):
    return {}


@pytest.mark.parametrize("changes_of", [of_notes, labels_of, samples_of])
@pytest.mark.parametrize(
    ("when", "until", "said"),
    [
        (ZONED, NAIVE, "times in column when have a time zone and times in column until have none"),
        (ZONED, DAY, "times in column when have a time zone and times in column until have none"),
        (NAIVE, ZONED, "times in column until have a time zone and times in column when have none"),
    ],
)
def test_a_prediction_time_unlike_the_times_of_notes_is_refused(
    tmp_path, changes_of, when, until, said
):
    with pytest.raises(DataError, match=said) as caught:
        notes_of(tmp_path, [when] * 2, until, **changes_of(tmp_path, until))
    told = str(caught.value)
    assert "write all of them with their zone" in told
    assert CANARY not in told
    assert "\n" not in told


@pytest.mark.parametrize("changes_of", [of_notes, labels_of, samples_of])
@pytest.mark.parametrize(("when", "until"), [(ZONED, ZONED), (NAIVE, NAIVE), (DAY, ZONED)])
def test_times_that_are_alike_are_compared_and_a_day_goes_with_both(
    tmp_path, changes_of, when, until
):
    until = until.replace("2020-01-01", "2020-01-03")
    changes = changes_of(tmp_path, until)
    ((_, table),) = notes_of(tmp_path, [when] * 2, until, **changes).tasks
    assert table.height == 2
    hour = 22 if until.endswith("+02:00") else 0
    assert table["prediction_time"].dt.hour().to_list() == [hour] * 2


def test_one_note_unlike_the_others_is_refused_and_goes_where_nothing_is_compared(tmp_path):
    when = (NAIVE, NAIVE, ZONED)
    with pytest.raises(DataError, match="line 4: times in column when have a time zone"):
        notes_of(tmp_path, when, NAIVE)
    assert notes_of(tmp_path, when, NAIVE, tasks=[DIED]).notes.height == 3


def test_times_of_notes_that_name_their_stay_are_compared(tmp_path):
    columns = COLUMNS | {"stay_id": "visit"}
    with pytest.raises(DataError, match="line 4: times in column when have a time zone"):
        notes_of(tmp_path, (NAIVE, DAY, ZONED), NAIVE, tasks=[DIED], columns=columns)
    assert notes_of(tmp_path, (ZONED, DAY), NAIVE, tasks=[DIED], columns=columns).notes.height == 2
