"""The tasks of MIMIC-III: who is in them, and with which label."""

from mimic3_tables import flow_of, labels_of, small, summary

from notetune.audit import FlowCount
from notetune.sources import read


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
