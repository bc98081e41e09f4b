"""Disks that are full, read-only or forbidden, and outputs that nobody reads."""

from malformed.cases import Case, nothing

PREPARE = "prepare recipe.yaml --json"
_TOO_LARGE = "cannot be written (File too large"

DISK = [
    Case("prepared notes over a limit", nothing, "runs/small/", most_file_bytes=3000),
    Case("prepared notes over a smaller one", nothing, "runs/small/", most_file_bytes=1000),
    Case("scores over a limit", nothing, f"scores.csv {_TOO_LARGE}", "predict words notes.csv -o scores.csv", most_file_bytes=500),
    Case("scores in Parquet over a limit", nothing, f"scores.parquet {_TOO_LARGE}", "predict words notes.csv -o scores.parquet", most_file_bytes=500),
    Case("a recipe over a limit", nothing, f"new.yaml {_TOO_LARGE}", "init notes.csv -o new.yaml", most_file_bytes=300),
    Case("a run folder below /proc", nothing, "/proc/notetune", f"{PREPARE} runs=/proc/notetune"),
    Case("a run folder below a device", nothing, "/dev/null is not a folder", f"{PREPARE} runs=/dev/null/runs"),
    Case("a recipe below /proc", nothing, "/proc/new.yaml", "init notes.csv -o /proc/new.yaml"),
    Case("scores below /proc", nothing, "/proc/scores.csv", "predict words notes.csv -o /proc/scores.csv"),
]  # fmt: skip
