"""Refuse to commit data: notes, tables and arrays belong outside the repository.

Takes file names, as pre-commit passes them, and fails if one is a data file outside the folders
for invented examples and benchmark results, or a text file whose first line is the header of a
clinical table (MIMIC-III, MIMIC-IV, eICU). It never shows what a file holds.
"""

import gzip
import re
import sys
from pathlib import Path, PurePosixPath

DATA_NAME = re.compile(r"\.(csv|tsv|parquet|npy|npz|feather|arrow)(\.|$)", re.IGNORECASE)
EXAMPLES = "tests/examples"
RESULTS = "bench/results"
CLINICAL_COLUMNS = {
    *("subject_id", "hadm_id", "row_id", "icustay_id", "stay_id", "note_id", "note_type"),
    *("chartdate", "charttime", "admittime", "gender", "dob", "anchor_age", "iserror"),
    *("patientunitstayid", "patienthealthsystemstayid", "uniquepid"),
}
FIRST_LINE_BYTES = 4096


def first_line(path: Path) -> str:
    """The first line of a file, unpacked if it is gzip; empty if it cannot be read."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            line = file.readline(FIRST_LINE_BYTES)
    except (OSError, EOFError):
        return ""
    return line.decode("utf-8-sig", errors="replace").strip()


def has_clinical_header(line: str) -> bool:
    """Whether a line is a list of column names, or a JSON object, with clinical identifiers."""
    if line.startswith("{"):
        names = re.findall(r'"(\w+)"\s*:', line)
    else:
        names = [cell.strip().strip("\"'") for cell in re.split(r"[,;|\t]", line)]
        if not all(re.fullmatch(r"\w+", name) for name in names):
            return False
    known = CLINICAL_COLUMNS & {name.lower() for name in names}
    return len(known) >= 2


def reason_to_refuse(path: str) -> str | None:
    """Why the file may not be committed, or None. `path` is relative to the repository."""
    place = PurePosixPath(path)
    if place.is_relative_to(EXAMPLES):
        return None
    if DATA_NAME.search(place.name) and not place.is_relative_to(RESULTS):
        return f"a data file; invented examples go to {EXAMPLES}, results to {RESULTS}"
    if has_clinical_header(first_line(Path(path))):
        return f"it starts with the header of a clinical table; invented ones go to {EXAMPLES}"
    return None


def main(paths: list[str]) -> int:
    """Print each file that may not be committed, with the reason; 1 if there is one, else 0."""
    refused = {path: reason for path in paths if (reason := reason_to_refuse(path))}
    for path, reason in refused.items():
        print(f"{path}: {reason}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
