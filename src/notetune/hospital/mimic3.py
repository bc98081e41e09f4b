"""The MIMIC-III-shaped part: patients to tables, one patient at a time."""

import datetime as dt
import itertools
import random
from collections.abc import Callable, Iterable

from notetune.hospital import codes
from notetune.hospital.charts import Chart, Told, Visit, arrival, person, scattered_id
from notetune.hospital.layout import date_of_birth, mimic3_summary
from notetune.hospital.patients import Patient, sample_patient
from notetune.hospital.tables import RECORDS, Tables
from notetune.hospital.ward_notes import Note, mimic3_radiology, ward_notes

_RECORDS = RECORDS["mimic3"]
_ICD_TITLE = 24  # characters of SHORT_TITLE
_SPLITS = (("train", 0.7), ("val", 0.8), ("test", 1.0))


class Mimic3:
    """The MIMIC-III part; charts are built and written in turn."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._numbers = tables, itertools.count()
        for name, rows in (("DIAGNOSES", codes.DIAGNOSES), ("PROCEDURES", codes.PROCEDURES)):
            for row in rows:
                tables[f"D_ICD_{name}"].append(row.icd9, row.title[:_ICD_TITLE], row.title)

    def chart(self, index: int, key: str, told: Callable[[Patient], Iterable[Told]]) -> Chart:
        """Build the chart of patient number `index`, drawn from `key`."""
        patient = sample_patient(key)
        drawn = random.Random(f"{key}/split").random()
        return Chart(
            hospital="mimic3",
            subject_id=mimic3_subject_id(index),
            patient=patient,
            visits=[self._visit(row) for row in told(patient)],
            split=next(name for name, below in _SPLITS if drawn < below),
        )

    def write(self, chart: Chart) -> None:
        """Append a chart to the tables and give its notes their ids."""
        rng = random.Random(f"{chart.patient.key}/administration")
        self._write_patient(chart, rng)
        cells = person(chart.patient, _RECORDS, rng)
        for visit in chart.visits:
            stay, ids = visit.stay, (chart.subject_id, visit.hadm_id)
            kind, arrived, left = arrival(stay.presentation, _RECORDS, rng)
            origin = "EMERGENCY ROOM ADMIT" if arrived else "TRANSFER FROM HOSP/EXTRAM"
            origin = "PHYS REFERRAL/NORMAL DELI" if kind == _RECORDS.elective else origin
            home = "SNF" if stay.presentation.worst_grade == 2 else "HOME"
            self._tables["ADMISSIONS"].append(
                *ids, stay.admitted, stay.discharged, stay.died_at, visit.admission_type or kind,
                origin, "DEAD/EXPIRED" if stay.outcome.died else home, *cells, arrived, left,
                stay.presentation.reason.terms[0].upper(), int(stay.outcome.died), 1,
            )  # fmt: skip
            self._write_icu(ids, visit)
            for name, listed in (("DIAGNOSES", visit.diagnoses), ("PROCEDURES", visit.procedures)):
                for number, code in enumerate(listed, start=1):
                    self._tables[f"{name}_ICD"].append(*ids, number if code else None, code)
            for note in visit.notes:
                self._write_note(ids, note, rng)

    def _visit(self, row: Told) -> Visit:
        stay, author, number = row.stay, row.author, next(self._numbers)
        text = mimic3_summary(stay, author, row.sections)
        summary = Note("Discharge summary", "Report", stay.discharged, text, has_time=False)
        return Visit(
            stay=stay,
            author=author,
            hadm_id=scattered_id(number, 100_001, 99_999),
            icustay_id=scattered_id(number, 200_001, 99_999),
            notes=[summary, *mimic3_radiology(stay, author), *ward_notes(stay, author)],
            diagnoses=list(stay.outcome.diagnoses),
            procedures=list(stay.outcome.procedures),
        )

    def _write_patient(self, chart: Chart, rng: random.Random) -> None:
        last = chart.visits[-1].stay
        later = None
        if not last.outcome.died and rng.random() < 0.2:
            later = last.discharged + dt.timedelta(days=rng.randint(20, 1500))
        died = _midnight(last.died_at or later)
        self._tables["PATIENTS"].append(
            chart.subject_id, chart.patient.sex, _midnight(date_of_birth(last.presentation)), died,
            _midnight(last.died_at), died if rng.random() < 0.8 else None, int(died is not None),
        )  # fmt: skip

    def _write_icu(self, ids: tuple[int, int], visit: Visit) -> None:
        stay = visit.stay
        unit = _RECORDS.units[stay.presentation.reason.service]
        source = "metavision" if visit.hadm_id % 5 < 2 else "carevue"
        self._tables["ICUSTAYS"].append(
            *ids, visit.icustay_id, source, unit, unit, 12, 12, *stay.icu, stay.icu_days
        )
        for number, (on, off) in enumerate(stay.ventilation, start=1):
            hours = (off - on).total_seconds() / 3600
            self._tables["VENTDURATIONS"].append(visit.icustay_id, number, on, off, hours)

    def _write_note(self, ids: tuple[int, int], note: Note, rng: random.Random) -> None:
        subject_id, hadm_id = ids
        stored = note.written + dt.timedelta(minutes=rng.randint(1, 90))
        is_charted = note.has_time and note.category != "Radiology"
        row = self._tables["NOTEEVENTS"].append(
            subject_id, hadm_id if note.has_admission else None, note.written.date(),
            note.written if note.has_time else None, stored if is_charted else None,
            note.category, note.description,
            rng.randint(14000, 21500) if is_charted else None, None, note.text,
        )  # fmt: skip
        note.note_id = str(row)


def mimic3_subject_id(index: int) -> int:
    """The SUBJECT_ID of patient number `index`."""
    return scattered_id(index, 2, 99_998)


def _midnight(day: dt.date | None) -> dt.datetime | None:
    return dt.datetime(day.year, day.month, day.day) if day else None  # noqa: DTZ001
