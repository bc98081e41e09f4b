import csv
import hashlib

import pytest
from core2021_files import write_core2021_files
from mimic3_tables import Folder, classes_of, flow_of, inputs, labels_of, small, summary

from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.mimic.core2021 import (
    admission_text,
    as_pandas_reads,
    diagnosis_label,
    is_report,
    summary_text,
)

END = "\n\nDischarge Diagnosis:\nnone"


def section(text, label):
    """One block of the admission note of a summary."""
    blocks = dict(block.split(": ", 1) for block in admission_text(text).text.split("\n\n"))
    assert len(blocks) == 8
    return blocks[label]


def mortality_text(history="fell", exam="well", medications="none"):
    text = (
        f"Present Illness:\n{history}\n\nPhysical Exam:\n{exam}\n\n"
        f"Medications on Admission:\n{medications}{END}"
    )
    return admission_text(text).mortality_text


def read_2021(folder, path):
    return read(folder.write(path, labels="core-2021"))


def test_every_label_is_there_in_the_published_order_with_a_space_after_its_colon():
    text = "Chief Complaint:\nfever\n\nFAMILY HISTORY:\n gout \nin two" + END
    assert admission_text(text).text == (
        "CHIEF COMPLAINT: fever\n\nPRESENT ILLNESS: \n\nMEDICAL HISTORY: \n\n"
        "MEDICATION ON ADMISSION: \n\nALLERGIES: \n\nPHYSICAL EXAM: \n\n"
        "FAMILY HISTORY: gout  in two\n\nSOCIAL HISTORY: "
    )


def test_an_empty_section_takes_the_next_one():
    text = "Chief Complaint:\n\nMajor Surgical or Invasive Procedure:\nCABG\n\nHistory:\nx"
    got = section(text, "CHIEF COMPLAINT")
    assert got == "Major Surgical or Invasive Procedure: CABG"


def test_a_section_with_nothing_after_it_is_lost():
    assert admission_text("Chief Complaint:\nfever\n\n") is None
    assert admission_text("Chief Complaint:\nfever\n\nAllergies:\nnone") is not None


def test_without_a_blank_line_the_hospital_course_is_swallowed():
    text = "Chief Complaint:\nfever\nBrief Hospital Course:\nhe was cured" + END
    assert section(text, "CHIEF COMPLAINT") == "fever Brief Hospital Course: he was cured"


@pytest.mark.parametrize("heading", ["Labs (day):", "Labs 2:", "Dr. Who:", "A|B:", "A\\B:"])
def test_a_heading_with_a_bracket_digit_dot_bar_or_backslash_ends_nothing(heading):
    text = f"Chief Complaint:\nfever\n\n{heading}\nhigh" + END
    assert section(text, "CHIEF COMPLAINT") == f"fever  {heading} high"


def test_a_paragraph_that_reaches_a_colon_ends_the_section():
    text = "Present Illness:\nfell\n\nIn the ED, vitals were: stable" + END
    assert section(text, "PRESENT ILLNESS") == "fell"


def test_the_first_hit_of_a_heading_wins_even_in_prose():
    text = (
        "Chief Complaint:\nfollow-up of present illness: none\n\nHistory of Present Illness:\nfell"
    ) + END
    assert section(text, "PRESENT ILLNESS") == "none"


@pytest.mark.parametrize("heading", ["Physical Examination:", "PHYSICAL EXAM ON ADMISSION:"])
def test_other_spellings_of_the_exam_are_not_known(heading):
    text = f"Chief Complaint:\nfever\n\n{heading}\nwell" + END
    assert section(text, "PHYSICAL EXAM") == ""


def test_extra_blank_lines_change_nothing():
    text = "Chief Complaint:\nfever\n\n\n\nAllergies:\nnone\n\n\nSex:\nF"
    assert section(text, "CHIEF COMPLAINT") == "fever"
    assert section(text, "ALLERGIES") == "none"


def test_a_note_with_carriage_returns_has_no_section():
    text = "Chief Complaint:\nfever" + END
    assert admission_text(text) is not None
    assert admission_text(text.replace("\n", "\r\n")) is None


def test_a_written_out_line_feed_counts_as_one():
    text = r"Chief Complaint:\nfever\tand\n\nAllergies: none"
    assert section(text, "CHIEF COMPLAINT") == r"fever\tand"


def test_a_note_without_complaint_illness_and_history_is_none():
    assert admission_text("Allergies:\nnone\n\nPhysical Exam:\nwell" + END) is None
    assert admission_text("Medical History:\ngout" + END) is not None


@pytest.mark.parametrize("block", ["exam", "medications"])
def test_death_wording_is_cut_once_from_the_exam_and_from_the_medications(block):
    got = mortality_text(**{block: "A, patient has expired. B, and then expired."})
    assert "A, . B, and then expired." in got
    assert mortality_text(**{block: "A, patient died. B, pt died."}) is None


def test_death_wording_needs_white_space_before_it_and_no_subject_to_be_cut():
    assert "EXAM: now\n" in mortality_text(exam="now deceased")
    assert "EXAM: undeceased\n" in mortality_text(exam="undeceased")
    assert mortality_text(exam="PT\thad passed away") is not None


@pytest.mark.parametrize(
    "history",
    ["the patient expired", "Pt has died", "outpatient  deceased", "PATIENT had passed away"],
)
def test_death_wording_anywhere_else_leaves_the_admission_out(history):
    assert mortality_text(history=history) is None


@pytest.mark.parametrize(
    "history", ["he expired", "SHE EXPIRED", "the expired volume", "pronounced expired",
                "Time of death 4:12"]
)  # fmt: skip
def test_three_further_wordings_leave_the_admission_out(history):
    assert mortality_text(history=history) is None


@pytest.mark.parametrize("history", ["he died", "father expired", "patient is deceased"])
def test_other_wording_does_not(history):
    assert mortality_text(history=history) is not None


def test_a_mention_cut_from_the_exam_changes_the_text_of_the_mortality_task_only(tmp_path):
    folder = small()
    text = "Chief Complaint:\nfever\n\nPhysical Exam:\ncold, patient expired" + END
    folder.admit(300, 3, died=1).note(300, text).code(300, "486")
    cohort = read_2021(folder, tmp_path)
    texts = inputs(cohort)
    assert len(texts) == 4
    assert "EXAM: cold, patient expired" in texts["admission-300"]
    assert "EXAM: cold, \n" in texts["admission-300-mortality"]
    assert labels_of(cohort, "mortality") == {
        "admission-100": [],
        "admission-200": ["died"],
        "admission-300-mortality": ["died"],
    }
    assert labels_of(cohort, "diagnoses")["admission-300"] == ["486"]
    assert "admission-300-mortality" not in labels_of(cohort, "diagnoses")


def test_a_summary_is_known_by_the_exact_names_and_errors_count():
    assert summary_text("Discharge summary", "1", "x") == "x"
    assert summary_text("Discharge summary ", "", "x") is None
    assert summary_text("discharge summary", "", "x") is None
    assert summary_text("Discharge summary", "", "NA") is None
    assert is_report("Report")
    assert not is_report("report")


def test_an_addendum_follows_its_report_of_the_same_day_by_row(tmp_path):
    folder = small()
    folder.note(100, "Allergies:\nsecond" + END, DESCRIPTION="Addendum", ROW_ID=60)
    folder.note(100, "Allergies:\nfirst" + END, DESCRIPTION="Addendum", ROW_ID=50)
    text = inputs(read_2021(folder, tmp_path))["admission-100"]
    assert "ALLERGIES: first\n" in text


def test_an_addendum_without_a_report_is_left_out(tmp_path):
    folder = small().admit(300).note(300, summary("orphan"), DESCRIPTION="Addendum")
    cohort = read_2021(folder, tmp_path)
    assert flow_of(cohort, "admissions").rejected["addendum without a report"] == 1
    assert "admission-300" not in inputs(cohort)


def test_of_equal_texts_the_last_one_is_kept_across_admissions(tmp_path):
    folder = small().admit(300, 3).note(300, summary("fever"), CHARTDATE="2150-02-01")
    folder.admit(400, 4).note(400, summary("fever") + " ", CHARTDATE="2150-01-01")
    cohort = read_2021(folder, tmp_path)
    assert set(inputs(cohort)) == {"admission-200", "admission-300", "admission-400"}
    assert flow_of(cohort, "discharge summaries").rejected["same text as a later summary"] == 1


def test_a_summary_without_a_date_is_the_last(tmp_path):
    folder = small().admit(300, 3).note(300, summary("fever"), CHARTDATE="")
    assert set(inputs(read_2021(folder, tmp_path))) == {"admission-200", "admission-300"}


@pytest.mark.parametrize(
    ("days", "label"),
    [
        (-1.0, 0), (3.0, 0), (3.04, 0), (3.05, 0), (3.06, 1), (7.0, 1), (7.05, 1), (7.06, 2),
        (14.0, 2), (14.05, 2), (14.1, 3),
    ],
)  # fmt: skip
def test_the_length_of_stay_is_rounded_to_a_tenth_and_negative_stays_are_short(
    tmp_path, days, label
):
    folder = small().admit(300, 3, days=days).note(300, summary("pain"))
    (got,) = labels_of(read_2021(folder, tmp_path), "length_of_stay")["admission-300"]
    assert got == ("<=3 days", "3-7 days", "7-14 days", ">14 days")[label]


def test_v_and_e_codes_have_four_characters_all_others_three():
    codes = ["V4581", "E8859", "V08", "0389", "41", "25000"]
    assert [diagnosis_label(code) for code in codes] == ["V458", "E885", "V08", "038", "41", "250"]


@pytest.mark.parametrize(
    ("cells", "read_as"),
    [
        (["0066", "3893", "66"], ["66", "3893", "66"]),
        (["0066", "3893", ""], ["66.0", "3893.0", None]),
        (["0066", "NA"], ["66.0", None]),
        (["0066", "V3000", ""], ["0066", "V3000", None]),
        (["1.5", "02"], ["1.5", "2.0"]),
        (["02", "9" * 5_000], ["02", "9" * 5_000]),
        (["", "nan"], [None, None]),
        ([], []),
    ],
)
def test_a_column_is_read_as_pandas_guesses(cells, read_as):
    assert as_pandas_reads(cells) == read_as


def test_procedures_lose_their_zeros_and_with_an_empty_cell_short_ones_get_a_point(tmp_path):
    folder = small().code(200, "0331", "3310", table="PROCEDURES_ICD")
    cohort = read_2021(folder, tmp_path / "a")
    assert labels_of(cohort, "procedures") == {
        "admission-100": ["66", "360"],
        "admission-200": ["331"],
    }
    cohort = read_2021(folder.code(200, "", "66", table="PROCEDURES_ICD"), tmp_path / "b")
    assert labels_of(cohort, "procedures")["admission-200"] == ["331", "66."]


def test_diagnoses_without_v_and_e_codes_lose_their_zeros_too(tmp_path):
    folder = small()
    assert labels_of(read_2021(folder, tmp_path / "a"), "diagnoses")["admission-100"] == [
        "008",
        "V300",
    ]
    folder.tables["DIAGNOSES_ICD"] = [
        row for row in folder.tables["DIAGNOSES_ICD"] if row["ICD9_CODE"] != "V3000"
    ]
    assert labels_of(read_2021(folder, tmp_path / "b"), "diagnoses")["admission-100"] == ["845"]


def test_classes_are_those_of_the_whole_table_in_order_of_appearance(tmp_path):
    folder = Folder().admit(100).note(100, summary()).admit(300, 3, kind="NEWBORN")
    folder.code(300, "V3000", "76518").code(100, "4019", "0389", "40190", "4019")
    folder.code(300, "640", table="PROCEDURES_ICD").code(100, "9", "0066", table="PROCEDURES_ICD")
    cohort = read_2021(folder, tmp_path)
    assert classes_of(cohort, "diagnoses") == ("V300", "765", "401", "038")
    assert labels_of(cohort, "diagnoses") == {"admission-100": ["401", "038"]}
    assert classes_of(cohort, "procedures") == ("640", "9", "66")


def awkward():
    """A hospital of every rule above, whose official files are known."""
    folder = Folder()
    stays = (3.0, 3.04, 3.06, 7.0, 14.0, 14.1, -0.5, 7.05)
    for number in range(40):
        hadm, patient = 500 + (number * 17) % 40, 1 + number // 2
        kind = "NEWBORN" if number % 13 == 5 else "URGENT"
        folder.admit(hadm, patient, stays[number % 8], number % 5 // 4, kind)
        history = ("fell", "pt died", "he expired", "in prose: allergies: none", "")[number % 5]
        exam = ("well", "cold, patient has expired. Pt", "deceased")[number % 3]
        gap = "\n" if number % 7 == 3 else "\n\n"
        text = (
            f"Chief Complaint:\ncase {number % 37}{gap}History of Present Illness:\n{history}\n\n"
            f'Past Medical History:\n"gout", naïve\n\nPhysical Exam:\n{exam}\n\n'
            f"Brief Hospital Course:\nlong{END}"
        )
        text = text.replace("\n", "\r\n") if number % 11 == 9 else text
        day = f"2150-03-{1 + (number * 7) % 28:02}"
        folder.note(hadm, text, SUBJECT_ID=patient, CHARTDATE=day, ROW_ID=900 - number)
        if number % 4 == 1:
            more = f"Social History:\nlives alone, {number}" + END
            folder.note(hadm, more, SUBJECT_ID=patient, CHARTDATE=day, DESCRIPTION="Addendum",
                        ROW_ID=900 + number)  # fmt: skip
        for code in ("V4581", "0389", "E8859", "40190", "4019", "", "V08")[number % 4 :]:
            folder.code(hadm, code, SUBJECT_ID=patient)
        for code in ("0066", "331", "0331", "3893", "66")[number % 5 :]:
            folder.code(hadm, code, table="PROCEDURES_ICD", SUBJECT_ID=patient)
    return folder


OFFICIAL = {
    "ALL_3_DIGIT_DIA_CODES.txt": "ca499bd7ce8255c5",
    "ALL_3_DIGIT_PRO_CODES.txt": "1be786c60e3fa508",
    "DIA_GROUPS_3_DIGITS_adm_test.csv": "7f6e4a3772800197",
    "DIA_GROUPS_3_DIGITS_adm_train.csv": "d91187be5d9064b4",
    "DIA_GROUPS_3_DIGITS_adm_val.csv": "89ae0fcc96e672c6",
    "LOS_WEEKS_adm_test.csv": "8aa5dfb23a4fda00",
    "LOS_WEEKS_adm_train.csv": "ca4f172f9739cd93",
    "LOS_WEEKS_adm_val.csv": "36b16fac672faf47",
    "MP_IN_adm_test.csv": "0bc7bb6e86636ea5",
    "MP_IN_adm_train.csv": "0c9b3b4ef645265b",
    "MP_IN_adm_val.csv": "7179422f3194d9f0",
    "PRO_GROUPS_3_DIGITS_adm_test.csv": "648bcfc5269d4091",
    "PRO_GROUPS_3_DIGITS_adm_train.csv": "2b42adbc6e8359a3",
    "PRO_GROUPS_3_DIGITS_adm_val.csv": "661564e4cde84b28",
}
"""First 16 digits of the sha256 of each file of the official scripts."""


def test_the_files_are_those_of_the_official_scripts_byte_for_byte(tmp_path):
    # Written by bvanaken/clinical-outcome-prediction at b376f4b on Python 3.8 with pandas 1.1.5,
    # with its sort of the summaries as it is and with a stable one.
    splits = {}
    for name, patients in (("train", range(3, 21)), ("val", (1,)), ("test", (2, 40))):
        splits[name] = tmp_path / f"mimic_{name}.csv"
        splits[name].write_text("SUBJECT_ID\n" + "".join(f"{p}\n{p}\n" for p in patients))
    cohort = read_2021(awkward(), tmp_path / "tables")
    written = write_core2021_files(tmp_path / "out", cohort, splits)
    got = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in written}
    assert len(got) == 14
    assert got == OFFICIAL


def test_every_cell_of_a_file_is_quoted_and_the_header_is_in_lower_case(tmp_path):
    split = tmp_path / "split.csv"
    split.write_text("SUBJECT_ID\n1\n2\n")
    cohort = read_2021(small(), tmp_path / "tables")
    first, *_ = write_core2021_files(tmp_path / "out", cohort, {"train": split})
    assert first.name == "MP_IN_adm_train.csv"
    assert first.read_text().startswith('"id","text","hospital_expire_flag"\n"')
    with first.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["hospital_expire_flag"] for row in rows} == {"100": "0", "200": "1"}


def test_files_are_refused_without_all_four_tasks(tmp_path):
    folder = small()
    folder.tables["PROCEDURES_ICD"] = [
        row | {"HADM_ID": 999} for row in folder.tables["PROCEDURES_ICD"]
    ]
    cohort = read_2021(folder, tmp_path)
    with pytest.raises(DataError, match="no task procedures; read it with labels: core-2021"):
        write_core2021_files(tmp_path / "out", cohort, {})
