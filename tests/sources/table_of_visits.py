"""Four notes of visits in a table, whose outcomes other tables hold."""

from dataclasses import replace

from notetune import config
from notetune.sources import read
from notetune.sources.tables.source import TableSource

CANARY = "zygomorphic"
IDS = {"text": "text", "note_id": "id", "patient_id": "patient"}
NOTES = "id,patient,visit,when,text\n" + "".join(
    f"n{i},p{i // 2},v{i},2150-01-0{i + 1} 08:00:00,{CANARY} {i}\n" for i in range(4)
)


def source_of(path, **changes):
    return config.parse(
        TableSource, {"kind": "table", "path": path, "columns": IDS} | changes, "recipe"
    )


def cohort_of(folder, **changes):
    (folder / "notes.csv").write_text(NOTES)
    return read(source_of(folder / "notes.csv", **changes))


def counts_of(cohort):
    """The flow without its notices."""
    return tuple(replace(stage, notice="") for stage in cohort.flow)


def notices_of(cohort):
    return [stage.notice for stage in cohort.flow if stage.notice]


def labels_of(cohort):
    ((_, table),) = cohort.tasks
    return dict(table.select("note_id", "labels").iter_rows())
