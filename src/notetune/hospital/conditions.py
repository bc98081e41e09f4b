"""The latent conditions: rows that drive the outcomes, the codes and the words.

Every text in a row is a template in the small grammar of `prose.fill`: `{a|b}` is one of the
alternatives, `{3-5}` or `{1.2-2.4}` a number of that range, `{he}` a word of the patient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from notetune.hospital.texts import read_yaml

Codes = tuple[tuple[str, float], ...]
"""ICD-9 codes with the probability that a coder writes them when the condition is present."""

Grade = Literal[0, 1, 2]
"""Mild, moderate or severe: the index of `Acute.grades`."""


@dataclass(frozen=True)
class Effects:
    """What a condition adds to the outcome model of an admission.

    `death` and `ventilation` are log-odds; `log_days` and `log_ventilated_days` are natural
    logarithms of days. The `per_grade` parts count -1, 0 and +1 for mild, moderate and severe.
    """

    death: float = 0.0
    death_per_grade: float = 0.0
    log_days: float = 0.0
    ventilation: float = 0.0
    ventilation_per_grade: float = 0.0
    log_ventilated_days: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What acute and chronic conditions have in common; `terms` are the names that authors use.

    Attributes:
        diagnoses: ICD-9 codes; the first is the reason for admission if it is acute.
        symptoms: What other patients deny ("chest pain").
        excluded: Sentences that rule the condition out in somebody else.
        exam: `(system, finding)` pairs; the systems of `phrases.yaml`.
    """

    name: str
    terms: tuple[str, ...]
    effects: Effects = Effects()
    diagnoses: Codes = ()
    procedures: Codes = ()
    symptoms: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    exam: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Acute(Condition):
    """A reason for admission, or a second problem found on arrival.

    Attributes:
        weight: Relative frequency as the reason for admission.
        complicates: Relative frequency as a second problem; 0 if it never is one.
        age: Mean and standard deviation of the patients' age in years.
        boosts: Names of chronic conditions that triple the weight; with those it `leaves` the
            patient lives from now on, and with those it `spares` it does not occur.
        elective: Whether the admission to its `service` was planned.
        onsets: Noun phrases that follow "presented with".
        story: Sentences of the present illness; `grades` are those for a mild, a moderate and a
            severe course, `treatment` those of the hospital course.
        imaging: `(study, finding, impression)` of radiology reports.
    """

    weight: float
    complicates: float = 0.0
    age: tuple[float, float] = (66.0, 15.0)
    boosts: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    service: str = "MEDICINE"
    elective: bool = False
    complaints: tuple[str, ...]
    onsets: tuple[str, ...]
    story: tuple[str, ...]
    grades: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    imaging: tuple[tuple[str, str, str], ...]
    treatment: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Chronic(Condition):
    """A condition that stays with the patient from one admission to the next.

    Attributes:
        share: Share of patients who have it at 65 years; its log-odds change by `per_decade`.
        medicines: Home medicines; each is taken with probability 0.7.
    """

    share: float
    per_decade: float = 0.0
    history: tuple[str, ...]
    medicines: tuple[str, ...] = ()
    follows: tuple[str, ...]


def _rows(file: str) -> Iterator[dict[str, Any]]:
    for name, row in read_yaml(file).items():
        yield {**row, "name": name, "effects": Effects(**row.get("effects", {}))}


ACUTE = {row["name"]: Acute(**row) for row in _rows("acute.yaml")}
LASTING = {row["name"]: Chronic(**row) for row in _rows("chronic.yaml")}
CONDITIONS: tuple[Condition, ...] = (*ACUTE.values(), *LASTING.values())
