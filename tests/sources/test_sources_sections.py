import time

import pytest

from notetune.notes.clean import clean_text
from notetune.sources.mimic.sections import (
    SECTION_LABELS,
    admission_sections,
    admission_text,
    has_core_sections,
    states_death,
)

NOTE = """Admission Date:  [**2151-7-16**]       Discharge Date:  [**2151-8-4**]

Service: MEDICINE

Allergies:
Penicillins / Codeine

Attending:[**First Name3 (LF) 12**]
Chief Complaint:
Chest pain

Major Surgical or Invasive Procedure:
CABG x 3

History of Present Illness:
60M with chest pain. Seen for
follow-up of present illness: stable until today.
In the ED, vitals were:

T 98.6, HR 120.

Past Medical History:
HTN
DM2

Social History:
Retired.

Family History:
Father died at 60.

Physical Exam:
VS: T 98
General: NAD

HEENT: PERRL

Pertinent Results:
WBC 12

Brief Hospital Course:
Went to surgery and expired.

Medications on Admission:
Aspirin

Discharge Medications:
Morphine
"""

EXPECTED = {
    "CHIEF COMPLAINT": "Chest pain",
    "PRESENT ILLNESS": (
        "60M with chest pain. Seen for follow-up of present illness: stable until today. "
        "In the ED, vitals were: T 98.6, HR 120."
    ),
    "MEDICAL HISTORY": "HTN DM2",
    "MEDICATION ON ADMISSION": "Aspirin",
    "ALLERGIES": "Penicillins / Codeine",
    "PHYSICAL EXAM": "VS: T 98 General: NAD HEENT: PERRL",
    "FAMILY HISTORY": "Father died at 60.",
    "SOCIAL HISTORY": "Retired.",
}


def sections(text):
    return admission_sections(clean_text(text))


def test_a_typical_summary_gives_its_eight_sections_and_nothing_after_admission():
    assert sections(NOTE) == EXPECTED
    assert tuple(EXPECTED) == SECTION_LABELS


@pytest.mark.parametrize("line_break", ["\r\n", "\r", "\u2028"])
def test_other_line_breaks_give_the_same_sections(line_break):
    assert sections(NOTE.replace("\n", line_break)) == EXPECTED


def test_blank_lines_of_one_space_and_extra_blank_lines_change_nothing():
    assert sections(NOTE.replace("\n\n", "\n \n")) == EXPECTED
    assert sections(NOTE.replace("\n\n", "\n\n\n\n")) == EXPECTED


def test_an_empty_section_does_not_take_the_next_one():
    got = sections("Chief Complaint:\n\nMajor Surgical or Invasive Procedure:\nCABG\n\nHPI:\nPain")
    assert got["CHIEF COMPLAINT"] == ""
    assert got["PRESENT ILLNESS"] == "Pain"
    assert "CABG" not in admission_text(got)


def test_a_section_at_the_end_of_the_note_is_kept():
    assert sections("Chief Complaint:\nfever")["CHIEF COMPLAINT"] == "fever"


@pytest.mark.parametrize(
    "leak",
    [
        "Brief Hospital Course:\nLEAK",
        "HOSPITAL COURSE:  LEAK",
        "Hospital Course by Problem:\nLEAK",
        "Brief Hospital Course\nLEAK",
        "Discharge Diagnosis:\nLEAK",
        "Discharge Exam: LEAK",
        "Exam on discharge: LEAK",
        "DISCHARGE CONDITION: LEAK",
        "Pertinent Results:\nLEAK",
        "Followup Instructions:\nLEAK",
        "Addendum: LEAK",
        "\nStudies (2151-7-20):\nLEAK",
        "\nCARDIAC CATHETERIZATION: LEAK",
    ],
)
@pytest.mark.parametrize("heading", ["Chief Complaint", "Past Medical History", "Physical Exam"])
def test_what_came_after_admission_ends_a_section_even_without_a_blank_line(heading, leak):
    text = f"{heading}:\nbefore\n{leak}\n\nmore LEAK\nand: LEAK"
    got = sections(text)
    assert sum(body == "before" for body in got.values()) == 1
    assert "LEAK" not in admission_text(got)


AFTER_ADMISSION = """Hospital Course, by system:
BRIEF HOSPITAL COURSE, BY ISSUE:
HOSPITAL COURSE BY ISSUE/PROBLEM AND INCLUDING PERTINENT LABORATORY DATA:
BRIEF HOSPITAL COURSE BY PROBLEM LIST AND ORGAN SYSTEM IN DETAIL:
=== BRIEF HOSPITAL COURSE ===
** HOSPITAL COURSE **
1. Hospital course:
HOSP COURSE:
Course in Hospital: she did well
MICU Course: pt was intubated
CCU course: pt was intubated
Summary of stay: long
Transitional issues: none
ACTIVE ISSUES:
Active issues
PERTINENT RESULTS, LABS:
=== DISCHARGE EXAM ===
==DISCHARGE PHYSICAL EXAM==
** DISCHARGE **
[DISCHARGE]
<DISCHARGE EXAM>
(discharge)
--- On discharge ---
>> DISCHARGE:
- DISCHARGE EXAM:
# Discharge exam:
D/C exam:
DC EXAM:
EXAM ON D/C:
Labs on discharge
on discharge:
on discharge: T 97, stable
Discharge Exam, ___:
___ 07:00 DISCHARGE EXAM:
[**2151-8-4**] 07:00 Discharge exam:
Discharge vitals T98, HR 70:
Vitals at discharge T 98
Upon discharge VS 98
DISCHARGE EXAM VS T98 BP 120/80, comfortable
PHYSICAL EXAM ON TRANSFER:
Hosp. Course: pt was intubated
Hospitalization course:
Course in the ICU:
Hospital course - pt was intubated
Hospital Course -- by issue
Discharge exam
Discharge physical exam ___
D/C labs
MEDICATIONS ON TRANSFER:"""


@pytest.mark.parametrize("gap", ["\n\n", "\n"])
@pytest.mark.parametrize("heading", ["History of Present Illness", "Physical Exam"])
@pytest.mark.parametrize("line", AFTER_ADMISSION.splitlines())
def test_a_heading_of_what_came_after_admission_is_seen_in_every_guise(line, heading, gap):
    got = sections(f"{heading}:\nbefore.{gap}{line}\nLEAK\n\nDischarge Disposition:\nExpired")
    assert [body for body in got.values() if body] == ["before."]


PROSE = """She was transferred to the MICU for pressors.
Sudden cardiac death - father
OSH ICU course: intubated
transferred to the MICU: intubated there, then weaned
Transferred from rehab with fever
discharged from rehab last week
Discharged from rehab last week: no cough since
was discharged on Monday. At home: well
discharge, when she noted the following: cough
Since her last discharge, she has had: nausea, fever
Since discharge: no fever
Per discharge summary: EF 30%
after discharge from rehab, new symptoms: cough
Her MICU course was long and complicated
hospital course was complicated by: pneumonia
Vitals on transfer to the floor: T 98, HR 90
ED course: given fluids
No active issues
Moved to Washington, DC
DC cardioversion: in 2150
Vaginal discharge
Nasal discharge: none
Lasix (stopped at discharge): 40 mg
Sudden death of a brother at 40
# CHF: EF 30%
Chest pain - none since discharge
was stable for discharge - and then fell
on discharge."""


@pytest.mark.parametrize("line", PROSE.splitlines())
def test_a_sentence_of_an_earlier_stay_or_of_the_body_is_no_such_heading(line):
    got = sections(f"History of Present Illness:\nShe is ill and\n{line}\nand more.\n\nSex: F")
    assert got["PRESENT ILLNESS"] == f"She is ill and {line} and more."


@pytest.mark.parametrize("complaint", ["Vaginal discharge", "NASAL DISCHARGE", "Wound Discharge"])
def test_a_discharge_of_the_body_is_a_complaint(complaint):
    assert sections(f"Chief Complaint:\n{complaint}")["CHIEF COMPLAINT"] == complaint


def test_headings_in_other_spellings_are_found():
    text = """CHIEF COMPLAINT:  Fever.
HISTORY OF PRESENT ILLNESS:  A 70-year-old.
PAST MEDICAL HISTORY (per OMR):  Gout.
PHYSICAL EXAMINATION ON ADMISSION:  Febrile.
ADMISSION MEDICATIONS: None
FAMILY MEDICAL HISTORY: Unknown"""
    got = sections(text)
    assert list(got.values()) == [
        "Fever.",
        "A 70-year-old.",
        "Gout.",
        "None",
        "",
        "Febrile.",
        "Unknown",
        "",
    ]


def test_only_the_first_exam_counts():
    text = "Physical Exam:\n\nPertinent Results:\n1\n\nPhysical Exam:\ncomatose\n\nHPI:\nfell"
    assert sections(text)["PHYSICAL EXAM"] == ""
    assert sections(text)["PRESENT ILLNESS"] == "fell"


def test_a_wrapped_sentence_is_no_heading():
    text = "HPI:\nSee the\npast medical history: long. Also\nallergies: many.\n\nSex: M"
    got = sections(text)
    assert got["PRESENT ILLNESS"] == "See the past medical history: long. Also allergies: many."
    assert got["MEDICAL HISTORY"] == ""


def test_a_note_without_complaint_illness_and_history_has_no_core():
    assert not has_core_sections(sections("Allergies:\nNone\n\nPhysical Exam:\nwell"))
    for heading in ("Chief Complaint", "HPI", "Past Medical History"):
        assert has_core_sections(sections(f"{heading}: something"))


def test_the_input_has_every_label_in_the_published_order():
    blocks = admission_text(sections("Chief Complaint: fever")).split("\n\n")
    assert blocks == ["CHIEF COMPLAINT: fever", *[f"{label}:" for label in SECTION_LABELS[1:]]]


def test_death_wording_leaves_the_exam_and_the_medications_and_only_those():
    exam = "Patient expired. Pupils fixed. The pt. had passed away at noon."
    text = f"HPI: father died\n\nPhysical Exam: {exam}\n\nMedications on Admission: deceased"
    got = admission_text(sections(text))
    assert "PHYSICAL EXAM: . Pupils fixed. at noon." in got
    assert got.count("MEDICATION ON ADMISSION:\n") == 1
    assert "PRESENT ILLNESS: father died" in got


@pytest.mark.parametrize(
    "text",
    [
        "the patient expired",
        "Pt had died",
        "PATIENT HAS PASSED\nAWAY",
        "pt. was deceased",
        "He expired at 4",
        "then she had expired",
        "pronounced dead",
        "was pronounced expired",
        "Time of death 04:12",
    ],
)
def test_a_stated_death_is_seen(text):
    assert states_death(text)


@pytest.mark.parametrize(
    "text",
    [
        "the expired tidal volume",
        "patient's wife died",
        "her father died of a stroke",
        "patient denies that he died his hair",
        "his script expired",
        "patient expiredness",
        "outpatients deceased",
    ],
)
def test_other_wording_is_not_taken_for_the_death_of_the_patient(text):
    assert not states_death(text)


@pytest.mark.parametrize("mark", [" ", "_", "[**"])
def test_a_long_line_is_read_in_time_that_grows_with_it(mark):
    line = f"a{mark * 60_000}b"
    began = time.process_time()
    admission_sections(f"Chief Complaint:\n{line}")
    assert time.process_time() - began < 1
