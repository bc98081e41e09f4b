"""MIMIC-III against a synthetic hospital whose truth is known, in both versions of the labels."""

import csv
import datetime as dt
from collections import Counter

import pytest
from edge_cases import write_with_edges
from mimic3_tables import classes_of, flow_of, inputs, labels_of

from notetune.hospital.hospital import SyntheticConfig
from notetune.notes.outcomes import LENGTH_OF_STAY_CLASSES
from notetune.sources import read
from notetune.sources.mimic.mimic3 import Mimic3Source

PATIENTS = 300
VERSIONS = ("correct", "core-2021")
NAMES = {"MOR": "mortality", "LOS": "length_of_stay", "PMV": "ventilation"} | {
    "DIAG": "diagnoses", "PROC": "procedures"
}  # fmt: skip


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimic3") / "hospital"
    truth = write_with_edges(folder, SyntheticConfig(patients=PATIENTS, mimic4_patients=0, seed=11))
    return folder / "mimic3", truth


@pytest.fixture(scope="module", params=VERSIONS)
def reading(request, hospital):
    folder, truth = hospital
    cohort = read(Mimic3Source(kind="mimic3", folder=folder, labels=request.param))
    return request.param, cohort, truth


def as_written(task, label):
    """A label of the truth as the source names it."""
    match task:
        case "MOR":
            return ["died"] * label
        case "PMV":
            return ["prolonged"] * label
        case "LOS":
            return [LENGTH_OF_STAY_CLASSES[label]]
        case _:
            return label


def labels_by_admission(cohort, task, version):
    found = {}
    for note_id, labels in labels_of(cohort, NAMES[task]).items():
        hadm = int(note_id.split("-")[1])
        assert hadm not in found
        # The published order of the codes is that of the table; ours is that of the alphabet.
        found[hadm] = labels if version == "core-2021" else sorted(labels)
    return found


@pytest.mark.parametrize("task", NAMES)
def test_every_label_of_every_admission_is_the_true_one(reading, task):
    version, cohort, truth = reading
    expected = {}
    for row in truth.admissions:
        labels = truth.labels(row, version)
        if task in labels:
            label = as_written(task, labels[task])
            expected[row.hadm_id] = label if version == "core-2021" else sorted(label)
    assert labels_by_admission(cohort, task, version) == expected
    assert len(expected) > PATIENTS / 3
    assert len({str(label) for label in expected.values()}) > 1


def test_the_cohort_is_the_true_one(reading):
    version, cohort, truth = reading
    expected = set()
    for row in truth.admissions:
        if truth.in_cohort(row, version):
            expected.add(row.hadm_id)
    got = {int(note_id.split("-")[1]) for note_id in inputs(cohort)}
    assert got == expected
    assert len(got) > PATIENTS
    assert flow_of(cohort, "admissions").kept == len(got)
    rejected = flow_of(cohort, "discharge summaries").rejected
    rejected |= flow_of(cohort, "admissions").rejected
    assert rejected == {
        "no admission id": 1,
        "admission not in ADMISSIONS": 0,
        "newborn admission": 1,
        "same text as a later summary": 2,
        "addendum without a report": 1,
        "no complaint, illness or history": 1 if version == "correct" else 2,
    }


def test_every_edge_case_comes_out_as_it_must(reading):
    version, cohort, truth = reading
    texts = inputs(cohort)
    seen = Counter()
    for case in truth.edge_cases:
        verdict = case.verdict(version)
        here = {
            task: labels_by_admission(cohort, task, version) for task in case.tasks if task in NAMES
        }
        for hadm in case.hadm_ids:
            is_kept = any(hadm in labels for labels in here.values())
            assert is_kept == verdict.kept, case.name
        for task, label in verdict.labels:
            if verdict.kept:
                labels = here[task][case.hadm_ids[0]]
                wanted = as_written(task, int(label)) if task in ("MOR", "LOS") else [label]
                assert set(wanted) <= set(labels), case.name
                seen["labels"] += 1
        note = f"admission-{case.hadm_ids[0]}"
        text = " ".join(texts.get(f"{note}-mortality", texts.get(note, "")).split())
        for wanted in verdict.present:
            assert " ".join(wanted.split()) in text, case.name
        for unwanted in verdict.absent:
            assert " ".join(unwanted.split()) not in text, case.name
        seen["texts"] += len(verdict.present) + len(verdict.absent)
        seen["cases"] += 1
        seen["differing"] += case.core_2021 is not None
    assert seen == {"cases": 42, "differing": 13, "labels": 19, "texts": 10}


def test_classes_are_those_of_the_cohort_and_in_2021_those_of_the_whole_table(hospital, reading):
    version, cohort, _ = reading
    seen = 0
    for task, table in (("DIAG", "DIAGNOSES_ICD"), ("PROC", "PROCEDURES_ICD")):
        classes = classes_of(cohort, NAMES[task])
        if version == "correct":
            labels = labels_of(cohort, NAMES[task]).values()
            assert classes == tuple(sorted({label for found in labels for label in found}))
        else:
            with (hospital[0] / f"{table}.csv").open(newline="") as file:
                codes = [row["ICD9_CODE"] for row in csv.DictReader(file)]
            read_as = [code if task == "DIAG" else str(int(code)) for code in codes if code]
            sizes = [4 if code[0] in "VE" else 3 for code in read_as]
            assert list(classes) == list(
                dict.fromkeys(code[:size] for code, size in zip(read_as, sizes, strict=True))
            )
        seen += len(classes)
    assert seen > 120


def chart_as_written(hospital_folder, folder):
    """The tables of the hospital, its VENTDURATIONS turned into what nurses chart."""
    for path in hospital_folder.iterdir():
        if path.name != "VENTDURATIONS.csv":
            (folder / path.name).symlink_to(path)
    charted, removed = [], []
    with (hospital_folder / "VENTDURATIONS.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            time = dt.datetime.fromisoformat(row["STARTTIME"])
            end = dt.datetime.fromisoformat(row["ENDTIME"])
            while time < end:
                charted.append((row["ICUSTAY_ID"], 224700, time, "5", ""))
                charted.append((row["ICUSTAY_ID"], 211, time, "88", ""))
                time += dt.timedelta(hours=8)
            if number % 3:
                charted.append((row["ICUSTAY_ID"], 223849, end, "CMV", ""))
                late = end + dt.timedelta(hours=1)
                charted.append((row["ICUSTAY_ID"], 223849, late, "CMV", "1"))
                charted.append((row["ICUSTAY_ID"], 226732, late, "Face tent", ""))
            else:
                removed.append((row["ICUSTAY_ID"], 227194, end))
    for name, header, rows in (
        ("CHARTEVENTS", "ICUSTAY_ID ITEMID CHARTTIME VALUE ERROR", charted),
        ("PROCEDUREEVENTS_MV", "ICUSTAY_ID ITEMID STARTTIME", removed),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([header.split(), *rows])
    return len(charted)


def test_ventilation_from_the_charts_is_the_true_one(hospital, tmp_path):
    folder, truth = hospital
    assert chart_as_written(folder, tmp_path) > 1000
    cohort = read(Mimic3Source(kind="mimic3", folder=tmp_path))
    expected = {
        row.hadm_id: as_written("PMV", labels["PMV"])
        for row in truth.admissions
        if "PMV" in (labels := truth.labels(row))
    }
    assert labels_by_admission(cohort, "PMV", "correct") == expected
    assert len(expected) > PATIENTS / 3
