"""Times are read as tables write them, and never as something else."""

import pytest
from table_of_letters import CANARY, HEADER, cohort_of

from notetune.errors import DataError


@pytest.mark.parametrize(
    ("cell", "time"),
    [
        ("2150-01-02 03:04:05 UTC", "2150-01-02T03:04:05"),
        ("2150-01-02T03:04:05.250Z", "2150-01-02T03:04:05.250000"),
        ("2150-01-02", "2150-01-02T00:00:00"),
        ("2150-01-02+01:00", "2150-01-02T00:00:00"),
        ("2150-01-02Z", "2150-01-02T00:00:00"),
        ("21500102", "2150-01-02T00:00:00"),
        ("21500102T030405", "2150-01-02T03:04:05"),
        ("2.1.2150", "2150-01-02T00:00:00"),
        ("02.01.2150 03:04", "2150-01-02T03:04:00"),
        ("0001-01-01", "0001-01-01T00:00:00"),
        ("9999-12-31 23:59:59", "9999-12-31T23:59:59"),
    ],
)
def test_times_are_read_to_the_second(tmp_path, cell, time):
    content = HEADER + f"007,1,{cell},0,low,lung,{CANARY}\n"
    (found,) = cohort_of(tmp_path, content, tasks=[]).notes["time"]
    assert found.isoformat() == time


@pytest.mark.parametrize(
    "cell",
    [
        *("20240105103", "2150-01-02x03:04", "2150-01-02+03:04:05"),
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "10/23/2150 9:09 PM",
        "01.23.2150",
    ],
)
def test_times_that_cannot_be_are_said_by_row(tmp_path, cell):
    with pytest.raises(DataError, match=r"line 2: unreadable time; write times as .* in column"):
        cohort_of(tmp_path, HEADER + f"007,1,{cell},0,low,lung,{CANARY}\n")


@pytest.mark.parametrize(
    ("cell", "day_first", "time"),
    [
        ("3/4/2150", False, "2150-03-04T00:00:00"),
        ("3/4/2150", True, "2150-04-03T00:00:00"),
        ("03/04/2150 9:09", False, "2150-03-04T09:09:00"),
        ("10/23/2150 12:09:30 AM", False, "2150-10-23T00:09:30"),
        ("10/23/2150 12:09 pm", False, "2150-10-23T12:09:00"),
        ("23/10/2150 9:09:30.5PM", True, "2150-10-23T21:09:30.500000"),
        ("2150-01-02 03:04:05", True, "2150-01-02T03:04:05"),
    ],
)
def test_times_with_slashes_are_read_in_the_order_that_is_said(tmp_path, cell, day_first, time):
    content = HEADER + f"007,1,{cell},0,low,lung,{CANARY}\n"
    (found,) = cohort_of(tmp_path, content, tasks=[], day_first=day_first).notes["time"]
    assert found.isoformat() == time


@pytest.mark.parametrize("cell", ["10/23/2150", "3/4/50", "3/4/2150 13:09 PM", "3/4/2150 0:09 AM"])
def test_no_day_is_made_of_a_month_and_no_hour_of_another(tmp_path, cell):
    with pytest.raises(DataError, match=r"line 2: unreadable time; write times as .* in column"):
        cohort_of(tmp_path, HEADER + f"007,1,{cell},0,low,lung,{CANARY}\n", day_first=True)
