"""The synthetic hospital: files, labels recomputed from the tables, and what its notes can tell."""

import filecmp
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from written_tables import (
    expected_labels,
    icd9_labels,
    mimic4_codes,
    rows,
    ventilated_days,
)

from notetune.errors import RunError
from notetune.hospital.hospital import SyntheticConfig, write_hospital

PATIENTS, MIMIC4_PATIENTS = 1000, 120
MIMIC3_TABLES = {
    "NOTEEVENTS": 11,
    "ADMISSIONS": 19,
    "PATIENTS": 8,
    "ICUSTAYS": 12,
    "DIAGNOSES_ICD": 5,
    "PROCEDURES_ICD": 5,
    "D_ICD_DIAGNOSES": 4,
    "D_ICD_PROCEDURES": 4,
    "VENTDURATIONS": 5,
}
HEADINGS = (
    "chief complaint:",
    "present illness:",
    "medical history:",
    "medications on admission:",
    "allergies:",
    "physical exam:",
    "family history:",
    "social history:",
)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "hospital"
    config = SyntheticConfig(patients=PATIENTS, mimic4_patients=MIMIC4_PATIENTS)
    return folder, write_hospital(folder, config)


def admission_text(text):
    """The published 2021 extraction: a section ends at a blank line that a heading follows."""
    flat = text.replace("\n", "\\n")
    found = []
    for heading in HEADINGS:
        pattern = "(?is)" + re.escape(heading) + r"(.+?)\\n\\n[^()\\|.\d]+?:"
        match = re.search(pattern, flat)
        found.append(match[1].replace("\\n", " ").strip() if match else "")
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    config = SyntheticConfig(patients=55, mimic4_patients=52, overlap_fraction=0.2)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_hospital(tmp_path / name, config.model_copy(update={"seed": seed}))
    files = sorted(
        p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()
    )
    assert len(files) == len(MIMIC3_TABLES) + 12 + 5 + 1
    _, mismatch, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert (mismatch, errors) == ([], [])
    _, mismatch, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)
    assert Path("mimic3/NOTEEVENTS.csv") in mismatch
    assert Path("mimic4/note/discharge.csv.gz") in mismatch


def test_the_bytes_do_not_depend_on_the_hash_seed_of_the_process(tmp_path):
    code = (
        "import pathlib, sys; from notetune.hospital.hospital import *;"
        "write_hospital(pathlib.Path(sys.argv[1]), SyntheticConfig(patients=5))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "1")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    write_hospital(tmp_path / "2", SyntheticConfig(patients=5))
    names = ("mimic3/NOTEEVENTS.csv", "mimic4/note/discharge.csv.gz", "truth/truth.json")
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match="was not made by notetune"):
        write_hospital(tmp_path, SyntheticConfig(patients=1))
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_mimic3_quotes_every_string_and_nothing_else(hospital):
    folder, _ = hospital
    number_or_time = r"(?:-?\d+(?:\.\d+)?|\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d)?)?"
    cell = rf'(?:"(?:[^"]|"")*"|{number_or_time})'
    seen = 0
    for name, width in MIMIC3_TABLES.items():
        text = (folder / "mimic3" / f"{name}.csv").read_bytes().decode()
        header, _, body = text.partition("\n")
        assert re.fullmatch(rf'"[A-Z0-9_]+"(?:,"[A-Z0-9_]+"){{{width - 1}}}', header), name
        line = re.compile(rf"{cell}(?:,{cell}){{{width - 1}}}\n")
        position = 0
        while match := line.match(body, position):
            position, seen = match.end(), seen + 1
        assert position == len(body), name
    assert seen > 20_000


def test_mimic4_has_the_published_columns(hospital):
    folder, _ = hospital
    headers = {}
    for path in sorted((folder / "mimic4").rglob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            headers[path.name] = file.readline().rstrip("\n")
    assert len(headers) == 12
    note = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"
    assert headers["discharge.csv.gz"] == headers["radiology.csv.gz"] == note
    assert headers["diagnoses_icd.csv.gz"] == "subject_id,hadm_id,seq_num,icd_code,icd_version"
    assert headers["patients.csv.gz"] == (
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod"
    )
    assert headers["icustays.csv.gz"] == (
        "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los"
    )
    assert headers["admissions.csv.gz"].endswith("race,edregtime,edouttime,hospital_expire_flag")


def test_ids_are_unique_in_range_and_refer_to_each_other(hospital):
    folder, truth = hospital
    patients = [int(row["SUBJECT_ID"]) for row in rows(folder / "mimic3" / "PATIENTS.csv")]
    admissions = rows(folder / "mimic3" / "ADMISSIONS.csv")
    stays = [int(row["ICUSTAY_ID"]) for row in rows(folder / "mimic3" / "ICUSTAYS.csv")]
    hadm = [int(row["HADM_ID"]) for row in admissions]
    assert len(set(patients)) == PATIENTS
    assert len(set(hadm)) == len(hadm) == len(set(stays)) > PATIENTS
    assert min(hadm) >= 100_001
    assert max(hadm) <= 199_999
    assert min(stays) >= 200_001
    assert {int(row["SUBJECT_ID"]) for row in admissions} == set(patients)
    notes = rows(folder / "mimic3" / "NOTEEVENTS.csv")
    assert {int(row["HADM_ID"]) for row in notes if row["HADM_ID"]} <= set(hadm)
    assert [int(row["ROW_ID"]) for row in notes] == list(range(1, len(notes) + 1))
    written = {row.hadm_id for row in truth.admissions if row.hospital == "mimic3"}
    assert written == set(hadm)
    newer = rows(folder / "mimic4" / "hosp" / "patients.csv.gz")
    assert len({row["subject_id"] for row in newer}) == MIMIC4_PATIENTS
    assert all(10_000_000 <= int(row["subject_id"]) < 20_000_000 for row in newer)
    assert all(int(row["anchor_age"]) >= 18 for row in newer)


def test_mimic3_labels_follow_from_the_tables_alone(hospital):
    folder, _ = hospital
    entries = json.loads((folder / "truth" / "truth.json").read_text())["admissions"]["mimic3"]
    codes, ventilated = icd9_labels(folder / "mimic3"), ventilated_days(folder / "mimic3")
    codes_2021 = icd9_labels(folder / "mimic3", "VE", int)
    seen = Counter()
    for row in rows(folder / "mimic3" / "ADMISSIONS.csv"):
        entry = entries[row["HADM_ID"]]
        expected = expected_labels(row, codes, ventilated)
        assert entry["labels"] == expected
        assert entry["tasks"] == entry["core_2021"]["tasks"] == list(expected)
        assert entry["core_2021"]["labels"] == expected_labels(row, codes_2021, ventilated)
        assert bool(row["DEATHTIME"]) == (row["HOSPITAL_EXPIRE_FLAG"] == "1")
        seen.update(expected.keys())
    assert seen["MOR"] > PATIENTS
    assert min(seen.values()) > 300


def test_published_rules_for_prolonged_ventilation_agree_on_every_stay(hospital):
    folder, _ = hospital
    days = list(ventilated_days(folder / "mimic3").values())
    assert len(days) > 300
    for limit in (2, 7):
        assert all((span + 0.25 >= limit) == (span > limit) for span in days)


def test_mimic4_labels_use_the_version_of_each_admission(hospital):
    folder, truth = hospital
    found, versions = mimic4_codes(folder / "mimic4")
    seen = Counter()
    for row in truth.admissions:
        if row.hospital == "mimic4":
            hadm = str(row.hadm_id)
            assert versions[hadm] <= {row.icd_version}
            assert list(row.diagnoses) == found["DIAG"][hadm]
            assert list(row.procedures) == found["PROC"][hadm]
            seen[row.icd_version] += 1
    assert min(seen[9], seen[10]) > 20


def test_rates_are_those_of_an_intensive_care_hospital(hospital):
    _, truth = hospital
    cohort = [row for row in truth.admissions if row.hospital == "mimic3"]
    survivors = [row for row in cohort if not row.died]
    assert 0.09 < statistics.mean(row.died for row in cohort) < 0.15
    shares = Counter(row.los_class for row in survivors)
    assert min(shares.values()) / len(survivors) > 0.08
    assert max(shares.values()) / len(survivors) < 0.5
    assert 0.25 < statistics.mean(row.ventilated_days > 0 for row in cohort) < 0.5
    prolonged = [row.labels["PMV"] for row in cohort if "PMV" in row.tasks]
    assert 0.15 < statistics.mean(prolonged) < 0.4


def test_splits_are_disjoint_by_patient_and_hold_every_admission(hospital):
    folder, truth = hospital
    sizes = {}
    patients = {}
    for name in ("train", "val", "test"):
        lines = (folder / "truth" / "splits" / f"mimic_{name}.csv").read_text().split()
        assert lines[0] == "SUBJECT_ID"
        assert tuple(map(int, lines[1:])) == truth.splits[name]
        sizes[name], patients[name] = len(lines) - 1, set(lines[1:])
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & (patients["train"] | patients["test"])
    assert sum(sizes.values()) == sum(row.hospital == "mimic3" for row in truth.admissions)
    assert 0.65 < sizes["train"] / sum(sizes.values()) < 0.75


def test_the_oracle_beats_words_and_words_beat_chance(hospital):
    folder, truth = hospital
    by_hadm = {str(r.hadm_id): r for r in truth.admissions if "MOR" in r.tasks}
    texts, died, true, patient = [], [], [], []
    for row in rows(folder / "mimic3" / "NOTEEVENTS.csv"):
        is_summary = (row["CATEGORY"], row["DESCRIPTION"]) == ("Discharge summary", "Report")
        if is_summary and row["HADM_ID"] in by_hadm:
            texts.append("\n".join(admission_text(row["TEXT"])))
            died.append(by_hadm[row["HADM_ID"]].died)
            true.append(by_hadm[row["HADM_ID"]].death_probability)
            patient.append(int(row["SUBJECT_ID"]))
    assert len(texts) > PATIENTS
    died, is_test = np.array(died), np.array(patient) % 10 < 4
    words = TfidfVectorizer(min_df=3, sublinear_tf=True)
    train_X = words.fit_transform([t for t, out in zip(texts, is_test, strict=True) if not out])
    test_X = words.transform([t for t, out in zip(texts, is_test, strict=True) if out])
    model = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced")
    model.fit(train_X, died[~is_test])
    reached = roc_auc_score(died[is_test], model.predict_proba(test_X)[:, 1])
    possible = roc_auc_score(died[is_test], np.array(true)[is_test])
    oracle = truth.oracle["mimic3"]
    assert 0.65 < reached < possible - 0.03
    assert oracle["MOR"] == pytest.approx(roc_auc_score(died, true), abs=0.005)
    assert 0.83 < oracle["MOR"] < 0.92
    assert 0.65 < oracle["LOS"] < 0.8
    assert 0.55 < oracle["PMV"] < 0.8
    assert oracle["DIAG"] > 0.75
    assert oracle["PROC"] > 0.8
    assert json.loads((folder / "truth" / "oracle.json").read_text())["mimic3"] == oracle


def test_the_admission_text_does_not_depend_on_the_outcome(tmp_path):
    """With another strength of signal the same patients end differently and present the same."""
    first = {}
    for signal in (0.0, 2.0):
        config = SyntheticConfig(patients=80, mimic4_patients=0, signal=signal)
        truth = write_hospital(tmp_path / str(signal), config)
        died = {row.subject_id: row.died for row in reversed(truth.admissions)}
        for row in rows(tmp_path / str(signal) / "mimic3" / "NOTEEVENTS.csv"):
            if row["DESCRIPTION"] == "Report" and row["CATEGORY"] == "Discharge summary":
                told = (admission_text(row["TEXT"]), died[int(row["SUBJECT_ID"])], row["TEXT"])
                first.setdefault(row["SUBJECT_ID"], {}).setdefault(signal, told)
    assert len(first) == 80
    assert all(entry[0.0][0] == entry[2.0][0] for entry in first.values())
    assert sum(entry[0.0][1] != entry[2.0][1] for entry in first.values()) > 3
    assert sum(entry[0.0][2] != entry[2.0][2] for entry in first.values()) > 60


def test_summaries_keep_the_hospital_course_out_of_the_admission_text(hospital):
    folder, _ = hospital
    seen = complete = 0
    for row in rows(folder / "mimic3" / "NOTEEVENTS.csv"):
        if row["CATEGORY"] != "Discharge summary":
            continue
        sections = admission_text(row["TEXT"])
        joined = " ".join(sections)
        assert not re.search(
            r"(?i)(hospital course|discharge \w+|laboratory data|results):", joined
        )
        assert not re.search(
            r"(?i)(patient|pt) (had |has )?(expired|died|passed away|deceased)"
            r"|he expired|time of death",
            joined,
        )
        seen += 1
        complete += all(sections)
    assert seen > PATIENTS
    assert complete == seen


def test_overlapping_patients_tell_the_same_story_under_other_ids(tmp_path):
    config = SyntheticConfig(patients=30, mimic4_patients=20, overlap_fraction=0.5)
    truth = write_hospital(tmp_path / "h", config)
    assert len(truth.overlap) == 10
    older, newer = {}, {}
    for row in rows(tmp_path / "h" / "mimic3" / "NOTEEVENTS.csv"):
        if row["CATEGORY"] == "Discharge summary":
            older.setdefault(int(row["SUBJECT_ID"]), row["TEXT"])
    for row in rows(tmp_path / "h" / "mimic4" / "note" / "discharge.csv.gz"):
        newer.setdefault(int(row["subject_id"]), row["text"])

    def words(text):
        return set(re.sub(r"\[\*\*.*?\*\*\]|___", " ", text, flags=re.S).lower().split())

    def likeness(a, b):
        return len(words(a) & words(b)) / len(words(a) | words(b))

    same = [likeness(older[a], newer[b]) for a, b in truth.overlap]
    others = [
        likeness(older[a], newer[b])
        for (a, _), (_, b) in zip(truth.overlap, truth.overlap[1:], strict=False)
    ]
    assert min(same) > 0.6
    assert max(others) < 0.5


def test_a_hospital_of_one_patient_is_complete(tmp_path):
    truth = write_hospital(tmp_path / "h", SyntheticConfig(patients=1, mimic4_patients=1))
    assert {row.hospital for row in truth.admissions} == {"mimic3", "mimic4"}
    assert len(list((tmp_path / "h").rglob("*.csv*"))) == 9 + 12 + 3
