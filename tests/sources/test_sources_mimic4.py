import csv
import gzip
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest
from edge_cases import write_with_edges

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.hospital.hospital import SyntheticConfig
from notetune.notes.outcomes import LENGTH_OF_STAY_CLASSES
from notetune.sources import read
from notetune.sources.mimic.mimic4 import Mimic4Source

PATIENTS = 300
CANARY = "zygomorphic"
NAMES = {"MOR": "mortality", "LOS": "length_of_stay", "PMV": "ventilation"} | {
    "DIAG": "diagnoses_icd", "PROC": "procedures_icd"
}  # fmt: skip


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimic4") / "hospital"
    config = SyntheticConfig(patients=1, mimic4_patients=PATIENTS, seed=4)
    truth = write_with_edges(folder, config)
    return folder / "mimic4", truth


@pytest.fixture(scope="module", params=[True, False], ids=["icu only", "all admissions"])
def reading(request, hospital):
    folder, truth = hospital
    cohort = read(Mimic4Source(kind="mimic4", folder=folder, icu_only=request.param))
    admissions = [row for row in truth.admissions if row.hospital == "mimic4"]
    in_cohort = {row.hadm_id: row for row in admissions if row.in_icu or not request.param}
    return cohort, in_cohort, truth


def table_of(cohort, name):
    """hadm_id -> labels."""
    (table,) = [table for task, table in cohort.tasks if task.name == name]
    return {int(note_id.split("-")[1]): labels for note_id, labels in table.iter_rows()}


def as_written(task, label):
    match task:
        case "MOR":
            return ["died"] * label
        case "PMV":
            return ["prolonged"] * label
        case "LOS":
            return [LENGTH_OF_STAY_CLASSES[label]]
        case _:
            return sorted(label)


@pytest.mark.parametrize("task", ["MOR", "LOS", "PMV"])
def test_every_label_of_every_admission_is_the_true_one(reading, task):
    cohort, admissions, truth = reading
    expected = {
        hadm: as_written(task, labels[task])
        for hadm, row in admissions.items()
        if task in (labels := truth.labels(row))
    }
    assert table_of(cohort, NAMES[task]) == expected
    assert len(expected) > PATIENTS / 4
    assert len({tuple(labels) for labels in expected.values()}) > 1


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize("task", ["DIAG", "PROC"])
def test_codes_of_each_version_are_a_task_of_their_own(reading, task, version):
    cohort, admissions, truth = reading
    expected = {
        hadm: sorted(labels[task])
        for hadm, row in admissions.items()
        if task in (labels := truth.labels(row)) and row.icd_version == version
    }
    assert table_of(cohort, f"{NAMES[task]}{version}") == expected
    assert len(expected) > PATIENTS / 6
    (classes,) = [t.classes for t, _ in cohort.tasks if t.name == f"{NAMES[task]}{version}"]
    assert classes == tuple(sorted({label for labels in expected.values() for label in labels}))


def test_every_edge_case_comes_out_as_it_must(reading, hospital):
    cohort, admissions, truth = reading
    texts = dict(cohort.notes.select("note_id", "text").iter_rows())
    seen = Counter()
    for case in truth.edge_cases:
        if case.hospital != "mimic4":
            continue
        seen["cases"] += 1
        assert all((note in texts) for note in case.note_ids)
        for hadm in case.hadm_ids:
            is_kept = f"admission-{hadm}" in texts
            assert is_kept == (case.correct.kept and hadm in admissions), case.name
            seen["left out"] += not is_kept
            if is_kept and case.correct.absent:
                seen["texts"] += len(case.correct.absent)
                text = texts[f"admission-{hadm}"]
                assert not [words for words in case.correct.absent if words in text], case.name
        for task, label in case.correct.labels:
            (hadm,) = case.hadm_ids
            version = admissions[hadm].icd_version if hadm in admissions else None
            if version:
                assert label in table_of(cohort, f"{NAMES[task]}{version}")[hadm], case.name
                seen["labels"] += 1
    assert seen["cases"] == 11
    assert seen["left out"] >= 1
    assert seen["texts"] >= 2


def test_the_exam_ends_where_the_exam_at_discharge_starts(reading):
    cohort, _, _ = reading
    inputs = cohort.notes.filter(pl.col("source") == "admission")["text"]
    exams = [text.split("PHYSICAL EXAM:")[1].split("FAMILY HISTORY:")[0] for text in inputs]
    assert sum(len(exam.split()) > 10 for exam in exams) > 0.9 * len(exams) > 100
    told = ("expired", "fixed", "DISCHARGE", "comfortable, no distress")
    assert not [exam for exam in exams if any(words in exam for words in told)]


def test_family_history_right_under_the_social_one_is_its_own_section(reading):
    cohort, _, _ = reading
    inputs = cohort.notes.filter(pl.col("source") == "admission")["text"]
    assert {text.split("SOCIAL HISTORY:")[1].strip() for text in inputs} == {"___"}
    family = [text.split("FAMILY HISTORY:")[1].split("SOCIAL")[0].strip() for text in inputs]
    assert sum(bool(body) for body in family) > 0.9 * len(family)


def test_every_note_passes_with_its_own_id_and_the_flow_counts_them(reading, hospital):
    folder, _ = hospital
    cohort, _, _ = reading
    seen = 0
    for kind in ("discharge", "radiology"):
        with gzip.open(folder / "note" / f"{kind}.csv.gz", "rt", newline="") as file:
            written = [row["note_id"] for row in csv.DictReader(file)]
        got = cohort.notes.filter(pl.col("source") == kind)["note_id"].to_list()
        assert got == written
        (flow,) = [flow for flow in cohort.flow if flow.stage == f"{kind} notes"]
        kept = FlowCount(f"{kind} notes", len(written), len(written), {"empty text": 0})
        assert replace(flow, changed={}) == kept
        seen += len(written)
    assert seen > 3 * PATIENTS
    stages = {flow.stage: flow for flow in cohort.flow}
    assert (
        stages["admissions"].kept
        == len(table_of(cohort, "mortality"))
        + (stages["task mortality"].rejected["the text states the death"])
    )
    assert stages["admissions"].rejected["no complaint, illness or history"] == 1


def written(folder, name, header, *rows):
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(), *rows])


def small(folder, **settings):
    """Three admissions of two patients; the first is coded in both versions."""
    admissions = [
        (1, 20, "2150-01-01 00:00:00", "2150-01-03 00:00:00", "URGENT", 0),
        (1, 21, "2150-02-01 00:00:00", "2150-02-20 00:00:00", "URGENT", 1),
        (2, 22, "2150-01-01 00:00:00", "2150-01-03 00:00:00", "URGENT", 0),
    ]
    header = "subject_id hadm_id admittime dischtime admission_type hospital_expire_flag"
    written(folder, "hosp/admissions", header, *admissions)
    written(folder, "hosp/diagnoses_icd", "hadm_id icd_code icd_version",
            (20, "V4581  ", 9), (20, "E1101", 10), (20, "", 10), (21, "E8859", 9))  # fmt: skip
    written(folder, "hosp/procedures_icd", "hadm_id icd_code icd_version", (20, "0066", 9))
    written(folder, "icu/icustays", "hadm_id stay_id intime",
            (20, 30, "2150-01-01 05:00:00"), (21, 31, "2150-02-01 05:00:00"))  # fmt: skip
    note = "note_id subject_id hadm_id note_type note_seq charttime text"
    day = "2150-01-03 00:00:00"
    written(folder, "note/discharge", note,
            ("1-AD-3", 1, 20, "AD", 3, day, "Allergies:\n___"),
            ("1-DS-4", 1, 21, "DS", 4, day, "Chief Complaint:\nfever"),
            ("1-DS-2", 1, 20, "DS", 2, day, "Chief Complaint:\ncough"),
            ("2-DS-2", 2, 22, "DS", 2, day, "Chief Complaint:\nfall"))  # fmt: skip
    written(folder, "note/radiology", note, ("1-RR-1", 1, "", "RR", 1, day, "clear"),
            ("1-RR-2", 1, 20, "RR", 2, day, " \n"))  # fmt: skip
    return Mimic4Source(kind="mimic4", folder=folder, **settings)


def test_an_addendum_before_its_summary_in_the_file_still_follows_it(tmp_path):
    cohort = read(small(tmp_path))
    assert cohort.notes["note_id"].to_list() == [
        "1-AD-3", "1-DS-4", "1-DS-2", "2-DS-2", "admission-21", "admission-20", "1-RR-1",
    ]  # fmt: skip
    assert cohort.notes["stay_id"].to_list() == ["20", "21", "20", "22", None, None, None]
    text = cohort.notes.filter(pl.col("note_id") == "admission-20")["text"][0]
    assert text.startswith("CHIEF COMPLAINT: cough\n")
    assert "ALLERGIES: ___" in text
    flow = {stage.stage: stage.rejected for stage in cohort.flow}
    assert flow["discharge summaries"]["no intensive care"] == 1
    assert flow["radiology notes"] == {"empty text": 1}


def test_notes_of_one_day_are_joined_by_their_number_and_an_addendum_alone_is_left_out(tmp_path):
    source = small(tmp_path)
    spoiled(tmp_path, "note/discharge", "text", "Chief Complaint:\nlater\n\nAllergies:\nlatex")
    text = dict(read(source).notes.select("note_id", "text").iter_rows())["admission-20"]
    assert text.startswith("CHIEF COMPLAINT: cough\n")
    assert "ALLERGIES: latex" in text
    spoiled(tmp_path, "note/discharge", "hadm_id", "22")
    cohort = read(source.model_copy(update={"icu_only": False}))
    assert set(table_of(cohort, "mortality")) == {20, 21, 22}
    spoiled(tmp_path, "note/discharge", "hadm_id", "20")
    spoiled(tmp_path, "note/discharge", "hadm_id", "22", row=2)
    cohort = read(source.model_copy(update={"icu_only": False}))
    assert set(table_of(cohort, "mortality")) == {21, 22}
    (flow,) = [flow for flow in cohort.flow if flow.stage == "admissions"]
    assert flow.rejected["addendum without a report"] == 1


def test_an_admission_coded_in_both_versions_is_in_both_tasks(tmp_path):
    cohort = read(small(tmp_path))
    assert table_of(cohort, "diagnoses_icd9") == {20: ["V45"], 21: ["E885"]}
    assert table_of(cohort, "diagnoses_icd10") == {20: ["E11"]}
    assert table_of(cohort, "procedures_icd9") == {20: ["006"]}
    assert "procedures_icd10" not in {task.name for task, _ in cohort.tasks}
    assert "ventilation" not in {task.name for task, _ in cohort.tasks}


def test_only_invasive_ventilation_and_tracheostomy_count(tmp_path):
    source = small(tmp_path)
    start, nine_days = "2150-01-01 06:00:00", "2150-01-10 06:00:00"
    written(
        tmp_path, "icu/ventilation", "stay_id starttime endtime ventilation_status",
        (30, start, "2150-01-02 06:00:00", "InvasiveVent"), (30, start, nine_days, "HFNC"),
        (31, start, "2150-01-04 06:00:00", "InvasiveVent"), (31, start, nine_days, "Tracheostomy"),
    )  # fmt: skip
    assert table_of(read(source), "ventilation") == {20: [], 21: ["prolonged"]}


def test_notes_alone_give_a_corpus_without_tasks(tmp_path):
    source = small(tmp_path)
    for path in (tmp_path / "hosp").iterdir():
        path.unlink()
    (tmp_path / "hosp").rmdir()
    cohort = read(source)
    assert cohort.tasks == ()
    assert set(cohort.notes["source"]) == {"discharge", "radiology"}
    assert [flow.stage for flow in cohort.flow] == ["discharge notes", "radiology notes"]


def test_without_intensive_care_the_way_out_is_named(tmp_path):
    source = small(tmp_path)
    written(tmp_path, "icu/icustays", "hadm_id stay_id intime", ("20.0", 30, "2150-01-01 05:00:00"))
    with pytest.raises(DataError, match=r"icustays\.csv, line 2: hadm_id is not a whole number"):
        read(source)
    (tmp_path / "icu" / "icustays.csv").unlink()
    with pytest.raises(DataError, match=r"holds no icu/icustays.*set icu_only: false"):
        source.open()
    cohort = read(source.model_copy(update={"icu_only": False}))
    assert set(table_of(cohort, "mortality")) == {20, 21, 22}


def spoiled(folder, name, column, value, row=0):
    path = folder / f"{name}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row][column] = value
    written(folder, name, " ".join(rows[0]), *[row.values() for row in rows])


@pytest.mark.parametrize(
    ("table", "column", "value", "problem"),
    [
        ("note/discharge", "note_id", "", "line 2: note_id is empty"),
        ("note/discharge", "note_id", "2-DS-2", "line 8: note_id repeated"),
        ("note/discharge", "note_seq", CANARY, "line 2: note_seq is not a whole number"),
        ("note/discharge", "note_seq", "²", "line 2: note_seq is not a whole number"),
        ("note/discharge", "note_seq", "9" * 20, "line 2: note_seq is not a whole number"),
        ("hosp/admissions", "hadm_id", "9" * 20, "line 2: HADM_ID is not a whole number"),
        ("note/discharge", "subject_id", "1.0", "line 2: subject_id is not a whole number"),
        ("note/radiology", "hadm_id", CANARY, "line 2: hadm_id is not a whole number"),
        ("note/radiology", "charttime", CANARY, "line 2: charttime is not a time"),
        ("hosp/diagnoses_icd", "hadm_id", "20.0", "line 2: hadm_id is not a whole number"),
        ("hosp/diagnoses_icd", "icd_version", CANARY, "line 2: icd_version is neither 9 nor 10"),
        ("hosp/admissions", "dischtime", CANARY, "line 2: DISCHTIME is not a time"),
    ],
)
def test_a_faulty_cell_stops_with_file_line_and_remedy(tmp_path, table, column, value, problem):
    source = small(tmp_path)
    spoiled(tmp_path, table, column, value)
    with pytest.raises(DataError) as caught:
        read(source)
    assert f"{tmp_path / table}.csv, {problem}" in str(caught.value)
    assert CANARY not in str(caught.value)
