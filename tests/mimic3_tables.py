"""Small MIMIC-III tables for tests."""

import csv
import gzip
import random
from datetime import datetime, timedelta

from notetune.sources.mimic.mimic3 import Mimic3Source

CANARY = "zygomorphic"
COLUMNS = {
    "NOTEEVENTS": "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION "
    "CGID ISERROR TEXT",
    "ADMISSIONS": "ROW_ID SUBJECT_ID HADM_ID ADMITTIME DISCHTIME ADMISSION_TYPE "
    "HOSPITAL_EXPIRE_FLAG",
    "DIAGNOSES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "PROCEDURES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "ICUSTAYS": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID INTIME OUTTIME",
    "VENTDURATIONS": "icustay_id ventnum starttime endtime duration_hours",
    "CHARTEVENTS": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID ITEMID CHARTTIME VALUE ERROR",
    "PROCEDUREEVENTS_MV": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID STARTTIME ENDTIME ITEMID",
}
OPTIONAL = ("VENTDURATIONS", "CHARTEVENTS", "PROCEDUREEVENTS_MV")


class Folder:
    """A folder of small MIMIC-III tables; rows are added as keyword arguments."""

    def __init__(self):
        self.tables = {name: [] for name in COLUMNS}

    def add(self, table, **values):
        row = {"ROW_ID": len(self.tables[table]) + 1, "SUBJECT_ID": 1} | values
        self.tables[table].append({name: row.get(name, "") for name in COLUMNS[table].split()})
        return self

    def admit(self, hadm, patient=1, days=2.0, died=0, kind="EMERGENCY"):
        discharged = datetime.fromisoformat("2150-01-01") + timedelta(days=days)
        return self.add(
            "ADMISSIONS",
            SUBJECT_ID=patient,
            HADM_ID=hadm,
            ADMITTIME="2150-01-01 00:00:00",
            DISCHTIME=f"{discharged:%Y-%m-%d %H:%M:%S}",
            ADMISSION_TYPE=kind,
            HOSPITAL_EXPIRE_FLAG=died,
        )

    def note(self, hadm, text, **values):
        usual = {
            "CHARTDATE": "2150-01-03",
            "CATEGORY": "Discharge summary",
            "DESCRIPTION": "Report",
        }
        return self.add("NOTEEVENTS", HADM_ID=hadm, TEXT=text, **(usual | values))

    def code(self, hadm, *codes, table="DIAGNOSES_ICD", **values):
        for code in codes:
            self.add(table, HADM_ID=hadm, ICD9_CODE=code, **values)
        return self

    def write(self, path, *, lower=False, packed=False, seed=None, **settings):
        """Write the tables; `seed` shuffles their rows, `settings` are those of the source."""
        path.mkdir(exist_ok=True)
        for name, rows in self.tables.items():
            if not rows and name in OPTIONAL:
                continue
            rows = list(rows)
            if seed is not None:
                random.Random(seed).shuffle(rows)
            columns = COLUMNS[name].split()
            header = [column.lower() for column in columns] if lower else columns
            opened = gzip.open if packed else open
            suffix = ".csv.gz" if packed else ".csv"
            with opened(path / f"{name}{suffix}", "wt", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows([row[column] for column in columns] for row in rows)
        return Mimic3Source(kind="mimic3", folder=path, **settings)


def summary(complaint="fever"):
    return f"Chief Complaint:\n{complaint}\n\nDischarge Diagnosis:\n{CANARY}"


def small():
    """Two admissions of two patients, enough for every task."""
    folder = Folder().admit(100, 1, days=2.0).admit(200, 2, days=9.0, died=1)
    folder.note(100, summary("fever")).note(200, summary("cough"))
    folder.code(100, "00845", "V3000").code(200, "4019", "00841")
    return folder.code(100, "0066", "3605", table="PROCEDURES_ICD")


def labels_of(cohort, name):
    (table,) = [table for task, table in cohort.tasks if task.name == name]
    return dict(table.iter_rows())


def classes_of(cohort, name):
    (classes,) = [task.classes for task, _ in cohort.tasks if task.name == name]
    return classes


def flow_of(cohort, stage):
    (flow,) = [flow for flow in cohort.flow if flow.stage == stage]
    return flow


def inputs(cohort):
    """Note id -> text of the task inputs."""
    chosen = [row for row in cohort.notes.iter_rows(named=True) if row["source"] == "admission"]
    return {row["note_id"]: row["text"] for row in chosen}
