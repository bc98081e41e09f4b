"""Reports and addenda of one admission become one text."""

import pytest
from mimic3_tables import inputs, small, summary

from notetune.sources import read


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_report_and_addenda_are_joined_by_day_then_row_whatever_the_order_in_the_file(
    tmp_path, seed
):
    folder = small()
    for row, day, heading in [(55, "03", "HPI"), (60, "02", "Allergies"), (50, "03", "HPI")]:
        folder.note(
            100,
            f"{heading}:\nrow {row}",
            ROW_ID=row,
            CHARTDATE=f"2150-01-{day}",
            DESCRIPTION="Addendum",
        )
    text = inputs(read(folder.write(tmp_path, seed=seed)))["admission-100"]
    assert "PRESENT ILLNESS: row 50\n" in text  # the first of the two on one day
    assert "ALLERGIES: row 60\n" in text
    assert "CHIEF COMPLAINT: fever\n" in text


def test_two_copies_on_one_day_keep_the_later_row(tmp_path):
    folder = small().admit(300, 3).note(300, summary("fever"))
    got = inputs(read(folder.write(tmp_path)))
    assert set(got) == {"admission-200", "admission-300"}
