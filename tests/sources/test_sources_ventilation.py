import datetime as dt
from collections import defaultdict
from itertools import groupby

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mimic3_tables import CANARY, flow_of, labels_of, small

from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.mimic.ventilation import charted_episodes, episodes_of

START = dt.datetime.fromisoformat("2150-01-01")
SIGN = {"vent": (True, False, False), "oxygen": (False, True, False), "out": (False, False, True)}
SIGN |= {"both": (True, True, False), "vent out": (True, False, True)}
SCHEMA = {"stay_id": pl.String, "time": pl.Datetime("us")} | dict.fromkeys(
    ("ventilated", "oxygen", "extubated"), pl.Boolean
)


def at(hours):
    return START + dt.timedelta(hours=hours)


def episodes(*signs, stay="1"):
    """Hours of start and end of each episode, from (hours, sign)."""
    rows = [(stay, at(hours), *SIGN[sign]) for hours, sign in signs]
    found = episodes_of(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    hour = dt.timedelta(hours=1)
    return [((start - START) / hour, (end - START) / hour) for _, start, end in found.iter_rows()]


def test_settings_within_eight_hours_are_one_episode_and_a_longer_gap_starts_another():
    assert episodes((0, "vent"), (8, "vent"), (16, "vent")) == [(0, 16)]
    assert episodes((0, "vent"), (5, "vent"), (13.1, "vent"), (14, "vent")) == [(0, 5), (13.1, 14)]


def test_an_extubation_ends_the_episode_that_it_belongs_to():
    assert episodes((0, "vent"), (3, "out"), (4, "vent"), (5, "vent")) == [(0, 3), (4, 5)]
    assert episodes((0, "vent"), (30, "out")) == [(0, 30)]


def test_oxygen_without_the_ventilator_ends_the_episode_at_its_last_setting():
    got = episodes((0, "vent"), (2, "vent"), (3, "oxygen"), (4, "vent"), (6, "vent"))
    assert got == [(0, 2), (4, 6)]
    assert episodes((0, "vent"), (2, "both"), (4, "vent")) == [(0, 4)]


def test_an_episode_needs_the_ventilator_and_two_moments():
    assert episodes((0, "out"), (2, "out")) == []
    assert episodes((0, "vent")) == []
    assert episodes((0, "vent"), (0, "out")) == []
    assert episodes((0, "oxygen"), (1, "oxygen")) == []


def test_what_is_charted_at_one_moment_belongs_to_one_episode():
    assert episodes((0, "vent"), (1, "vent"), (2, "vent out"), (2, "out")) == [(0, 1)]


def by_definition(signs):
    """The published query, row by row."""
    merged = sorted(set(signs), key=lambda row: (row[0], row[3], row[1:]))
    starts, last_ventilated, last_extubated = defaultdict(int), None, False
    for time, ventilated, oxygen, extubated in merged:
        is_new = oxygen and not ventilated
        if ventilated or extubated:
            is_new |= last_extubated
            last_extubated = extubated
        if ventilated:
            is_new |= last_ventilated is not None and time > last_ventilated + 8
            last_ventilated = time
        starts[time] += is_new
    number = {time: sum(n for t, n in starts.items() if t <= time) for time in starts}
    counting = [row for row in merged if row[1] or row[3]]
    found = []
    for _, rows in groupby(counting, key=lambda row: number[row[0]]):
        rows = list(rows)
        first, last = rows[0][0], rows[-1][0]
        if first != last and any(row[1] for row in rows):
            found.append((first, last))
    return found


@given(
    st.lists(
        st.tuples(st.integers(0, 12).map(lambda n: 3 * n), st.sampled_from(sorted(SIGN))),
        min_size=1,
        max_size=25,
    )
)
def test_episodes_follow_the_published_query(signs):
    # As in the query, the settings of one moment are one row; an extubation may be another.
    charted = {}
    rows = set()
    for hour, name in signs:
        if name == "out":
            rows.add((hour, *SIGN[name]))
        else:
            charted[hour] = tuple(a or b for a, b in zip(charted.get(hour, (False,) * 3),
                                                         SIGN[name], strict=True))  # fmt: skip
    rows |= {(hour, *sign) for hour, sign in charted.items()}
    frame = [("1", at(hour), *sign) for hour, *sign in rows]
    got = episodes_of(pl.DataFrame(frame, schema=SCHEMA, orient="row"))
    hour = dt.timedelta(hours=1)
    assert [((s - START) / hour, (e - START) / hour) for _, s, e in got.iter_rows()] == (
        by_definition(rows)
    )


def test_stays_do_not_mix():
    rows = [("1", at(0), *SIGN["vent"]), ("2", at(1), *SIGN["out"]), ("1", at(2), *SIGN["vent"])]
    got = episodes_of(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    assert got.rows() == [("1", at(0), at(2))]


def charted(folder, *rows, removals=()):
    """CHARTEVENTS rows of stay 2001: (hours, item, value[, error])."""
    for hours, item, value, *error in rows:
        folder.add("CHARTEVENTS", ICUSTAY_ID=2001, ITEMID=item, CHARTTIME=at(hours), VALUE=value,
                   ERROR=error[0] if error else "")  # fmt: skip
    for hours, item in removals:
        folder.add("PROCEDUREEVENTS_MV", ICUSTAY_ID=2001, ITEMID=item, STARTTIME=at(hours))
    return folder


def test_rows_of_charts_say_what_the_item_and_the_value_say(tmp_path):
    rows = [
        (0, 720, "CMV"), (0, 211, "88"),
        (4, 720, "Other/Remarks"), (5, 223848, "Other"),
        (6, 467, "Ventilator"), (6, 467, "Cannula"),
        (7, 224700, ""), (7.5, 224700, "5", "1"),
        (20, 223849, "PSV"), (21, 226732, "Trach mask "), (22, 445, "8"), (23, 640, "Extubated"),
        (24, 640, "Intubated"), (25, 543, "20"), (26, 468, "Cannula"), (27, 220339, "5"),
    ]  # fmt: skip
    folder = charted(small(), *rows, removals=[(28, 227194), (29, 224385), (30, 225477)])
    folder.add("CHARTEVENTS", ITEMID=445, CHARTTIME=at(40), VALUE="8")  # in no ICU stay
    source = folder.write(tmp_path)
    got = charted_episodes(source.folder)
    hours = [(row[1] - START, row[2] - START) for row in got.iter_rows()]
    hour = dt.timedelta(hours=1)
    assert [(a / hour, b / hour) for a, b in hours] == [(0, 6), (22, 23), (25, 28)]
    assert got["stay_id"].unique().to_list() == ["2001"]


def with_stays(folder):
    for hadm, stay in ((100, 2001), (200, 2010)):
        folder.add("ICUSTAYS", HADM_ID=hadm, ICUSTAY_ID=stay, INTIME="2150-01-01 00:00:00")
    folder.add("VENTDURATIONS", icustay_id=2010, starttime=at(0), endtime=at(24 * 9))
    return folder


def test_charts_come_before_durations_unless_a_source_is_named(tmp_path):
    long = [(hours, 445, "8") for hours in range(0, 24 * 8, 6)]
    folder = charted(with_stays(small()), *long, removals=[(24 * 8, 227194)])
    cohort = read(folder.write(tmp_path))
    assert labels_of(cohort, "ventilation") == {"admission-100": ["prolonged"]}
    cohort = read(folder.write(tmp_path, ventilation="ventdurations"))
    assert labels_of(cohort, "ventilation") == {"admission-200": ["prolonged"]}
    cohort = read(folder.write(tmp_path, ventilation="none"))
    assert "ventilation" not in {task.name for task, _ in cohort.tasks}


def test_exactly_seven_days_are_not_prolonged(tmp_path):
    folder = with_stays(small())
    for end, labels in ((at(24 * 7), []), (at(24 * 7 + 0.1), ["prolonged"])):
        folder.tables["VENTDURATIONS"][0]["endtime"] = f"{end:%Y-%m-%d %H:%M:%S}"
        cohort = read(folder.write(tmp_path))
        assert labels_of(cohort, "ventilation") == {"admission-200": labels}
        assert flow_of(cohort, "task ventilation").rejected == {
            "not ventilated in the first ICU stay": 1
        }


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("ICUSTAY_ID", "2001.0", "line 2: ICUSTAY_ID is not a whole number"),
        ("CHARTTIME", CANARY, "line 2: CHARTTIME is not a time"),
        ("CHARTTIME", "", "line 2: CHARTTIME is empty"),
    ],
)
def test_a_faulty_chart_row_stops_with_its_line(tmp_path, column, value, problem):
    folder = charted(small(), (0, 445, "8"), removals=[(3, 227194)])
    folder.tables["CHARTEVENTS"][0][column] = value
    source = folder.write(tmp_path)
    with pytest.raises(DataError) as caught:
        charted_episodes(source.folder)
    assert f"{tmp_path / 'CHARTEVENTS.csv'}, {problem}" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_charts_without_the_procedures_stop(tmp_path):
    source = charted(small(), (0, 445, "8")).write(tmp_path)
    with pytest.raises(DataError, match="holds no PROCEDUREEVENTS_MV"):
        charted_episodes(source.folder)
