"""The labels of a written hospital, computed again from its tables alone."""

import csv
import datetime as dt
import gzip
from collections import defaultdict

import pytest

csv.field_size_limit(10_000_000)


def rows(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def minutes_between(start, end):
    return (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds() / 60


def icd9_labels(folder, long_letters="E", read=str):
    """Task -> HADM_ID -> labels in table order, each once; procedures are read as `read`."""
    labels = {"DIAG": defaultdict(list), "PROC": defaultdict(list)}
    for task, name in (("DIAG", "DIAGNOSES_ICD"), ("PROC", "PROCEDURES_ICD")):
        for row in rows(folder / f"{name}.csv"):
            code = row["ICD9_CODE"] if task == "DIAG" else str(read(row["ICD9_CODE"]))
            label = code[: 4 if task == "DIAG" and code[:1] in tuple(long_letters) else 3]
            if label and label not in labels[task][row["HADM_ID"]]:
                labels[task][row["HADM_ID"]].append(label)
    return labels


def ventilated_days(folder):
    """HADM_ID -> days from the first start to the last end."""
    hadm = {row["ICUSTAY_ID"]: row["HADM_ID"] for row in rows(folder / "ICUSTAYS.csv")}
    times = defaultdict(list)
    for row in rows(folder / "VENTDURATIONS.csv"):
        times[hadm[row["ICUSTAY_ID"]]] += [row["STARTTIME"], row["ENDTIME"]]
        hours = minutes_between(row["STARTTIME"], row["ENDTIME"]) / 60
        assert float(row["DURATION_HOURS"]) == pytest.approx(hours, abs=1e-3)
    return {hadm: minutes_between(min(both), max(both)) / 1440 for hadm, both in times.items()}


def expected_labels(row, codes, ventilated):
    hadm, died = row["HADM_ID"], row["HOSPITAL_EXPIRE_FLAG"] == "1"
    days = round(minutes_between(row["ADMITTIME"], row["DISCHTIME"]) / 1440, 1)
    expected = {"MOR": int(died)}
    if not died:
        expected["LOS"] = 0 if days <= 3 else 1 if days <= 7 else 2 if days <= 14 else 3
    if hadm in ventilated:
        expected["PMV"] = int(ventilated[hadm] > 7)
    return expected | {task: codes[task][hadm] for task in codes if codes[task][hadm]}


def mimic4_codes(folder):
    """Task -> hadm_id -> labels in table order, each once, and hadm_id -> versions of ICD."""
    found = {"DIAG": defaultdict(list), "PROC": defaultdict(list)}
    versions = defaultdict(set)
    for task, name in (("DIAG", "diagnoses_icd"), ("PROC", "procedures_icd")):
        for row in rows(folder / "hosp" / f"{name}.csv.gz"):
            code, version = row["icd_code"].strip(), row["icd_version"]
            size = (4 if code[0] == "E" else 3) if version == "9" else 3
            size = size if task == "DIAG" else {"9": 3, "10": 4}[version]
            versions[row["hadm_id"]].add(int(version))
            if code[:size] not in found[task][row["hadm_id"]]:
                found[task][row["hadm_id"]].append(code[:size])
    return found, versions
