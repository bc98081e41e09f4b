"""What ICD codes mean: the category that each belongs to, by version and by what it codes.

A code is text, since its leading zeros count. It may have its dot and any letter case.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final


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
    ("diagnoses", "9"): re.compile(r"([0-9]{3}|V[0-9]{2})\.?[0-9]{0,2}|E[0-9]{3}\.?[0-9]?"),
    ("procedures", "9"): re.compile(r"[0-9]{2}\.?[0-9]{0,2}"),
    ("diagnoses", "10"): re.compile(r"[A-Z][0-9][A-Z0-9]\.?[A-Z0-9]{0,4}[-+*!†#]*"),
    ("procedures", "10"): re.compile(r"[0-9A-HJ-NP-Z]{4,7}"),
}
"""How a code looks in capitals, with or without its dot, by the keys of `CATEGORY`.

Many codes have two of these forms, so a table of one kind has the form of its own in every row, but
the reverse does not hold. ICD-10 diagnoses may bear the marks of ICD-10-GM (dagger, asterisk,
exclamation mark) or end in a dash; ICD-10 procedures may be cut to their first four characters.

Source: structure of ICD-9-CM, ICD-10-CM and ICD-10-PCS, which has neither I nor O.
"""


def has_form(code: str, of: str, version: str) -> bool:
    """Whether a text looks like a code of a version of ICD, 9 or 10; many look like several.

    Example:
        >>> [has_form(code, "diagnoses", "10") for code in ("v30.00", "E11.9", "401.9")]
        [True, True, False]
    """
    return FORM[of, version].fullmatch(code.strip().upper()) is not None
