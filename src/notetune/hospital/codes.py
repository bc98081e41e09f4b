"""The ICD codes of the synthetic hospital: ICD-9-CM, its ICD-10 counterpart and a short title.

ICD-9-CM codes have no dot and keep their leading zeros, as MIMIC stores them. The counterpart
is one plausible ICD-10-CM or ICD-10-PCS code, not an official crosswalk.
"""

from typing import NamedTuple

from notetune.hospital.texts import read_yaml


class Code(NamedTuple):
    """One row of the code dictionaries."""

    icd9: str
    icd10: str
    title: str


_CODES = read_yaml("codes.yaml")
DIAGNOSES = tuple(Code(*row) for row in _CODES["diagnosis"])
PROCEDURES = tuple(Code(*row) for row in _CODES["procedure"])

# Codes that any admission may get; nothing in its admission text tells.
INCIDENTAL_DIAGNOSES: tuple[tuple[str, float], ...] = _CODES["incidental_diagnosis"]
INCIDENTAL_PROCEDURES: tuple[tuple[str, float], ...] = _CODES["incidental_procedure"]

VENTILATION_PROCEDURES = ("9604", "9671", "9672")
"""Intubation, ventilation under 96 hours, ventilation of 96 hours or more: set by the outcome."""

DIAGNOSIS_TITLES = {code.icd9: code.title for code in DIAGNOSES}
PROCEDURE_TITLES = {code.icd9: code.title for code in PROCEDURES}
DIAGNOSIS_ICD10 = {code.icd9: code.icd10 for code in DIAGNOSES}
PROCEDURE_ICD10 = {code.icd9: code.icd10 for code in PROCEDURES}
