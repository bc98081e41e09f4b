"""The chapters of ICD diagnoses, by the categories from which and to which each goes."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from notetune.notes.icd import CATEGORY, has_form

CHAPTERS: Final[Mapping[str, Mapping[str, str]]] = {
    "9": {
        "001-139": "Infectious and parasitic diseases",
        "140-239": "Neoplasms",
        "240-279": "Endocrine, nutritional and metabolic diseases, and immunity disorders",
        "280-289": "Diseases of the blood and blood-forming organs",
        "290-319": "Mental disorders",
        "320-389": "Diseases of the nervous system and sense organs",
        "390-459": "Diseases of the circulatory system",
        "460-519": "Diseases of the respiratory system",
        "520-579": "Diseases of the digestive system",
        "580-629": "Diseases of the genitourinary system",
        "630-679": "Complications of pregnancy, childbirth, and the puerperium",
        "680-709": "Diseases of the skin and subcutaneous tissue",
        "710-739": "Diseases of the musculoskeletal system and connective tissue",
        "740-759": "Congenital anomalies",
        "760-779": "Certain conditions originating in the perinatal period",
        "780-799": "Symptoms, signs, and ill-defined conditions",
        "800-999": "Injury and poisoning",
        "V01-V91": "Factors influencing health status and contact with health services",
        "E000-E999": "External causes of injury and poisoning",
    },
    "10": {
        "A00-B99": "Certain infectious and parasitic diseases",
        "C00-D49": "Neoplasms",
        "D50-D89": "Diseases of the blood and blood-forming organs and of the immune mechanism",
        "E00-E89": "Endocrine, nutritional and metabolic diseases",
        "F01-F99": "Mental, behavioral and neurodevelopmental disorders",
        "G00-G99": "Diseases of the nervous system",
        "H00-H59": "Diseases of the eye and adnexa",
        "H60-H95": "Diseases of the ear and mastoid process",
        "I00-I99": "Diseases of the circulatory system",
        "J00-J99": "Diseases of the respiratory system",
        "K00-K95": "Diseases of the digestive system",
        "L00-L99": "Diseases of the skin and subcutaneous tissue",
        "M00-M99": "Diseases of the musculoskeletal system and connective tissue",
        "N00-N99": "Diseases of the genitourinary system",
        "O00-O9A": "Pregnancy, childbirth and the puerperium",
        "P00-P96": "Certain conditions originating in the perinatal period",
        "Q00-Q99": "Congenital malformations, deformations and chromosomal abnormalities",
        "R00-R99": "Symptoms, signs and abnormal clinical and laboratory findings",
        "S00-T88": "Injury, poisoning and certain other consequences of external causes",
        "U00-U85": "Codes for special purposes",
        "V00-Y99": "External causes of morbidity",
        "Z00-Z99": "Factors influencing health status and contact with health services",
    },
}
"""By version: the first and the last category of each chapter, and its title.

Source: tabular lists of ICD-9-CM volume 1 and of ICD-10-CM; long titles are shortened.
"""

_OF_OTHER_EDITIONS: Final[Mapping[str, str]] = {
    "D90": "D50-D89",
    "E90": "E00-E89",
    "F00": "F01-F99",
    **dict.fromkeys((f"T{number}" for number in range(89, 99)), "S00-T88"),
    **dict.fromkeys(("U88", "U89", "U99"), "U00-U85"),
}
"""The chapters of categories of ICD-10 of the WHO and of ICD-10-GM that ICD-10-CM does not have."""


@lru_cache(maxsize=100_000)
def icd_chapter(code: str, version: str) -> str | None:
    """The chapter of a diagnosis, named by its range; None if this is no code of a chapter.

    The code may have its dot and any letter case; its version is "9" or "10".

    Example:
        >>> icd_chapter("250.00", "9"), icd_chapter("v3000", "9"), icd_chapter("V30.0", "10")
        ('240-279', 'V01-V91', 'V00-Y99')
    """
    code = code.strip().upper()
    if not has_form(code, "diagnoses", version):
        return None
    category = CATEGORY["diagnoses", version](code)
    # Letters follow digits in ASCII as in the classification: C4A stands between C49 and C50.
    ranges = ((name, *name.split("-")) for name in CHAPTERS[version])
    within = (name for name, first, last in ranges if first <= category <= last)
    return next(within, _OF_OTHER_EDITIONS.get(category))
