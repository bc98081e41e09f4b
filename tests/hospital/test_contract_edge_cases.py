"""Every edge case is visible in the written files, as its verdicts say."""

import re
from collections import Counter, defaultdict

import pytest
from edge_cases import write_with_edges
from written_tables import (
    expected_labels,
    icd9_labels,
    mimic4_codes,
    rows,
    ventilated_days,
)

from notetune.hospital.hospital import SyntheticConfig

EXPECTED = {
    "null_hadm_id",
    "addendum_same_day",
    "addendum_later",
    "orphan_addendum",
    "two_reports",
    "duplicate_text_same_admission",
    "duplicate_text_earlier",
    "duplicate_text_later",
    "no_sections",
    "empty_section",
    "missing_blank_line",
    "paragraph_with_colon",
    "crlf",
    "unicode",
    "death_in_exam",
    "death_in_medications",
    "death_in_history",
    "he_expired",
    "time_of_death",
    "newborn",
    "newborn_only_labels",
    "los_3.0_days",
    "los_3.04_days",
    "los_3.06_days",
    "los_7.0_days",
    "los_14.0_days",
    "los_14.1_days",
    "several_admissions",
    "patient_in_no_split",
    "v_code",
    "e_code",
    "leading_zero_diagnosis",
    "two_leading_zeros",
    "leading_zero",
    "two_digit_procedure",
    "three_digit_procedure",
    "four_digit_procedure",
    "null_icd9_code",
    "no_procedures",
    "no_codes",
    "rare_label",
    "all_zero_test_column",
    "mimic4_addendum",
    "mimic4_carriage_return",
    "mimic4_tabs",
    "mimic4_very_short",
    "mimic4_very_long",
    "mimic4_padded_codes",
    "mimic4_no_icu_stay",
    "mimic4_radiology_null_hadm_id",
    "mimic4_icd9_admission",
    "mimic4_icd10_admission",
    "mimic4_discharge_exam",
}


class Files:
    """The written tables, looked up by admission."""

    def __init__(self, folder, truth):
        self.folder, self.truth = folder, truth
        self.case = {case.name: case for case in truth.edge_cases}
        self.label = {row.hadm_id: row for row in truth.admissions}
        three, four = folder / "mimic3", folder / "mimic4"
        self.notes = {row["ROW_ID"]: row for row in rows(three / "NOTEEVENTS.csv")}
        self.newer_notes = {
            row["note_id"]: row
            for kind in ("discharge", "radiology")
            for row in rows(four / "note" / f"{kind}.csv.gz")
        }
        self.admission = {int(row["HADM_ID"]): row for row in rows(three / "ADMISSIONS.csv")}
        self.codes = {}
        for name in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
            table = self.codes[name] = defaultdict(list)
            for row in rows(three / f"{name}.csv"):
                table[int(row["HADM_ID"])].append(row["ICD9_CODE"])
        self.newer_diagnoses = defaultdict(list)
        for row in rows(four / "hosp" / "diagnoses_icd.csv.gz"):
            self.newer_diagnoses[int(row["hadm_id"])].append((row["icd_code"], row["icd_version"]))
        self.in_icu = {int(row["hadm_id"]) for row in rows(four / "icu" / "icustays.csv.gz")}

    def summaries(self, name):
        return [self.notes[note] for note in self.case[name].note_ids]

    def text(self, name):
        return " ".join(self.summaries(name)[0]["TEXT"].split())

    def hadm(self, name):
        return self.case[name].hadm_ids[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edges") / "hospital"
    truth = write_with_edges(folder, SyntheticConfig(patients=70, mimic4_patients=60, seed=1))
    return Files(folder, truth)


def test_every_edge_case_is_recorded_once_and_refers_to_written_rows(files):
    names = Counter(case.name for case in files.truth.edge_cases)
    assert set(names) == EXPECTED
    assert max(names.values()) == 1
    for case in files.truth.edge_cases:
        notes = files.notes if case.hospital == "mimic3" else files.newer_notes
        assert all(note in notes for note in case.note_ids), case.name
        assert all(hadm in files.label for hadm in case.hadm_ids), case.name
        assert case.hadm_ids or case.note_ids, case.name
        assert case.correct.reason


def test_a_dropped_edge_case_has_no_place_in_its_tasks_and_a_kept_one_has(files):
    dropped = 0
    for case in files.truth.edge_cases:
        for hadm in case.hadm_ids:
            here = set(files.truth.labels(files.label[hadm])) & set(case.tasks)
            assert bool(here) == case.correct.kept, case.name
            dropped += not case.correct.kept
    assert dropped == 12


def test_the_labels_of_an_edge_case_are_the_labels_of_its_admission(files):
    seen = 0
    for case in files.truth.edge_cases:
        for task, label in case.correct.labels:
            row = files.label[case.hadm_ids[0]]
            every = {"DIAG": row.diagnoses, "PROC": row.procedures}
            every |= {"MOR": (str(int(row.died)),), "LOS": (str(row.los_class),)}
            assert label in every[task], case.name
            seen += 1
    assert seen == 27


def test_texts_that_must_be_cut_or_kept_are_in_the_written_note(files):
    seen = 0
    for case in files.truth.edge_cases:
        for text in (*case.correct.present, *case.correct.absent):
            note = (files.notes | files.newer_notes)[case.note_ids[0]]
            written = note.get("TEXT") or note["text"]
            assert text in written or text in " ".join(written.split()), case.name
            seen += 1
    assert seen == 14


def test_addenda_and_reports_are_as_described(files):
    for name, days in (("addendum_same_day", 0), ("addendum_later", 9)):
        report, addendum = files.summaries(name)
        assert (report["DESCRIPTION"], addendum["DESCRIPTION"]) == ("Report", "Addendum")
        assert int(report["ROW_ID"]) < int(addendum["ROW_ID"])
        assert (report["CHARTDATE"] == addendum["CHARTDATE"]) == (days == 0)
        assert report["CHARTDATE"] <= addendum["CHARTDATE"]
        assert report["HADM_ID"] == addendum["HADM_ID"]
    (orphan,) = files.summaries("orphan_addendum")
    assert orphan["DESCRIPTION"] == "Addendum"
    of_admission = [n for n in files.notes.values() if n["HADM_ID"] == orphan["HADM_ID"]]
    assert not [
        n for n in of_admission if n["DESCRIPTION"] == "Report" and "ischarge" in n["CATEGORY"]
    ]
    first, second = files.summaries("two_reports")
    assert first["HADM_ID"] == second["HADM_ID"]
    assert first["TEXT"] != second["TEXT"]
    assert first["CHARTDATE"] < second["CHARTDATE"]
    (lost,) = files.summaries("null_hadm_id")
    assert lost["HADM_ID"] == ""


def test_duplicates_are_exact(files):
    twice = files.summaries("duplicate_text_same_admission")
    assert twice[0]["TEXT"] == twice[1]["TEXT"]
    assert twice[0]["HADM_ID"] == twice[1]["HADM_ID"]
    earlier, later = files.summaries("duplicate_text_later")
    assert earlier["TEXT"] == later["TEXT"]
    assert earlier["HADM_ID"] != later["HADM_ID"]
    assert earlier["CHARTDATE"] < later["CHARTDATE"]
    texts = Counter(
        row["TEXT"] for row in files.notes.values() if row["CATEGORY"] == "Discharge summary"
    )
    assert sum(count > 1 for count in texts.values()) == 2


def test_note_shapes_are_as_described(files):
    assert not re.search(r"(?i)(complaint|illness|history):", files.text("no_sections"))
    empty = files.summaries("empty_section")[0]["TEXT"]
    assert "Chief Complaint:\n\nMajor Surgical or Invasive Procedure:\nExplor" in empty
    crlf = files.summaries("crlf")[0]["TEXT"]
    assert crlf.count("\r\n") == crlf.count("\n") > 20
    assert "38.4 °C" in files.text("unicode")
    dense = files.summaries("missing_blank_line")[0]["TEXT"]
    between = dense[dense.index("Present Illness:") : dense.index("Brief Hospital Course:")]
    assert "\n\n" not in between
    colon = files.summaries("paragraph_with_colon")[0]["TEXT"]
    assert "\n\nIn the trauma bay vitals were:" in colon


def test_death_wording_is_in_the_named_section(files):
    exam = files.text("death_in_exam").split("Physical Exam:")[1].split("Pertinent Results:")[0]
    assert exam.count("patient expired") == 1
    medicines = files.text("death_in_medications").split("Medications on Admission:")[1]
    assert "pt deceased" in medicines.split("Discharge Medications:")[0]
    for name, wording in (
        ("death_in_history", "patient had passed away"),
        ("he_expired", "he expired"),
        ("time_of_death", "Time of death"),
    ):
        history = files.text(name).split("Present Illness:")[1].split("Past Medical History:")[0]
        assert wording in history
        row = files.label[files.hadm(name)]
        assert row.died
        assert "MOR" not in files.truth.labels(row)
        assert "DIAG" in files.truth.labels(row)


def test_newborns_have_labels_that_nobody_else_has(files):
    hadm = files.hadm("newborn")
    assert files.admission[hadm]["ADMISSION_TYPE"] == "NEWBORN"
    assert [h for h, row in files.admission.items() if row["ADMISSION_TYPE"] == "NEWBORN"] == [hadm]
    for task, label in files.case["newborn_only_labels"].correct.labels:
        table = files.codes["DIAGNOSES_ICD" if task == "DIAG" else "PROCEDURES_ICD"]
        owners = {h for h, codes in table.items() if any(code.startswith(label) for code in codes)}
        assert hadm in owners
        assert label in ("765", "V290") or owners == {hadm}


@pytest.mark.parametrize(
    ("days", "label"), [(3.0, 0), (3.04, 0), (3.06, 1), (7.0, 1), (14.0, 2), (14.1, 3)]
)
def test_stays_at_the_limits_have_the_class_after_rounding(files, days, label):
    row = files.label[files.hadm(f"los_{days}_days")]
    assert row.los_days == pytest.approx(days, abs=0.5 / 1440)
    assert row.labels["LOS"] == label


def test_codes_are_written_as_described(files):
    diagnoses, procedures = files.codes["DIAGNOSES_ICD"], files.codes["PROCEDURES_ICD"]
    for name, code in (
        ("v_code", "V4581"),
        ("e_code", "E8859"),
        ("leading_zero_diagnosis", "0389"),
    ):
        assert diagnoses[files.hadm(name)][0] == code
    for name, code in (
        ("two_leading_zeros", "0066"),
        ("leading_zero", "0331"),
        ("two_digit_procedure", "66"),
        ("three_digit_procedure", "387"),
        ("four_digit_procedure", "3893"),
    ):
        assert procedures[files.hadm(name)][0] == code
        (_, number), *_ = files.case[name].core_2021.labels
        assert str(int(code))[:3] == number
    assert "" in diagnoses[files.hadm("null_icd9_code")]
    assert files.hadm("no_procedures") not in procedures
    assert files.hadm("no_codes") not in {**diagnoses, **procedures}
    for name, split in (("rare_label", "train"), ("all_zero_test_column", "val")):
        case = files.case[name]
        (_, label), *_ = case.correct.labels
        owners = [h for h, codes in diagnoses.items() if any(c.startswith(label) for c in codes)]
        assert owners == list(case.hadm_ids)
        assert case.subject_id in files.truth.truth.splits[split]


def test_a_patient_with_several_admissions_and_one_in_no_split_exist(files):
    several = files.case["several_admissions"]
    assert len(several.hadm_ids) == 3
    assert {files.label[hadm].subject_id for hadm in several.hadm_ids} == {several.subject_id}
    outside = files.case["patient_in_no_split"].subject_id
    assert not any(outside in rows_of_split for rows_of_split in files.truth.truth.splits.values())


def test_mimic4_cases_are_as_described(files):
    notes = files.newer_notes

    def note(name, position=0):
        return notes[files.case[name].note_ids[position]]

    addendum = note("mimic4_addendum", 1)
    assert (addendum["note_type"], "-AD-" in addendum["note_id"]) == ("AD", True)
    assert "\r" in note("mimic4_carriage_return")["text"]
    assert "\t" in note("mimic4_tabs")["text"]
    assert len(note("mimic4_very_short")["text"].split()) < 10
    assert len(note("mimic4_very_long")["text"].split()) > 6000
    film = note("mimic4_radiology_null_hadm_id")
    assert (film["note_type"], film["hadm_id"]) == ("RR", "")
    padded = files.newer_diagnoses[files.hadm("mimic4_padded_codes")]
    assert padded
    assert all(len(code) == 7 for code, _ in padded)
    assert any(code.endswith(" ") for code, _ in padded)
    assert files.hadm("mimic4_no_icu_stay") not in files.in_icu
    assert {v for _, v in files.newer_diagnoses[files.hadm("mimic4_icd9_admission")]} == {"9"}
    assert {v for _, v in files.newer_diagnoses[files.hadm("mimic4_icd10_admission")]} == {"10"}
    _, _, after = note("mimic4_discharge_exam")["text"].partition("DISCHARGE PHYSICAL EXAM:")
    assert files.case["mimic4_discharge_exam"].correct.absent[0] in " ".join(after.split())


def test_the_labels_of_the_truth_follow_from_the_tables_alone(files):
    older, newer = files.folder / "mimic3", files.folder / "mimic4"
    codes, ventilated = icd9_labels(older), ventilated_days(older)
    codes_2021 = icd9_labels(older, "VE", int)
    (crlf,) = files.case["crlf"].hadm_ids
    found, versions = mimic4_codes(newer)
    left_out = seen = 0
    for hadm, row in files.admission.items():
        entry = files.label[hadm]
        expected = expected_labels(row, codes, ventilated)
        assert entry.labels == expected
        assert entry.labels_2021 == expected_labels(row, codes_2021, ventilated)
        kept, kept_2021 = files.truth.labels(entry), files.truth.labels(entry, "core-2021")
        left_out += len(expected) - len(kept)
        assert set(kept_2021) == (set() if hadm == crlf else set(kept))
    assert 10 < left_out < 40
    for row in files.truth.admissions:
        if row.hospital == "mimic4":
            hadm = str(row.hadm_id)
            assert versions[hadm] <= {row.icd_version}
            assert list(row.diagnoses) == found["DIAG"][hadm]
            assert list(row.procedures) == found["PROC"][hadm]
            seen += 1
    assert seen >= 60
