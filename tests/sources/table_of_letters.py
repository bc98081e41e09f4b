"""Three letters in a table, with outcomes in its columns."""

from notetune import config
from notetune.sources import read
from notetune.sources.tables.source import TableSource

CANARY = "zygomorphic"
LENIENT = {"policy": "quarantine", "max_rejected_share": 0.5}
ALL = {"text": "text", "note_id": "id", "patient_id": "patient", "time": "time"}
SITES = {"name": "sites", "kind": "multilabel", "column": "sites", "separator": ";"}
DEATH = {"name": "death", "kind": "binary", "column": "died"}
GRADE = {"name": "grade", "kind": "multiclass", "column": "grade"}
HEADER = "id,patient,time,died,grade,sites,text\n"
ROWS = (
    f'007,1,2150-01-02 03:04:05,1,low,heart; lung,"{CANARY} one\r\nline two "\n'
    f"008,1,,0,high,lung,{CANARY} three\n"
    f"009,2,2150-01-03T00:00:00+01:00,0,low,heart,{CANARY} four\n"
)


def source_of(path, **changes):
    return config.parse(
        TableSource,
        {"kind": "table", "path": path, "columns": ALL, "tasks": [SITES, DEATH, GRADE]} | changes,
        "recipe",
    )


def cohort_of(folder, content=HEADER + ROWS, **changes):
    path = folder / "notes.csv"
    path.write_bytes(content.encode())
    return read(source_of(path, **changes))


def labels_of(cohort):
    return {task.name: dict(table.iter_rows()) for task, table in cohort.tasks}
