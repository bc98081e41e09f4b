"""The MIMIC-IV-shaped part: hosp, icu and note tables, one patient at a time."""

import contextlib
import dataclasses
import datetime as dt
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from notetune.hospital import codes
from notetune.hospital.charts import Chart, Fate, Note, Visit, drawn_stays, scattered_id
from notetune.hospital.charts import author_of as author_of_stay
from notetune.hospital.layout import mimic4_summary, summary_sections
from notetune.hospital.outcome_model import MINUTES_PER_DAY, OutcomeModel
from notetune.hospital.patients import sample_patient
from notetune.hospital.stays import Stay
from notetune.hospital.tables import CsvTable, CsvValue
from notetune.hospital.ward_notes import mimic4_radiology

_NOTE = "note_id subject_id hadm_id note_type note_seq charttime storetime text"
_DETAIL = "note_id subject_id field_name field_value field_ordinal"
COLUMNS = {
    "note/discharge": _NOTE,
    "note/radiology": _NOTE,
    "note/discharge_detail": _DETAIL,
    "note/radiology_detail": _DETAIL,
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type "
    "admit_provider_id admission_location discharge_location insurance language marital_status "
    "race edregtime edouttime hospital_expire_flag",
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
    "hosp/d_icd_procedures": "icd_code icd_version long_title",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "icu/ventilation": "stay_id starttime endtime ventilation_status",
}
_GROUPS = (2008, 2011, 2014, 2017)
_FIRST_ICD10_YEAR = 2016
_LATEST_YEAR = 2019
_BLOCK = 10_000_000  # ids per kind: subject 1x, admission 2x, stay 3x million
_UNITS = {
    "CARDIOTHORACIC": "Cardiac Vascular Intensive Care Unit (CVICU)",
    "CCU": "Coronary Care Unit (CCU)",
    "CARDIOLOGY": "Coronary Care Unit (CCU)",
    "NEUROLOGY": "Neuro Surgical Intensive Care Unit (Neuro SICU)",
    "NEUROSURGERY": "Neuro Surgical Intensive Care Unit (Neuro SICU)",
    "TRAUMA": "Trauma SICU (TSICU)",
    "SURGERY": "Surgical Intensive Care Unit (SICU)",
    "ORTHOPAEDICS": "Surgical Intensive Care Unit (SICU)",
    "MEDICINE": "Medical Intensive Care Unit (MICU)",
}


class Mimic4Writer:
    """Open tables of the MIMIC-IV part; charts are built and written in turn."""

    def __init__(self, folder: Path, seed: int, model: OutcomeModel) -> None:
        self._folder, self._seed, self._model = folder, seed, model
        self._open = contextlib.ExitStack()
        self._tables: Mapping[str, CsvTable] = {}
        self._admissions = 0

    def __enter__(self) -> "Mimic4Writer":
        self._tables = {
            name: self._open.enter_context(
                CsvTable(self._folder / f"{name}.csv.gz", text.split(), 4)
            )
            for name, text in COLUMNS.items()
        }
        for kind, rows in (("diagnoses", codes.DIAGNOSES), ("procedures", codes.PROCEDURES)):
            for row in rows:
                self._append(f"hosp/d_icd_{kind}", row.icd9, 9, row.title)
                self._append(f"hosp/d_icd_{kind}", row.icd10, 10, row.title)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def chart(self, index: int, key: str, fate: Fate | None = None) -> Chart:
        """Build the chart of patient number `index`, drawn from `key`."""
        patient = sample_patient(key)
        rng = random.Random(f"{key}/dates of the second hospital")
        shift = dt.timedelta(days=rng.randint(-1500, 1500))
        patient = dataclasses.replace(patient, first_admission=patient.first_admission + shift)
        group = rng.choice(_GROUPS)
        visits: list[Visit] = []
        for stay in drawn_stays(patient, self._model, fate):
            visits.append(self._visit(stay, visits[-1].stay if visits else None, group, rng))
        return Chart(
            hospital="mimic4",
            subject_id=scattered_id(index, _BLOCK, _BLOCK),
            patient=patient,
            visits=visits,
            anchor_group=group,
        )

    def write(self, chart: Chart) -> None:
        """Append a chart to the tables and give its notes their ids."""
        rng = random.Random(f"{chart.patient.key}/administration of the second hospital")
        patient, group = chart.patient, chart.anchor_group
        last = chart.visits[-1].stay
        died = last.discharged.date() if last.outcome.died else None
        if not died and rng.random() < 0.15:
            died = last.discharged.date() + dt.timedelta(days=rng.randint(5, 360))
        self._append(
            "hosp/patients", chart.subject_id, patient.sex, min(patient.age, 91),
            patient.first_admission.year, f"{group} - {group + 2}", died,
        )  # fmt: skip
        person = (
            "Medicare" if patient.age > 64 else rng.choice(("Private", "Medicaid")),
            rng.choice(("English", "English", "English", "Spanish")),
            rng.choice(("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", None)),
            rng.choice(("WHITE", "WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "UNKNOWN")),
        )
        for visit in chart.visits:
            self._write_admission(chart, visit, person, rng)
            if visit.in_icu:
                self._write_icu(chart, visit)
            self._write_codes(chart, visit)
        self._write_notes(chart, rng)

    def _visit(self, stay: Stay, earlier: Stay | None, group: int, rng: random.Random) -> Visit:
        author = author_of_stay(self._seed, stay)
        before = earlier.presentation if earlier else None
        text = mimic4_summary(stay, author, summary_sections(stay, author, before))
        sequence = self._admissions
        self._admissions += 1
        version = _icd_version(stay, group, rng)
        is_grave = (
            stay.presentation.worst_grade > 0 or stay.presentation.problems[0].condition.elective
        )
        visit = Visit(
            stay=stay,
            author=author,
            hadm_id=scattered_id(sequence, 2 * _BLOCK, _BLOCK),
            icustay_id=scattered_id(sequence, 3 * _BLOCK, _BLOCK),
            notes=[Note("DS", "", stay.discharged, text), *mimic4_radiology(stay, author)],
            diagnoses=list(stay.outcome.diagnoses),
            procedures=list(stay.outcome.procedures),
            icd_version=version,
            in_icu=bool(stay.ventilation) or is_grave or rng.random() < 0.3,
        )
        if version == 10:
            visit.diagnoses = _mapped(stay.outcome.diagnoses, codes.DIAGNOSIS_ICD10)
            visit.procedures = _mapped(stay.outcome.procedures, codes.PROCEDURE_ICD10)
        return visit

    def _write_admission(
        self, chart: Chart, visit: Visit, person: tuple[CsvValue, ...], rng: random.Random
    ) -> None:
        stay = visit.stay
        is_elective = stay.presentation.problems[0].condition.elective
        came_by_ed = not is_elective and rng.random() < 0.7
        kind = "SURGICAL SAME DAY ADMISSION" if is_elective else rng.choice(("EW EMER.", "URGENT"))
        died = stay.outcome.died
        arrived = stay.admitted - dt.timedelta(minutes=rng.randint(90, 500))
        left_ed = stay.admitted + dt.timedelta(minutes=rng.randint(5, 90))
        insurance, language, marital, race = person
        self._append(
            "hosp/admissions", chart.subject_id, visit.hadm_id, stay.admitted, stay.discharged,
            stay.discharged if died else None, kind, f"P{rng.randrange(36**3):05d}",
            "EMERGENCY ROOM" if came_by_ed else "PHYSICIAN REFERRAL",
            "DIED" if died else rng.choice(("HOME", "HOME HEALTH CARE", "REHAB")),
            insurance, language, marital, race, arrived if came_by_ed else None,
            left_ed if came_by_ed else None, int(died),
        )  # fmt: skip

    def _write_icu(self, chart: Chart, visit: Visit) -> None:
        start, end = visit.stay.icu
        unit = _UNITS[visit.stay.presentation.problems[0].condition.service]
        days = (end - start).total_seconds() / 60 / MINUTES_PER_DAY
        self._append(
            "icu/icustays", chart.subject_id, visit.hadm_id, visit.icustay_id, unit, unit, start,
            end, days,
        )  # fmt: skip
        for on, off in visit.stay.ventilation:
            self._append("icu/ventilation", visit.icustay_id, on, off, "InvasiveVent")

    def _write_codes(self, chart: Chart, visit: Visit) -> None:
        ids = (chart.subject_id, visit.hadm_id)
        for number, code in enumerate(visit.diagnoses, start=1):
            self._append("hosp/diagnoses_icd", *ids, number, code, visit.icd_version)
        day = visit.stay.admitted.date()
        for number, code in enumerate(visit.procedures, start=1):
            self._append("hosp/procedures_icd", *ids, number, day, code, visit.icd_version)

    def _write_notes(self, chart: Chart, rng: random.Random) -> None:
        numbers = {"discharge": 1, "radiology": 1}
        for visit in chart.visits:
            for note in visit.notes:
                kind = "discharge" if note.category in ("DS", "AD") else "radiology"
                numbers[kind] += rng.randint(1, 3)
                self._write_note(chart, visit, note, kind, numbers[kind])

    def _write_note(self, chart: Chart, visit: Visit, note: Note, kind: str, number: int) -> None:
        note.note_id = f"{chart.subject_id}-{note.category}-{number}"
        # Discharge summaries carry a date only: their time is midnight.
        written = note.written
        if kind == "discharge":
            written = written.replace(hour=0, minute=0)
        self._append(
            f"note/{kind}", note.note_id, chart.subject_id,
            visit.hadm_id if note.has_admission else None, note.category, number, written,
            note.written + dt.timedelta(hours=20), note.text,
        )  # fmt: skip
        name, value = ("author", "___") if kind == "discharge" else ("exam_name", note.description)
        self._append(f"note/{kind}_detail", note.note_id, chart.subject_id, name, value, 1)

    def _append(self, name: str, *cells: CsvValue) -> None:
        self._tables[name].append(*cells)


def mimic4_key(seed: int, index: int) -> str:
    """The key from which everything about patient number `index` is drawn."""
    return f"{seed}/mimic4/{index}"


def _icd_version(stay: Stay, group: int, rng: random.Random) -> Literal[9, 10]:
    """The version in use in the true year, which only the anchor group tells to three years."""
    years = stay.admitted.year - stay.presentation.patient.first_admission.year
    true_year = min(_LATEST_YEAR, group + rng.randint(0, 2) + years)
    return 10 if true_year >= _FIRST_ICD10_YEAR else 9


def _mapped(found: tuple[str, ...], newer: Mapping[str, str]) -> list[str | None]:
    return list(dict.fromkeys(newer[code] for code in found))
