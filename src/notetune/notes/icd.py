"""What ICD codes mean: the category that each belongs to, by version and by what it codes.

A code is text, since its leading zeros count. It may have its dot and any letter case.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

_FORM: Final = {
    "9": re.compile(r"(?:[0-9]{3}|V[0-9]{2})\.?[0-9]{0,2}|E[0-9]{3}\.?[0-9]?"),
    "10": re.compile(r"[A-Z][0-9][0-9A-Z]\.?[0-9A-Z]{0,4}"),
}


def is_diagnosis(code: str, version: str) -> bool:
    """Whether a text has the form of a diagnosis of version "9" or "10"; V and E codes have both.

    Example:
        >>> [is_diagnosis(code, "10") for code in ("v30.00", "E11.9", "401.9")]
        [True, True, False]
    """
    return _FORM[version].fullmatch(code.strip().upper()) is not None


def icd9_category(code: str) -> str:
    """The category of an ICD-9-CM diagnosis: four characters of an external cause (E), else three.

    Source:
        Structure of ICD-9-CM volume 1: categories are 001-999, V01-V91 and E000-E999. (The
        published label builder instead cuts V codes after four characters.)

    Example:
        >>> icd9_category("00845"), icd9_category("V3000"), icd9_category("E8497")
        ('008', 'V30', 'E849')
    """
    code = code.strip().upper()
    # A dot inside the cut is dropped only at its end: "31.1" must not become category 311.
    return code[: 4 if code.startswith("E") else 3].rstrip(".")


def icd9_procedure_category(code: str) -> str:
    """The first three digits of an ICD-9-CM procedure.

    The category proper is two digits (00-99); the third is the subcategory, at which the published
    tasks predict.

    Source:
        Structure of ICD-9-CM volume 3; three characters as in van Aken et al. 2021.

    Example:
        >>> icd9_procedure_category("0066"), icd9_procedure_category("36.05")
        ('006', '360')
    """
    return code.strip().replace(".", "")[:3]


CATEGORY: Final[Mapping[tuple[str, str], Callable[[str], str]]] = {
    ("diagnoses", "9"): icd9_category,
    ("procedures", "9"): icd9_procedure_category,
    ("diagnoses", "10"): lambda code: code.strip().upper()[:3],
    ("procedures", "10"): lambda code: code.strip().upper()[:4],
}
"""The rule for what is coded and the version of the classification.

Source: structure of ICD-10-CM, where a category is one letter, one digit and one letter or digit;
data specification, section 5.1, for ICD-10-PCS: section, system, operation and body part.
"""

FORM: Final[Mapping[tuple[str, str], re.Pattern[str]]] = {
    ("diagnoses", "9"): re.compile(r"(\d{3}|V\d{2})(\.?\d{1,2})?|E\d{3}(\.?\d)?"),
    ("procedures", "9"): re.compile(r"\d{2}(\.?\d{1,2})?"),
    ("diagnoses", "10"): re.compile(r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?"),
    ("procedures", "10"): re.compile(r"[0-9A-HJ-NP-Z]{4,7}"),
}
"""What a whole code looks like, in upper case; a code of another kind may look so too."""
