import os
from datetime import datetime
from pathlib import Path

import pytest
from mimic3_tables import CANARY, Folder, flow_of, inputs, small, summary

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.mimic.mimic3 import Mimic3Source
from notetune.sources.mimic.tasks import read_admissions

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
TIME = datetime.fromisoformat


def test_admission_notes_and_every_usable_note_are_there_with_their_source(tmp_path):
    folder = small()
    folder.note("", "Sinus rhythm", CATEGORY="ECG", DESCRIPTION="Report", SUBJECT_ID=7)
    folder.note(
        100, "Round", CATEGORY="Physician ", CHARTTIME="2150-01-02 03:04:05", CHARTDATE="2150-01-02"
    )
    folder.note(100, "wrong patient", CATEGORY="Nursing", ISERROR=1)
    folder.note(100, " \n", CATEGORY="Nursing/other")
    folder.note(999, "elsewhere", CATEGORY="Radiology")
    cohort = read(folder.write(tmp_path))
    rows = cohort.notes.select("note_id", "patient_id", "source", "time").rows()
    assert rows == [
        ("note-1", "1", "discharge", TIME("2150-01-03")),
        ("note-2", "1", "discharge", TIME("2150-01-03")),
        ("note-3", "7", "ecg", TIME("2150-01-03")),
        ("note-4", "1", "physician", TIME("2150-01-02 03:04:05")),
        ("note-7", "1", "radiology", TIME("2150-01-03")),
        ("admission-100", "1", "admission", TIME("2150-01-01")),
        ("admission-200", "2", "admission", TIME("2150-01-01")),
    ]
    assert flow_of(cohort, "notes") == FlowCount(
        "notes", 7, 5, {"marked as error": 1, "empty text": 1}
    )
    assert not any(CANARY in text for text in inputs(cohort).values())


def test_each_admission_outside_the_cohort_is_counted_once_with_its_reason(tmp_path):
    folder = small().admit(300, kind="NEWBORN").admit(400).admit(500).admit(600)
    folder.note(300, summary("birth"))
    folder.note("", summary("nowhere"))
    folder.note(999, summary("unknown"))
    folder.note(400, summary("orphan"), DESCRIPTION="Addendum")
    folder.note(500, "Physical Exam:\nwell")
    folder.note(200, summary("fever"), CHARTDATE="2150-01-02")  # copy of 100's, but earlier
    cohort = read(folder.write(tmp_path))
    assert list(inputs(cohort)) == ["admission-100", "admission-200"]
    assert flow_of(cohort, "discharge summaries") == FlowCount(
        "discharge summaries",
        8,
        4,
        {
            "no admission id": 1,
            "admission not in ADMISSIONS": 1,
            "newborn admission": 1,
            "same text as a later summary": 1,
        },
    )
    assert flow_of(cohort, "admissions") == FlowCount(
        "admissions",
        4,
        2,
        {"addendum without a report": 1, "no complaint, illness or history": 1},
    )


def test_lower_case_headers_and_compressed_files_give_the_same_cohort(tmp_path):
    expected = read(small().write(tmp_path / "a"))
    for name, options in [("b", {"lower": True}), ("c", {"packed": True})]:
        cohort = read(small().write(tmp_path / name, **options))
        assert cohort.notes.equals(expected.notes)
        assert cohort.flow == expected.flow
        assert [task for task, _ in cohort.tasks] == [task for task, _ in expected.tasks]


FAULTS = {
    "ADMITTIME": ("ADMISSIONS", CANARY, "line 2: ADMITTIME is not a time"),
    "DISCHTIME": ("ADMISSIONS", "2150-02-30 00:00:00", "line 2: DISCHTIME is not a time"),
    "HOSPITAL_EXPIRE_FLAG": ("ADMISSIONS", CANARY, "line 2: HOSPITAL_EXPIRE_FLAG is neither"),
    "HADM_ID": ("ADMISSIONS", "100.0", "line 2: HADM_ID is not a whole number"),
    "SUBJECT_ID": ("ADMISSIONS", "", "line 2: SUBJECT_ID is not a whole number"),
    "ROW_ID": ("NOTEEVENTS", CANARY, "line 2: ROW_ID is not a whole number"),
    "CHARTDATE": ("NOTEEVENTS", CANARY, "line 2: CHARTDATE is not a time"),
    "CHARTTIME": ("NOTEEVENTS", CANARY, "line 2: CHARTTIME is not a time"),
}


@pytest.mark.parametrize("column", FAULTS)
def test_a_faulty_cell_stops_with_file_line_and_remedy(tmp_path, column):
    table, value, problem = FAULTS[column]
    folder = small()
    folder.tables[table][0][column] = value
    with pytest.raises(DataError) as caught:
        read(folder.write(tmp_path))
    assert f"{tmp_path / table}.csv, {problem}" in str(caught.value)
    assert "; write " in str(caught.value) or "; mend " in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_repeated_row_or_admission_stops_with_its_line(tmp_path):
    folder = small()
    folder.note(100, "again", ROW_ID=1, CATEGORY="Nursing")
    with pytest.raises(DataError, match=r"NOTEEVENTS\.csv, line 12: ROW_ID repeated"):
        read(folder.write(tmp_path / "a"))
    with pytest.raises(DataError, match=r"ADMISSIONS\.csv, line 4: HADM_ID repeated"):
        read(small().admit(100).write(tmp_path / "b"))


def test_a_folder_without_a_table_or_without_a_cohort_stops(tmp_path):
    for name in ("NOTEEVENTS", "ADMISSIONS", "DIAGNOSES_ICD", "PROCEDURES_ICD"):
        source = small().write(tmp_path / name)
        (source.folder / f"{name}.csv").unlink()
        with pytest.raises(DataError, match=rf"holds no {name}\.csv and no {name}\.csv\.gz"):
            read(source)
    folder = Folder().admit(100).note(100, "Allergies:\nnone")
    with pytest.raises(DataError, match="no admission has a discharge summary with a chief"):
        read(folder.write(tmp_path / "none"))


def test_notes_pass_in_chunks_and_an_admission_note_comes_with_its_last_summary(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("notetune.sources.mimic.summaries.NOTES_PER_CHUNK", 3)
    folder = small()
    for number in range(5):
        folder.note(100, f"Round {number}", CATEGORY="Nursing")
    folder.note(100, "Allergies:\nlatex", DESCRIPTION="Addendum")
    stream = folder.write(tmp_path).open()
    chunks = list(stream.chunks)
    assert [chunk["note_id"].to_list() for chunk in chunks] == [
        ["note-1", "note-2", "note-3"],
        ["admission-200"],
        ["note-4", "note-5", "note-6"],
        ["note-7", "note-8", "admission-100"],
    ]
    assert chunks[-1]["stay_id"].to_list() == ["100", "100", None]
    assert "ALLERGIES: latex" in chunks[-1]["text"][-1]
    tables = {task.name: table for task, table in stream.finish().tasks}
    assert tables["mortality"]["note_id"].to_list() == ["admission-100", "admission-200"]


def test_a_file_that_changes_between_the_two_readings_stops(tmp_path):
    source = small().write(tmp_path)
    stream = source.open()
    changed = Folder().note(999, "elsewhere", CATEGORY="ECG")
    changed.tables["NOTEEVENTS"][0]["ROW_ID"] = 77
    changed.write(tmp_path)
    list(stream.chunks)
    with pytest.raises(DataError, match="2 discharge summaries of the first reading were missing"):
        stream.finish()


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "mimic3_demo").is_dir(), reason="open data not found")
def test_the_demo_admissions_read_and_its_notes_are_reported_as_missing():
    folder = DATA / "mimic3_demo"
    admissions = read_admissions(folder)
    assert admissions.height == 129
    assert admissions["died"].sum() == 40
    assert admissions.select("admitted", "discharged").null_count().row(0) == (0, 0)
    with pytest.raises(DataError, match=r"NOTEEVENTS\.csv has a header and no rows"):
        read(Mimic3Source(kind="mimic3", folder=folder))
