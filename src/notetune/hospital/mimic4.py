"""The MIMIC-IV-shaped part: hosp, icu and note tables, one patient at a time."""

import dataclasses
import datetime as dt
import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from notetune.hospital import codes
from notetune.hospital.charts import Chart, Told, Visit, arrival, person, scattered_id
from notetune.hospital.layout import mimic4_summary
from notetune.hospital.patients import Patient, sample_patient
from notetune.hospital.stays import Stay
from notetune.hospital.tables import RECORDS, Tables
from notetune.hospital.ward_notes import Note, mimic4_radiology

_RECORDS = RECORDS["mimic4"]
_GROUPS = (2008, 2011, 2014, 2017)
_FIRST_ICD10_YEAR = 2016
_LATEST_YEAR = 2019
_BLOCK = 10_000_000  # ids per kind: subject 1x, admission 2x, stay 3x million


class Mimic4:
    """The MIMIC-IV part; charts are built and written in turn."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._numbers = tables, itertools.count()
        for kind, rows in (("diagnoses", codes.DIAGNOSES), ("procedures", codes.PROCEDURES)):
            for row in rows:
                tables[f"hosp/d_icd_{kind}"].append(row.icd9, 9, row.title)
                tables[f"hosp/d_icd_{kind}"].append(row.icd10, 10, row.title)

    def chart(self, index: int, key: str, told: Callable[[Patient], Iterable[Told]]) -> Chart:
        """Build the chart of patient number `index`, drawn from `key`."""
        patient = sample_patient(key)
        rng = random.Random(f"{key}/dates of the second hospital")
        shift = dt.timedelta(days=rng.randint(-1500, 1500))
        patient = dataclasses.replace(patient, first_admission=patient.first_admission + shift)
        group = rng.choice(_GROUPS)
        return Chart(
            hospital="mimic4",
            subject_id=mimic4_subject_id(index),
            patient=patient,
            visits=[self._visit(row, group, rng) for row in told(patient)],
            anchor_group=group,
        )

    def write(self, chart: Chart) -> None:
        """Append a chart to the tables and give its notes their ids."""
        rng = random.Random(f"{chart.patient.key}/administration of the second hospital")
        self._write_patient(chart, rng)
        cells = person(chart.patient, _RECORDS, rng)
        for visit in chart.visits:
            stay, ids = visit.stay, (chart.subject_id, visit.hadm_id)
            kind, arrived, left = arrival(stay.presentation, _RECORDS, rng)
            self._tables["hosp/admissions"].append(
                *ids, stay.admitted, stay.discharged, stay.died_at, kind,
                f"P{rng.randrange(36**3):05d}",
                "EMERGENCY ROOM" if arrived else "PHYSICIAN REFERRAL",
                "DIED" if stay.died_at else rng.choice(("HOME", "HOME HEALTH CARE", "REHAB")),
                *cells, arrived, left, int(stay.outcome.died),
            )  # fmt: skip
            if visit.in_icu:
                self._write_icu(ids, visit)
            for number, code in enumerate(visit.diagnoses, start=1):
                self._tables["hosp/diagnoses_icd"].append(*ids, number, code, visit.icd_version)
            day = stay.admitted.date()
            for number, code in enumerate(visit.procedures, start=1):
                cells_of_code = (number, day, code, visit.icd_version)
                self._tables["hosp/procedures_icd"].append(*ids, *cells_of_code)
        self._write_notes(chart, rng)

    def _visit(self, row: Told, group: int, rng: random.Random) -> Visit:
        stay, number = row.stay, next(self._numbers)
        summary = Note("DS", "", stay.discharged, mimic4_summary(stay, row.author, row.sections))
        version = _icd_version(stay, group, rng)
        is_grave = stay.presentation.worst_grade > 0 or stay.presentation.reason.elective
        return Visit(
            stay=stay,
            author=row.author,
            hadm_id=scattered_id(number, 2 * _BLOCK, _BLOCK),
            icustay_id=scattered_id(number, 3 * _BLOCK, _BLOCK),
            notes=[summary, *mimic4_radiology(stay, row.author)],
            diagnoses=_coded(stay.outcome.diagnoses, codes.DIAGNOSIS_ICD10, version),
            procedures=_coded(stay.outcome.procedures, codes.PROCEDURE_ICD10, version),
            icd_version=version,
            in_icu=bool(stay.ventilation) or is_grave or rng.random() < 0.3,
        )

    def _write_patient(self, chart: Chart, rng: random.Random) -> None:
        patient, group, last = chart.patient, chart.anchor_group, chart.visits[-1].stay
        died = last.discharged.date() if last.outcome.died else None
        if not died and rng.random() < 0.15:
            died = last.discharged.date() + dt.timedelta(days=rng.randint(5, 360))
        self._tables["hosp/patients"].append(
            chart.subject_id, patient.sex, min(patient.age, 91), patient.first_admission.year,
            f"{group} - {group + 2}", died,
        )  # fmt: skip

    def _write_icu(self, ids: tuple[int, int], visit: Visit) -> None:
        stay = visit.stay
        unit = _RECORDS.units[stay.presentation.reason.service]
        self._tables["icu/icustays"].append(
            *ids, visit.icustay_id, unit, unit, *stay.icu, stay.icu_days
        )
        for episode in stay.ventilation:
            self._tables["icu/ventilation"].append(visit.icustay_id, *episode, "InvasiveVent")

    def _write_notes(self, chart: Chart, rng: random.Random) -> None:
        numbers = {"discharge": 1, "radiology": 1}
        for visit in chart.visits:
            for note in visit.notes:
                kind, written, detail = "radiology", note.written, ("exam_name", note.description)
                if note.category in ("DS", "AD"):
                    # Discharge summaries carry a date only: their time is midnight.
                    kind, detail = "discharge", ("author", "___")
                    written = written.replace(hour=0, minute=0)
                numbers[kind] += rng.randint(1, 3)
                note.note_id = f"{chart.subject_id}-{note.category}-{numbers[kind]}"
                hadm_id = visit.hadm_id if note.has_admission else None
                stored = note.written + dt.timedelta(hours=20)
                self._tables[f"note/{kind}"].append(
                    note.note_id, chart.subject_id, hadm_id, note.category, numbers[kind],
                    written, stored, note.text,
                )  # fmt: skip
                self._tables[f"note/{kind}_detail"].append(
                    note.note_id, chart.subject_id, *detail, 1
                )


def mimic4_subject_id(index: int) -> int:
    """The subject_id of patient number `index`."""
    return scattered_id(index, _BLOCK, _BLOCK)


def _icd_version(stay: Stay, group: int, rng: random.Random) -> Literal[9, 10]:
    """The version in use in the true year, which only the anchor group tells to three years."""
    years = stay.admitted.year - stay.presentation.patient.first_admission.year
    true_year = min(_LATEST_YEAR, group + rng.randint(0, 2) + years)
    return 10 if true_year >= _FIRST_ICD10_YEAR else 9


def _coded(found: tuple[str, ...], newer: Mapping[str, str], version: int) -> list[str | None]:
    return list(dict.fromkeys(newer[code] if version == 10 else code for code in found))
