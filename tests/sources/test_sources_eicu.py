import csv
import os
import random
from pathlib import Path

import pytest

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.eicu import EicuSource

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
CANARY = "zygomorphic"
STAY = {
    "patientunitstayid": "11",
    "uniquepid": "002-1",
    "unitvisitnumber": "1",
    "hospitaldischargestatus": "Alive",
    "hospitaladmitoffset": "-60",
    "hospitaldischargeoffset": "1380",
    "age": "> 89",
    "gender": "Female",
    "ethnicity": "",
    "unittype": "MICU",
    "unitadmitsource": "Floor",
    "apacheadmissiondx": "Sepsis, renal",
}
TABLES = {
    "patient": [
        STAY,
        STAY
        | {
            "patientunitstayid": "12",
            "hospitaldischargestatus": "Expired",
            "hospitaldischargeoffset": "20100",
        },
        STAY | {"patientunitstayid": "13", "unitvisitnumber": "2"},
        STAY | {"patientunitstayid": "14", "hospitaldischargestatus": ""},
        STAY | {"patientunitstayid": "15", "hospitaldischargeoffset": "20101"},
    ],
    "admissionDx": [
        {
            "admissiondxid": row,
            "patientunitstayid": "11",
            "admitdxenteredoffset": minute,
            "admitdxpath": path,
        }
        for row, minute, path in [
            ("9", "30", "admission diagnosis|Elective|No"),
            ("10", "30", "admission diagnosis|All Diagnosis|Sepsis"),
            ("3", "1440", "admission diagnosis|Elective|No"),
            ("2", "1441", f"admission diagnosis|{CANARY}"),
        ]
    ],
    "pastHistory": [
        {
            "pasthistoryid": row,
            "patientunitstayid": "11",
            "pasthistoryenteredoffset": minute,
            "pasthistorypath": f"notes/Progress Notes/Past History/{path}",
        }
        for row, minute, path in [
            ("1", "20", "Organ Systems/Pulmonary/COPD/COPD  - moderate"),
            ("2", "10", "Organ Systems/Endocrine (R)/Asthma/asthma"),
            ("3", "5", "Past History Obtain Options/Performed"),
            ("4", "9999", f"Organ Systems/{CANARY}"),
        ]
    ],
    "physicalExam": [
        {
            "physicalexamid": row,
            "patientunitstayid": "11",
            "physicalexamoffset": minute,
            "physicalexampath": f"notes/Progress Notes/Physical Exam/{path}",
        }
        for row, minute, path in [
            ("1", "-5", "Neurologic/GCS/Eyes Score/4"),
            ("2", "5000", CANARY),
        ]
    ],
    "diagnosis": [
        {"patientunitstayid": stay, "icd9code": codes}
        for stay, codes in [
            ("11", "401.9, I10"),
            ("11", "401.1"),
            ("11", "E849.7, Y92.2"),
            ("11", "038.9"),
            ("12", "V45.81"),
            ("13", "250.0"),
            ("15", ""),
        ]
    ],
}


def write(folder, tables=TABLES, seed=None):
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        rows = list(rows)
        if seed is not None:
            random.Random(seed).shuffle(rows)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return EicuSource(kind="eicu", folder=folder)


def changed(**patient):
    return TABLES | {"patient": [STAY, STAY | {"patientunitstayid": "12"} | patient]}


def test_a_stay_is_written_from_what_was_entered_on_the_first_day(tmp_path):
    cohort = read(write(tmp_path))
    assert cohort.notes["note_id"].to_list() == ["stay-11", "stay-12", "stay-15"]
    assert cohort.notes["patient_id"].unique().to_list() == ["002-1"]
    assert cohort.notes["text"][0] == (
        "Patient: over 89 years old, Female, in MICU, admitted from Floor, with Sepsis, renal.\n"
        "Admission diagnosis: Elective, No; All Diagnosis, Sepsis.\n"
        "Past history: Endocrine (R), Asthma; Pulmonary, COPD, COPD  - moderate.\n"
        "Examination: Eyes Score, 4."
    )
    assert cohort.notes["text"][1].count("\n") == 0
    assert not cohort.notes["text"].str.contains(CANARY).any()


def test_labels_follow_the_published_recipe(tmp_path):
    cohort = read(write(tmp_path))
    labels = {task.name: dict(table.iter_rows()) for task, table in cohort.tasks}
    assert labels == {
        "mortality": {"stay-11": [], "stay-12": ["expired"], "stay-15": []},
        "length_of_stay": {
            "stay-11": ["<=3 days"],
            "stay-12": ["7-14 days"],
            "stay-15": [">14 days"],
        },
        "icd9": {"stay-11": ["038", "401", "E849"], "stay-12": ["V45"]},
    }
    assert cohort.flow == (
        FlowCount(
            "stays",
            5,
            3,
            {"not the first unit of the hospital stay": 1, "no hospital discharge status": 1},
            notice="1 of the 3 eICU stays ended before the prediction time, 24 hours after unit "
            "admission, with 0 of the 1 deaths; they are in the cohort, as in the published one.",
        ),
        FlowCount("task icd9", 3, 2, {"no diagnosis code": 1}),
    )


def test_the_order_of_rows_in_the_files_does_not_change_any_text(tmp_path):
    expected = read(write(tmp_path / "a")).notes.sort("note_id")
    for seed in range(3):
        got = read(write(tmp_path / f"b{seed}", seed=seed)).notes.sort("note_id")
        assert got.equals(expected)


@pytest.mark.parametrize(
    ("patient", "problem"),
    [
        ({"hospitaldischargestatus": CANARY}, "line 3: unknown hospitaldischargestatus"),
        ({"hospitaldischargeoffset": CANARY}, "line 3: hospitaldischargeoffset is not a whole"),
        ({"hospitaladmitoffset": ""}, "line 3: hospitaladmitoffset is not a whole number"),
        ({"uniquepid": ""}, "line 3: no uniquepid"),
        ({"patientunitstayid": "11"}, "line 3: stay id missing or repeated"),
    ],
)
def test_a_faulty_stay_stops_with_file_line_and_remedy(tmp_path, patient, problem):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, changed(**patient)))
    assert f"{tmp_path / 'patient.csv'}, {problem}" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_columns_beside_the_text_are_those_that_are_asked_for(tmp_path):
    source = write(tmp_path)
    assert read(source).columns is None
    cohort = read(source.model_copy(update={"features": ("age", "unittype")}))
    assert cohort.columns.columns == ["note_id", "age", "unittype"]
    assert cohort.columns["note_id"].to_list() == cohort.notes["note_id"].to_list()
    assert cohort.notes["stay_id"].to_list() == ["11", "12", "15"]
    assert cohort.columns["age"][0] == "90"  # "> 89" in the table


def test_nothing_is_said_where_every_stay_lasted_to_the_prediction_time(tmp_path):
    patients = [STAY | {"hospitaldischargeoffset": "1440"}]
    assert not read(write(tmp_path, TABLES | {"patient": patients})).flow[0].notice


@pytest.mark.parametrize("name", TABLES)
def test_each_table_must_be_there(tmp_path, name):
    source = write(tmp_path)
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(DataError, match=rf"holds no {name}\.csv and no {name}\.csv\.gz"):
        read(source)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "eicu_demo").is_dir(), reason="open data not found")
def test_the_demo_has_the_published_counts():
    cohort = read(EicuSource(kind="eicu", folder=DATA / "eicu_demo"))
    assert cohort.flow[0] == FlowCount(
        "stays",
        2_520,
        2_094,
        {"not the first unit of the hospital stay": 401, "no hospital discharge status": 25},
        notice="252 of the 2,094 eICU stays ended before the prediction time, 24 hours after unit "
        "admission, with 45 of the 177 deaths; they are in the cohort, as in the published one.",
    )
    tables = {task.name: (task, table) for task, table in cohort.tasks}
    deaths = tables["mortality"][1]["labels"].list.len().sum()
    assert deaths / 2_094 == pytest.approx(0.085, abs=0.0005)
    task, table = tables["length_of_stay"]
    counts = dict(table["labels"].list.first().value_counts().iter_rows())
    # Published as 777, 726, 391, 200: one stay of exactly 14 days (20,160 minutes) was put over 14.
    assert [counts[name] for name in task.classes] == [777, 726, 392, 199]
    assert len(tables["icd9"][0].classes) == 232
    # Published as 1,020, without section titles and with one character between parts of a path.
    assert cohort.notes["text"].str.len_chars().mean() == pytest.approx(1_020, rel=0.08)
    assert cohort.notes["patient_id"].n_unique() == 1_779
