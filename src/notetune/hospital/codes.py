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

EXTRA_DIAGNOSES = (
    Code("9110", "S20419A", "Abrasion of trunk"),
    Code("5283", "K122", "Cellulitis of the mouth"),
)
"""Codes that only edge cases use, once each."""

INCIDENTAL_DIAGNOSES = (
    ("2724", 0.3),
    ("53081", 0.2),
    ("2859", 0.18),
    ("2449", 0.12),
    ("V1582", 0.14),
    ("27801", 0.07),
    ("32723", 0.07),
    ("2749", 0.06),
    ("71590", 0.06),
    ("60000", 0.05),
    ("2639", 0.05),
    ("70703", 0.05),
    ("00845", 0.04),
    ("2760", 0.05),
    ("V1046", 0.03),
    ("V4501", 0.04),
    ("4168", 0.04),
    ("V8801", 0.02),
    ("E9342", 0.02),
)
"""Codes that any admission may get; nothing in its admission text tells."""

INCIDENTAL_PROCEDURES = (("9905", 0.04), ("3893", 0.08), ("9904", 0.06))
"""Procedures that any admission may have."""

NEWBORN_DIAGNOSES = ("V3000", "V290", "76518", "7742", "V053")
"""Codes that only newborns get: labels with no positive in a cohort of adults."""

NEWBORN_PROCEDURES = ("640", "9955")

VENTILATION_PROCEDURES = ("9604", "9671", "9672")
"""Intubation, ventilation under 96 hours, ventilation of 96 hours or more: set by the outcome."""

DIAGNOSIS_TITLES = {code.icd9: code.title for code in DIAGNOSES}
PROCEDURE_TITLES = {code.icd9: code.title for code in PROCEDURES}
DIAGNOSIS_ICD10 = {code.icd9: code.icd10 for code in DIAGNOSES}
PROCEDURE_ICD10 = {code.icd9: code.icd10 for code in PROCEDURES}
