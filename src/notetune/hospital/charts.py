"""A patient's records before they are written, which an `Edit` may still change."""

import datetime as dt
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from notetune.hospital.layout import summary_sections
from notetune.hospital.outcome_model import MINUTES_PER_DAY, OutcomeModel
from notetune.hospital.patients import Patient, Presentation
from notetune.hospital.prose import AUTHORS, Author, author
from notetune.hospital.stays import Stay, stays_of
from notetune.hospital.tables import CsvValue, Records
from notetune.hospital.truth import AdmissionTruth, Hospital, label_of
from notetune.hospital.ward_notes import Note

_ID_STEP = 48271  # a prime, so it has no factor in common with the size of a block


@dataclass
class Visit:
    """One admission with its rows.

    `diagnoses` and `procedures` hold codes of `icd_version`, None for a row without a code.
    `admission_type` stands in place of the one that MIMIC-III would draw.
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
    admission_type: str | None = None


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
class Edit:
    """How one patient is made otherwise than by chance; `change` edits the full chart."""

    stays: Callable[[Patient, OutcomeModel], Iterable[Stay]] = stays_of
    change: Callable[[Chart], None] = lambda _: None


Edits = Mapping[tuple[Hospital, int], Edit]
"""Part and number of the patient -> what is other than by chance."""


class Told(NamedTuple):
    """A stay, who writes about it, and the sections of its discharge summary."""

    stay: Stay
    author: Author
    sections: dict[str, str]


def told(edit: Edit, model: OutcomeModel, seed: int, patient: Patient) -> Iterator[Told]:
    """Yield a patient's stays with their summaries, each written in the light of the one before."""
    earlier = None
    for stay in edit.stays(patient, model):
        who = author(seed, stay.presentation.rng("author").randrange(AUTHORS))
        yield Told(stay, who, summary_sections(stay, who, earlier))
        earlier = stay.presentation


def admission_truth(chart: Chart, visit: Visit) -> AdmissionTruth:
    """The truth of one visit, from its rows as they are now."""
    outcome, version = visit.stay.outcome, visit.icd_version
    found = {"DIAG": visit.diagnoses, "PROC": visit.procedures}

    def labels(task: str, rules: Literal[9, 10, 2021]) -> tuple[str, ...]:
        codes = (code.strip() for code in found[task] if code)
        return tuple(dict.fromkeys(label_of(task, code, rules) for code in codes))

    is_older = chart.hospital == "mimic3"
    return AdmissionTruth(
        hospital=chart.hospital,
        subject_id=chart.subject_id,
        hadm_id=visit.hadm_id,
        icd_version=version,
        in_icu=visit.in_icu,
        died=outcome.died,
        los_days=outcome.minutes / MINUTES_PER_DAY,
        ventilated_days=visit.stay.ventilated_days,
        diagnoses=labels("DIAG", version),
        procedures=labels("PROC", version),
        diagnoses_2021=labels("DIAG", 2021) if is_older else (),
        procedures_2021=labels("PROC", 2021) if is_older else (),
        death_probability=round(outcome.probabilities.death, 6),
    )


def person(patient: Patient, records: Records, rng: random.Random) -> tuple[CsvValue, ...]:
    """The insurance, and what else the administration asks of a person."""
    insurance = "Medicare" if patient.age > 64 else rng.choice(("Private", "Medicaid"))
    return insurance, *(rng.choice(answers) for answers in records.person)


def arrival(
    presentation: Presentation, records: Records, rng: random.Random
) -> tuple[str, dt.datetime | None, dt.datetime | None]:
    """The type of admission; when the patient came to and left the emergency room, if so."""
    is_elective, admitted = presentation.reason.elective, presentation.admitted
    came_by_ed = not is_elective and rng.random() < 0.7
    kind = records.elective if is_elective else rng.choice(records.urgent)
    arrived = admitted - dt.timedelta(minutes=rng.randint(90, 500))
    left = admitted + dt.timedelta(minutes=rng.randint(5, 90))
    return (kind, arrived, left) if came_by_ed else (kind, None, None)


def scattered_id(sequence: int, first: int, size: int) -> int:
    """A unique id of `first..first+size-1` per sequence number, out of order.

    Beyond `size` ids, further blocks follow ten million apart.
    """
    block, position = divmod(sequence, size)
    return first + (position * _ID_STEP) % size + block * 10_000_000
