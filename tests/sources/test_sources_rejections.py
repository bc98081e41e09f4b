"""Rows that cannot be used stop the reading, or are counted and listed."""

import re
import stat

import polars as pl
import pytest
from table_of_letters import (
    CANARY,
    DEATH,
    GRADE,
    HEADER,
    LENIENT,
    ROWS,
    SITES,
    cohort_of,
)

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources.cohort import REJECTIONS_SCHEMA
from notetune.sources.rejections import write_rejections

# Row to add on line 6, changes to the source, what the strict policy says, the quarantine's reason.
FAULTY_ROWS = {
    "empty text": ("010,3,,0,low,lung,\n", {}, "empty text"),
    "text of white space": ('010,3,,0,low,lung," \t\r\n"\n', {}, "empty text"),
    "repeated id": (
        f"008,3,,0,low,lung,{CANARY}\n",
        {},
        "note id repeated with another text",
    ),
    "repeated row": (
        f"008,3,,0,low,lung,{CANARY} three\n",
        {},
        "note id repeated with the same text",
    ),
    "no id": (f",3,,0,low,lung,{CANARY}\n", {}, "missing note id"),
    "no patient": (f"010,,,0,low,lung,{CANARY}\n", {}, "missing patient id"),
    "no time": (f"010,3,{CANARY},0,low,lung,{CANARY}\n", {}, "unreadable time"),
    "control characters in an id": (
        f"0\x0710,3,,0,low,lung,{CANARY}\n",
        {},
        "control characters in column id",
    ),
    "unknown class": (
        f"010,3,,0,low,{CANARY},{CANARY}\n",
        {"tasks": [SITES | {"classes": ["heart", "lung"]}, DEATH, GRADE]},
        "unknown class of task sites",
    ),
    "not binary": (
        f"010,3,,{CANARY},low,lung,{CANARY}\n",
        {},
        "label of task death is neither positive nor negative",
    ),
    "short row": (f"010,3,,0,low,{CANARY}\n", {}, "short row"),
    "long row": (f"010,3,,0,low,lung,{CANARY},x\n", {}, "long row"),
    "NUL byte": (f"010,3,,0,low,lung,{CANARY}\0\n", {}, "NUL byte"),
}


@pytest.mark.parametrize("case", FAULTY_ROWS)
def test_a_faulty_row_stops_with_file_line_and_remedy_or_is_counted(tmp_path, case):
    row, changes, reason = FAULTY_ROWS[case]
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, HEADER + ROWS + row, policy="strict", **changes)
    assert re.search(rf"{tmp_path / 'notes.csv'}, line 6: {reason}[:;(]?", str(caught.value))
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    cohort = cohort_of(tmp_path, HEADER + ROWS + row, **changes, **LENIENT)
    assert cohort.flow[0] == FlowCount("notes", 4, 3, {reason: 1})
    assert cohort.notes.equals(cohort_of(tmp_path).notes)
    ((file, line, note_id, why),) = cohort.rejections.iter_rows()
    assert (file, line, why) == (str(tmp_path / "notes.csv"), 6, reason)
    assert note_id in (None, "008", "010")


def test_quarantine_stops_above_its_share_and_says_what_is_wrong(tmp_path):
    faulty = HEADER + ROWS + f",3,,0,low,lung,{CANARY}\n" * 2 + f"010,3,,0,low,{CANARY}\n"
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, faulty, policy="quarantine", max_rejected_share=0.49)
    assert "3 of 6 rows cannot be used (2 missing note id, 1 short row; the first is" in str(
        caught.value
    )
    assert "line 6). That is 50.00% and at most 49.00% may be" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert cohort_of(tmp_path, faulty, policy="quarantine", max_rejected_share=0.5)
    with pytest.raises(DataError, match=r"at most 0\.10% may be"):
        cohort_of(tmp_path, faulty, policy="quarantine")


def test_the_list_of_rejected_rows_is_private_and_harmless_in_a_spreadsheet(tmp_path, umask):
    rows = [("a.csv", 2, "=cmd()", "empty text"), ("a.csv", 3, None, "short row")]
    path = tmp_path / "rejections.csv"
    write_rejections(pl.DataFrame(rows, schema=REJECTIONS_SCHEMA, orient="row"), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == (
        "file,line,note_id,reason\na.csv,2,'=cmd(),empty text\na.csv,3,,short row\n"
    )
