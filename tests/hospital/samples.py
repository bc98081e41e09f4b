"""Every condition that is written of, its templates, and stays of sampled patients."""

from notetune.hospital.conditions import ACUTE, LASTING
from notetune.hospital.outcome_model import OutcomeModel
from notetune.hospital.patients import sample_patient
from notetune.hospital.stays import stays_of

EVERY_CONDITION = (*ACUTE.values(), *LASTING.values())


def templates(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from templates(item)


def stays(patients, key="0/prose"):
    model = OutcomeModel(1.0)
    for index in range(patients):
        earlier = None
        for stay in stays_of(sample_patient(f"{key}/{index}"), model):
            yield stay, earlier
            earlier = stay.presentation
