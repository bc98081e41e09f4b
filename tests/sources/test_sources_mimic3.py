import os
from datetime import datetime
from pathlib import Path

import pytest
from mimic3_tables import CANARY, Folder, flow_of, inputs, labels_of, small, summary

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources import Mimic3Source, open_notes, read
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


def test_a_task_without_any_label_is_absent_and_the_flow_says_why(tmp_path):
    folder = small()
    folder.tables["PROCEDURES_ICD"] = [
        row | {"HADM_ID": "999"} for row in folder.tables["PROCEDURES_ICD"]
    ]
    cohort = read(folder.write(tmp_path))
    assert [task.name for task, _ in cohort.tasks] == ["mortality", "length_of_stay", "diagnoses"]
    assert flow_of(cohort, "task procedures").kept == 0


def test_mortality_leaves_out_texts_that_state_the_death(tmp_path):
    folder = small().admit(300, 3, died=1)
    folder.note(300, "HPI:\nThe patient expired in the ED.")
    cohort = read(folder.write(tmp_path))
    assert labels_of(cohort, "mortality") == {"admission-100": [], "admission-200": ["died"]}
    assert flow_of(cohort, "task mortality").rejected == {"the text states the death": 1}


def test_length_of_stay_rounds_to_a_tenth_of_a_day_and_counts_survivors_only(tmp_path):
    expected = {
        0.5: "<=3 days",
        3.0: "<=3 days",
        3.04: "<=3 days",
        3.06: "3-7 days",
        7.0: "3-7 days",
        7.06: "7-14 days",
        14.0: "7-14 days",
        14.1: ">14 days",
    }
    folder = small()
    for number, days in enumerate(expected):
        folder.admit(300 + number, days=days).note(300 + number, summary(f"case {number}"))
    folder.admit(400, days=-0.2).note(400, summary("back in time"))
    folder.admit(401).note(401, summary("no time"))
    folder.tables["ADMISSIONS"][-1]["DISCHTIME"] = ""
    cohort = read(folder.write(tmp_path))
    got = labels_of(cohort, "length_of_stay")
    assert [got[f"admission-{300 + number}"] for number in range(8)] == [
        [name] for name in expected.values()
    ]
    assert len(got) == 9
    assert flow_of(cohort, "task length_of_stay").rejected == {
        "died in hospital": 1,
        "no time of admission or discharge": 1,
        "discharged before admission": 1,
    }


def test_codes_keep_their_zeros_and_admissions_without_codes_are_left_out(tmp_path):
    folder = small().admit(300).note(300, summary("pain")).code(300, "", "E8497", "8500")
    folder.code(999, "250")
    cohort = read(folder.write(tmp_path))
    assert labels_of(cohort, "diagnoses") == {
        "admission-100": ["008", "V30"],
        "admission-200": ["008", "401"],
        "admission-300": ["850", "E849"],
    }
    assert labels_of(cohort, "procedures") == {"admission-100": ["006", "360"]}
    assert flow_of(cohort, "task procedures").rejected == {"no code in PROCEDURES_ICD": 2}
    classes = {task.name: task.classes for task, _ in cohort.tasks}
    assert classes["diagnoses"] == ("008", "401", "850", "E849", "V30")
    assert "ventilation" not in classes


def test_ventilation_is_judged_on_the_first_icu_stay_of_the_ventilated(tmp_path):
    folder = small()
    for hadm, stay, entered in [
        (100, 2002, "2150-01-01"),
        (100, 2001, "2150-01-05"),
        (200, 2010, "2150-01-01"),
        (300, 2020, "2150-01-01"),
    ]:
        folder.add("ICUSTAYS", HADM_ID=hadm, ICUSTAY_ID=stay, INTIME=f"{entered} 00:00:00")
    folder.admit(300).note(300, summary("pain")).admit(400).note(400, summary("no stay"))
    for stay, start, end in [
        (2001, "2150-01-05 00:00:00", "2150-01-20 00:00:00"),
        (2002, "2150-01-01 00:00:00", "2150-01-02 00:00:00"),
        (2002, "2150-01-07 00:00:00", "2150-01-08 00:00:00"),
        (2010, "2150-01-01 00:00:00", "2150-01-08 00:00:01"),
    ]:
        folder.add("VENTDURATIONS", icustay_id=stay, ventnum=1, starttime=start, endtime=end)
    cohort = read(folder.write(tmp_path))
    assert labels_of(cohort, "ventilation") == {
        "admission-100": [],
        "admission-200": ["prolonged"],
    }
    assert flow_of(cohort, "task ventilation") == FlowCount(
        "task ventilation", 4, 2, {"not ventilated in the first ICU stay": 2}
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


def test_an_id_written_as_a_decimal_stops_in_every_table(tmp_path):
    for number, (table, column) in enumerate(
        [("NOTEEVENTS", "HADM_ID"), ("DIAGNOSES_ICD", "HADM_ID"), ("PROCEDURES_ICD", "HADM_ID")]
    ):
        folder = small()
        folder.tables[table][0][column] = "100.0"
        with pytest.raises(DataError, match=rf"{table}\.csv, line 2: HADM_ID is not a whole"):
            read(folder.write(tmp_path / str(number)))


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
    stream = open_notes(folder.write(tmp_path))
    chunks = list(stream.chunks)
    assert [chunk["note_id"].to_list() for chunk in chunks] == [
        ["note-1", "note-2", "note-3"],
        ["admission-200"],
        ["note-4", "note-5", "note-6"],
        ["note-7", "note-8", "admission-100"],
    ]
    assert "ALLERGIES: latex" in chunks[-1]["text"][-1]
    tables = {task.name: table for task, table in stream.finish().tasks}
    assert tables["mortality"]["note_id"].to_list() == ["admission-100", "admission-200"]


def test_a_file_that_changes_between_the_two_readings_stops(tmp_path):
    source = small().write(tmp_path)
    stream = open_notes(source)
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
