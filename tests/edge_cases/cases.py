"""What an edge case is: what was done to a patient's chart, and what a reader must make of it."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from notetune.hospital.charts import Chart, Visit
from notetune.hospital.codes import VENTILATION_PROCEDURES
from notetune.hospital.outcome_model import MINUTES_PER_DAY, Outcome, OutcomeModel
from notetune.hospital.patients import Patient, Presentation, presentations
from notetune.hospital.stays import Stay, stay_with
from notetune.hospital.truth import TASKS
from notetune.hospital.ward_notes import Note


@dataclass(frozen=True)
class Verdict:
    """What one reader must do with an edge case.

    Attributes:
        kept: Whether the admission (or note) is kept in the tasks of the case.
        reason: Why it is dropped, or what is special about keeping it.
        present: Texts that the admission note must hold; white space counts as one space.
        absent: Texts that it must not hold.
        labels: `(task, label)` pairs that the admission must have.
    """

    kept: bool
    reason: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class EdgeCase:
    """One awkward thing that is known to be in the files.

    Attributes:
        chart: The patient.
        name: Unique name.
        what: What was done, in a sentence.
        visits: The admissions it is about.
        notes: The notes it is about; they have their ids when the hospital is written.
        correct: For a correct reader.
        core_2021: For the published 2021 scripts, where they differ.
        tasks: The tasks concerned.
    """

    chart: Chart
    name: str
    what: str
    visits: list[Visit]
    notes: list[Note]
    correct: Verdict
    core_2021: Verdict | None = None
    tasks: tuple[str, ...] = TASKS

    @property
    def hospital(self) -> str:
        return self.chart.hospital

    @property
    def subject_id(self) -> int:
        return self.chart.subject_id

    @property
    def hadm_ids(self) -> tuple[int, ...]:
        return tuple(visit.hadm_id for visit in self.visits)

    @property
    def note_ids(self) -> tuple[str, ...]:
        return tuple(note.note_id for note in self.notes)

    def verdict(self, version: str) -> Verdict:
        """For a correct reader, or for the 2021 scripts with "core-2021"."""
        return self.core_2021 or self.correct if version == "core-2021" else self.correct


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

    def stays(self, patient: Patient, model: OutcomeModel) -> Iterator[Stay]:
        """The patient's stays as this fate demands."""
        for presentation in presentations(patient, self.admissions):
            yield stay_with(presentation, self._outcome(presentation, model))

    def _outcome(self, presentation: Presentation, model: OutcomeModel) -> Outcome:
        is_last = presentation.number == self.admissions - 1
        outcome = dataclasses.replace(model.sample(presentation), died=self.dies and is_last)
        if not self.days:
            return outcome
        kept = tuple(code for code in outcome.procedures if code not in VENTILATION_PROCEDURES)
        return dataclasses.replace(
            outcome,
            minutes=round(self.days[presentation.number] * MINUTES_PER_DAY),
            ventilated_minutes=0,
            procedures=kept,
        )


Edge = tuple[Fate, Callable[[Chart], list[EdgeCase]]]
"""What the chart must be like, and the function that changes it."""
