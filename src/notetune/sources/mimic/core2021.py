r"""The label rules of the published 2021 scripts (CORe), with everything that they do by accident.

What the `correct` version does otherwise, and what it costs to follow the scripts:

- a section starts at the first hit of its literal heading and ends at a blank line before something
  like a heading: an empty section takes the next one, a missing blank line takes the hospital
  course, a note with carriage returns has no section at all;
- death wording is cut once per block of the exam and of the medications, and the admission is left
  out of the mortality task for it elsewhere, so that this task has texts of its own;
- a column of codes that are all digits is read as numbers: leading zeros vanish, and with a single
  empty cell the numbers get a decimal point;
- line breaks and the space beside them are as the notes had them.

Sources:
    Data specification, sections 2.2 to 2.4 (bvanaken/clinical-outcome-prediction at b376f4b, run on
    pandas 1.1.5). The order of summaries of one day is not defined there; here it is that of
    ROW_ID. pandas reads long tables in pieces and guesses each piece's type; here a table is one
    piece, which is the same for MIMIC-III, where every piece holds a V or an E code.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from notetune.notes.clean import with_plain_characters
from notetune.sources.columns import rows_with_id
from notetune.sources.mimic.sections import SECTION_LABELS, has_core_sections
from notetune.sources.mimic.summaries import AdmissionText

# A line feed is spelled out before the search, so that one pattern spans lines.
_BREAK: Final = "\\n"
_SECTION_END: Final = re.compile(r"\\n\\n[^()\\|.\d]+?:")
_LITERALS: Final = {"MEDICATION ON ADMISSION": "medications on admission:"}
_HEADINGS: Final = {
    label: re.compile(_LITERALS.get(label, f"{label.lower()}:"), re.IGNORECASE)
    for label in SECTION_LABELS
}

_DEATH: Final = r"(?:ha[ds]\s)?(?:expired|died|passed away|deceased)"
_DEATH_IN_BLOCK: Final = re.compile(
    rf"((?:physical exam|medication on admission):[^\n]*?)(?:patient|pt)?\s+{_DEATH}", re.IGNORECASE
)
_STATES_DEATH: Final = re.compile(
    rf"(?:patient|pt)\s+{_DEATH}|he expired|pronounced expired|time of death", re.IGNORECASE
)

_PANDAS_NULLS: Final = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null")
)  # fmt: skip
"""Cells that pandas 1.1.5 reads as missing."""
_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]+\s*")
_MOST_DIGITS: Final = 18
_NUMBER: Final = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")


def summary_text(category: str, _is_error: str, text: str) -> str | None:
    """The text if the row is a discharge summary; rows marked as errors count too."""
    return None if category != "Discharge summary" or text in _PANDAS_NULLS else text


def is_report(description: str) -> bool:
    """Whether the row is the report itself, not an addendum."""
    return description == "Report"


def admission_text(joined: str) -> AdmissionText | None:
    """The admission note of the joined summaries; None without complaint, illness and history."""
    flat = with_plain_characters(joined).strip().replace("\n", _BREAK)
    sections = {label: _section(flat, heading) for label, heading in _HEADINGS.items()}
    if not has_core_sections(sections):
        return None
    text = "\n\n".join(f"{label}: {body}" for label, body in sections.items())
    cleaned = _DEATH_IN_BLOCK.sub(r"\1", text)
    return AdmissionText(text, None if _STATES_DEATH.search(cleaned) else cleaned)


def _section(flat: str, heading: re.Pattern[str]) -> str:
    """From the first heading to the first end at least one character later; "" without either."""
    start = heading.search(flat)
    end = start and _SECTION_END.search(flat, start.end() + 1)
    if start is None or end is None:
        return ""
    return flat[start.end() : end.start()].replace(_BREAK, " ").strip()


def diagnosis_label(code: str) -> str:
    """Four characters of a V or E code, three of all others."""
    return code[: 4 if code.startswith(("V", "E")) else 3]


def as_pandas_reads(cells: Sequence[str]) -> list[str | None]:
    """A column of codes as text after pandas has guessed its type.

    Example:
        >>> as_pandas_reads(["0066", "3893"]), as_pandas_reads(["0066", ""])
        (['66', '3893'], ['66.0', None])
        >>> as_pandas_reads(["0066", "V3000"])
        ['0066', 'V3000']
    """
    read = [None if cell in _PANDAS_NULLS else cell for cell in cells]
    present = [cell for cell in read if cell]
    if not all(map(_NUMBER.fullmatch, present)):
        return read
    is_whole = len(present) == len(read) and all(map(_INTEGER.fullmatch, present))
    if is_whole and any(len(cell) > _MOST_DIGITS for cell in present):
        return read  # what 64 bits cannot hold stays text
    number = int if is_whole else float
    return [cell and str(number(cell)) for cell in read]


def read_codes(path: Path, kind: str) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The code labels of every admission in DIAGNOSES_ICD or PROCEDURES_ICD, and all of the table.

    Procedures have three characters as pandas reads them.

    Returns:
        Admission to its labels, each once, in the order of the table; and all labels in order of
        first appearance, newborns' included.

    Raises:
        DataError: If the table is faulty.
    """
    rows = [row.cells for row in rows_with_id(path, ["HADM_ID", "ICD9_CODE"])]
    codes = as_pandas_reads([cell for _, cell in rows])
    found: dict[str, dict[str, None]] = {}
    classes: dict[str, None] = {}
    for (hadm_id, _), code in zip(rows, codes, strict=True):
        if code is not None:
            label = diagnosis_label(code) if kind == "diagnoses" else code[:3]
            found.setdefault(hadm_id, {})[label] = classes[label] = None
    return {hadm_id: list(labels) for hadm_id, labels in found.items()}, tuple(classes)
