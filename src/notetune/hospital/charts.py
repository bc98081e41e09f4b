"""A patient's records before they are written: what edge cases may still change."""

import dataclasses
import datetime as dt
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from notetune.hospital.codes import VENTILATION_PROCEDURES
from notetune.hospital.outcome_model import MINUTES_PER_DAY, Outcome, OutcomeModel
from notetune.hospital.patients import (
    Patient,
    Presentation,
    planned_admissions,
    presentations,
)
from notetune.hospital.prose import AUTHORS, Author, author
from notetune.hospital.stays import Stay, stay_with, stays_of
from notetune.hospital.truth import (
    AdmissionTruth,
    Core2021Truth,
    EdgeCase,
    Hospital,
    Verdict,
    diagnosis_label,
    diagnosis_label_2021,
    procedure_label,
    procedure_label_2021,
    tasks_of,
)


@dataclass
class Note:
    """One note; `note_id` is set when it is written."""

    category: str
    description: str
    written: dt.datetime
    text: str
    has_time: bool = True
    has_admission: bool = True
    note_id: str = ""


@dataclass
class Visit:
    """One admission with its rows.

    `diagnoses` and `procedures` hold codes of `icd_version`, None for a row without a code; what a
    correct reader leaves out is in `dropped`: "cohort" or a task -> reason. What only the published
    2021 scripts leave out is in `dropped_2021`.
    """

    stay: Stay
    author: Author
    hadm_id: int
    icustay_id: int
    notes: list[Note]
    diagnoses: list[str | None]
    procedures: list[str | None]
    icd_version: Literal[9, 10] = 9
    in_icu: bool = True
    is_newborn: bool = False
    dropped: dict[str, str] = field(default_factory=dict)
    dropped_2021: dict[str, str] = field(default_factory=dict)

    @property
    def ventilated_days(self) -> float:
        """From the first start to the last end."""
        episodes = self.stay.ventilation
        if not episodes:
            return 0.0
        return (episodes[-1][1] - episodes[0][0]).total_seconds() / 60 / MINUTES_PER_DAY


@dataclass
class Chart:
    """One patient with all visits.

    `split` is "train", "val", "test" or, in none of them, ""; `anchor_group` is the first of the
    three years around a MIMIC-IV patient's first admission.
    """

    hospital: Hospital
    subject_id: int
    patient: Patient
    visits: list[Visit]
    split: str = ""
    anchor_group: int = 0


@dataclass(frozen=True)
class Fate:
    """What an edge case needs of its patient.

    Attributes:
        admissions: How many there are.
        dies: Whether the last one ends in death; all others are survived.
        days: Their lengths in days, where they matter; nobody is ventilated then.
    """

    admissions: int = 1
    dies: bool = False
    days: tuple[float, ...] = ()


@dataclass
class Draft:
    """An edge case before its notes have ids."""

    name: str
    what: str
    visits: list[Visit]
    notes: list[Note]
    correct: Verdict
    core_2021: Verdict | None = None
    tasks: tuple[str, ...] = ("MOR", "LOS", "PMV", "DIAG", "PROC")


def drawn_stays(patient: Patient, model: OutcomeModel, fate: Fate | None) -> Iterator[Stay]:
    """The patient's stays, as drawn or, for an edge case, as its fate demands."""
    if fate is None:
        yield from stays_of(patient, model)
        return
    planned = planned_admissions(patient, fate.admissions)
    for number, presentation in enumerate(presentations(patient, planned)):
        if number == fate.admissions:
            return
        yield stay_with(presentation, _fated(presentation, model, fate))


def author_of(seed: int, stay: Stay) -> Author:
    """Who writes about a stay."""
    presentation = stay.presentation
    rng = random.Random(f"{presentation.patient.key}/{presentation.number}/author")
    return author(seed, rng.randrange(AUTHORS))


def admission_truth(chart: Chart, visit: Visit) -> AdmissionTruth:
    """The truth of one visit, from its rows as they are now."""
    stay, version = visit.stay, visit.icd_version
    diagnoses = _labels(visit.diagnoses, lambda code: diagnosis_label(code, version))
    procedures = _labels(visit.procedures, lambda code: procedure_label(code, version))
    return AdmissionTruth(
        hospital=chart.hospital,
        subject_id=chart.subject_id,
        hadm_id=visit.hadm_id,
        icd_version=version,
        in_icu=visit.in_icu,
        died=stay.outcome.died,
        los_days=stay.outcome.minutes / MINUTES_PER_DAY,
        ventilated_days=visit.ventilated_days,
        diagnoses=diagnoses,
        procedures=procedures,
        tasks=_tasks(visit, visit.dropped),
        death_probability=round(stay.outcome.probabilities.death, 6),
        dropped=dict(visit.dropped),
        core_2021=_core_2021(visit) if chart.hospital == "mimic3" else None,
    )


def _core_2021(visit: Visit) -> Core2021Truth:
    dropped = visit.dropped | visit.dropped_2021
    return Core2021Truth(
        diagnoses=_labels(visit.diagnoses, diagnosis_label_2021),
        procedures=_labels(visit.procedures, procedure_label_2021),
        tasks=_tasks(visit, dropped),
        dropped=dropped,
    )


def _tasks(visit: Visit, dropped: Mapping[str, str]) -> tuple[str, ...]:
    if "cohort" in dropped:
        return ()
    tasks = tasks_of(
        died=visit.stay.outcome.died,
        ventilated_days=visit.ventilated_days if visit.in_icu else 0.0,
        diagnoses=any(visit.diagnoses),
        procedures=any(visit.procedures),
    )
    return tuple(task for task in tasks if task not in dropped)


def edge_case(chart: Chart, draft: Draft) -> EdgeCase:
    """The edge case, now that its notes have ids."""
    return EdgeCase(
        name=draft.name,
        what=draft.what,
        hospital=chart.hospital,
        subject_id=chart.subject_id,
        hadm_ids=tuple(visit.hadm_id for visit in draft.visits),
        note_ids=tuple(note.note_id for note in draft.notes),
        tasks=draft.tasks,
        correct=draft.correct,
        core_2021=draft.core_2021,
    )


def edge_positions(seed: int, patients: int, edges: int, least: int) -> Mapping[int, int]:
    """Patient index -> edge case index: spread over the hospital, or none in a small one."""
    if patients < least:
        return {}
    chosen = random.Random(f"{seed}/edges").sample(range(patients), edges)
    return {position: index for index, position in enumerate(chosen)}


def scattered_id(sequence: int, first: int, size: int, step: int = 48271) -> int:
    """A unique id of `first..first+size-1` per sequence number, out of order.

    `step` must have no factor in common with `size`. Beyond `size` ids, further blocks follow
    ten million apart.
    """
    block, position = divmod(sequence, size)
    return first + (position * step) % size + block * 10_000_000


def _fated(presentation: Presentation, model: OutcomeModel, fate: Fate) -> Outcome:
    outcome = model.sample(presentation)
    is_last = presentation.number == fate.admissions - 1
    outcome = dataclasses.replace(outcome, died=fate.dies and is_last)
    if not fate.days:
        return outcome
    kept = tuple(code for code in outcome.procedures if code not in VENTILATION_PROCEDURES)
    return dataclasses.replace(
        outcome,
        minutes=round(fate.days[presentation.number] * MINUTES_PER_DAY),
        ventilated_minutes=0,
        procedures=kept,
    )


def _labels(codes: list[str | None], label: Callable[[str], str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label(code.strip()) for code in codes if code))
