"""The MIMIC-III-shaped part: patients to tables, one patient at a time."""

import contextlib
import datetime as dt
import random
from collections.abc import Mapping
from pathlib import Path

from notetune.hospital import codes
from notetune.hospital.charts import Chart, Fate, Note, Visit, drawn_stays, scattered_id
from notetune.hospital.charts import author_of as author_of_stay
from notetune.hospital.layout import date_of_birth, mimic3_summary, summary_sections
from notetune.hospital.outcome_model import MINUTES_PER_DAY, OutcomeModel
from notetune.hospital.patients import sample_patient
from notetune.hospital.stays import Stay
from notetune.hospital.tables import CsvTable, CsvValue
from notetune.hospital.ward_notes import mimic3_radiology, ward_notes

SUMMARY = ("Discharge summary", "Report")
_ICD_TITLE = 24  # characters of SHORT_TITLE

COLUMNS = {
    "NOTEEVENTS": "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION "
    "CGID ISERROR TEXT",
    "ADMISSIONS": "ROW_ID SUBJECT_ID HADM_ID ADMITTIME DISCHTIME DEATHTIME ADMISSION_TYPE "
    "ADMISSION_LOCATION DISCHARGE_LOCATION INSURANCE LANGUAGE RELIGION MARITAL_STATUS ETHNICITY "
    "EDREGTIME EDOUTTIME DIAGNOSIS HOSPITAL_EXPIRE_FLAG HAS_CHARTEVENTS_DATA",
    "PATIENTS": "ROW_ID SUBJECT_ID GENDER DOB DOD DOD_HOSP DOD_SSN EXPIRE_FLAG",
    "ICUSTAYS": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID DBSOURCE FIRST_CAREUNIT LAST_CAREUNIT "
    "FIRST_WARDID LAST_WARDID INTIME OUTTIME LOS",
    "DIAGNOSES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "PROCEDURES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "D_ICD_DIAGNOSES": "ROW_ID ICD9_CODE SHORT_TITLE LONG_TITLE",
    "D_ICD_PROCEDURES": "ROW_ID ICD9_CODE SHORT_TITLE LONG_TITLE",
    "VENTDURATIONS": "ICUSTAY_ID VENTNUM STARTTIME ENDTIME DURATION_HOURS",
}
_UNITS = {"CARDIOTHORACIC": "CSRU", "CCU": "CCU", "CARDIOLOGY": "CCU", "MEDICINE": "MICU"}
_SPLITS = (("train", 0.7), ("val", 0.8), ("test", 1.0))


class Mimic3Writer:
    """Open tables of the MIMIC-III part; charts are built and written in turn."""

    def __init__(self, folder: Path, seed: int, model: OutcomeModel) -> None:
        self._folder, self._seed, self._model = folder, seed, model
        self._open = contextlib.ExitStack()
        self._tables: Mapping[str, CsvTable] = {}
        self._admissions = 0

    def __enter__(self) -> "Mimic3Writer":
        self._tables = {
            name: self._open.enter_context(CsvTable(self._folder / f"{name}.csv", text.split(), 3))
            for name, text in COLUMNS.items()
        }
        for row in (*codes.DIAGNOSES, *codes.EXTRA_DIAGNOSES):
            self._append("D_ICD_DIAGNOSES", row.icd9, row.title[:_ICD_TITLE], row.title)
        for row in codes.PROCEDURES:
            self._append("D_ICD_PROCEDURES", row.icd9, row.title[:_ICD_TITLE], row.title)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def chart(self, index: int, fate: Fate | None = None) -> Chart:
        """Build the chart of patient number `index`; with a `fate` for an edge case."""
        patient = sample_patient(mimic3_key(self._seed, index))
        visits: list[Visit] = []
        for stay in drawn_stays(patient, self._model, fate):
            visits.append(self._visit(stay, visits[-1].stay if visits else None))
        drawn = random.Random(f"{patient.key}/split").random()
        return Chart(
            hospital="mimic3",
            subject_id=mimic3_subject_id(index),
            patient=patient,
            visits=visits,
            split=next(name for name, below in _SPLITS if drawn < below),
        )

    def write(self, chart: Chart) -> None:
        """Append a chart to the tables and give its notes their ids."""
        rng = random.Random(f"{chart.patient.key}/administration")
        self._write_patient(chart, rng)
        insurance = "Medicare" if chart.patient.age > 64 else rng.choice(("Private", "Medicaid"))
        person = (
            insurance,
            rng.choice(("ENGL", "ENGL", "ENGL", "SPAN", None)),
            rng.choice(("CATHOLIC", "NOT SPECIFIED", "PROTESTANT QUAKER", "JEWISH", None)),
            rng.choice(("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", None)),
            rng.choice(("WHITE", "WHITE", "WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN")),
        )
        for visit in chart.visits:
            self._write_admission(chart, visit, person, rng)
            self._write_icu(chart, visit)
            self._write_codes(chart, visit)
            for note in visit.notes:
                self._write_note(chart, visit, note, rng)

    def _visit(self, stay: Stay, earlier: Stay | None) -> Visit:
        author = author_of_stay(self._seed, stay)
        before = earlier.presentation if earlier else None
        text = mimic3_summary(stay, author, summary_sections(stay, author, before))
        summary = Note(*SUMMARY, stay.discharged, text, has_time=False)
        sequence = self._admissions
        self._admissions += 1
        return Visit(
            stay=stay,
            author=author,
            hadm_id=scattered_id(sequence, 100_001, 99_999),
            icustay_id=scattered_id(sequence, 200_001, 99_999),
            notes=[summary, *mimic3_radiology(stay, author), *ward_notes(stay, author)],
            diagnoses=list(stay.outcome.diagnoses),
            procedures=list(stay.outcome.procedures),
        )

    def _write_patient(self, chart: Chart, rng: random.Random) -> None:
        last = chart.visits[-1]
        born: dt.date = date_of_birth(last.stay.presentation)
        if last.is_newborn:
            born = chart.patient.first_admission.date()
        in_hospital = last.stay.discharged if last.stay.outcome.died else None
        later = None
        if not in_hospital and rng.random() < 0.2:
            later = last.stay.discharged + dt.timedelta(days=rng.randint(20, 1500))
        died = _midnight(in_hospital or later)
        self._append(
            "PATIENTS", chart.subject_id, chart.patient.sex, _midnight(born), died,
            _midnight(in_hospital), died if rng.random() < 0.8 else None, int(died is not None),
        )  # fmt: skip

    def _write_admission(
        self, chart: Chart, visit: Visit, person: tuple[CsvValue, ...], rng: random.Random
    ) -> None:
        stay = visit.stay
        first = stay.presentation.problems[0].condition
        came_by_ed = not first.elective and not visit.is_newborn and rng.random() < 0.7
        if visit.is_newborn:
            kind, origin = "NEWBORN", "PHYS REFERRAL/NORMAL DELI"
        elif first.elective:
            kind, origin = "ELECTIVE", "PHYS REFERRAL/NORMAL DELI"
        else:
            kind = rng.choice(("EMERGENCY", "EMERGENCY", "EMERGENCY", "URGENT"))
            origin = "EMERGENCY ROOM ADMIT" if came_by_ed else "TRANSFER FROM HOSP/EXTRAM"
        arrived = stay.admitted - dt.timedelta(minutes=rng.randint(90, 500))
        left_ed = stay.admitted + dt.timedelta(minutes=rng.randint(5, 90))
        died = stay.outcome.died
        self._append(
            "ADMISSIONS", chart.subject_id, visit.hadm_id, stay.admitted, stay.discharged,
            stay.discharged if died else None, kind, origin, _destination(stay), *person,
            arrived if came_by_ed else None, left_ed if came_by_ed else None,
            "NEWBORN" if visit.is_newborn else first.terms[0].upper(),
            int(died), 1,
        )  # fmt: skip

    def _write_icu(self, chart: Chart, visit: Visit) -> None:
        start, end = visit.stay.icu
        unit = "NICU" if visit.is_newborn else _unit(visit.stay)
        days = (end - start).total_seconds() / 60 / MINUTES_PER_DAY
        source = "metavision" if visit.hadm_id % 5 < 2 else "carevue"
        self._append(
            "ICUSTAYS", chart.subject_id, visit.hadm_id, visit.icustay_id, source, unit, unit,
            12, 12, start, end, days,
        )  # fmt: skip
        for number, (on, off) in enumerate(visit.stay.ventilation, start=1):
            hours = (off - on).total_seconds() / 3600
            self._tables["VENTDURATIONS"].append(visit.icustay_id, number, on, off, hours)

    def _write_codes(self, chart: Chart, visit: Visit) -> None:
        for name, listed in (
            ("DIAGNOSES_ICD", visit.diagnoses),
            ("PROCEDURES_ICD", visit.procedures),
        ):
            for number, code in enumerate(listed, start=1):
                rank = None if code is None else number
                self._append(name, chart.subject_id, visit.hadm_id, rank, code)

    def _write_note(self, chart: Chart, visit: Visit, note: Note, rng: random.Random) -> None:
        stored = note.written + dt.timedelta(minutes=rng.randint(1, 90))
        row = self._append(
            "NOTEEVENTS", chart.subject_id, visit.hadm_id if note.has_admission else None,
            note.written.date(), note.written if note.has_time else None,
            stored if note.has_time and note.category != "Radiology" else None,
            note.category, note.description,
            rng.randint(14000, 21500) if note.has_time and note.category != "Radiology" else None,
            None, note.text,
        )  # fmt: skip
        note.note_id = str(row)

    def _append(self, name: str, *cells: CsvValue) -> int:
        table = self._tables[name]
        return table.append(table.rows + 1, *cells)


def mimic3_subject_id(index: int) -> int:
    """The SUBJECT_ID of patient number `index`."""
    return scattered_id(index, 2, 99_998)


def mimic3_key(seed: int, index: int) -> str:
    """The key from which everything about patient number `index` is drawn."""
    return f"{seed}/mimic3/{index}"


def _destination(stay: Stay) -> str:
    if stay.outcome.died:
        return "DEAD/EXPIRED"
    return "SNF" if stay.presentation.worst_grade == 2 else "HOME"


def _unit(stay: Stay) -> str:
    service = stay.presentation.problems[0].condition.service
    return _UNITS.get(service, "TSICU" if service == "TRAUMA" else "SICU")


def _midnight(day: dt.date | None) -> dt.datetime | None:
    return dt.datetime(day.year, day.month, day.day) if day else None  # noqa: DTZ001
