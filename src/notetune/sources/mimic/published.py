"""The published counts of the five tasks, to see at a glance whether a cohort is theirs."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from notetune.audit import FlowCount
from notetune.notes.outcomes import SPLITS, Task

_COUNTS = "data specification, section 2.5 (paper, table 1)"
_HASHES = "data specification, section 2.7"
_NOTES = "data specification, section 1.1 (PhysioNet; mimic-code)"
_TABLES = "data specification, section 2.1"

_TABLE_DIFFERS: Final = "another version than MIMIC-III 1.4; NOTEEVENTS cut short"
_COHORT_DIFFERS: Final = (
    "another MIMIC-III version than 1.4; labels: correct (which recovers notes that the 2021 "
    "scripts lose); NOTEEVENTS cut short"
)
_SPLIT_DIFFERS: Final = "another split than the published files of patient ids"
_DEATH_DIFFERS: Final = f"{_SPLIT_DIFFERS}; labels: correct, whose death wording is on whole words"
_CODES_DIFFER: Final = (
    "labels: correct, which counts the cohort's labels, cuts V codes to 3 characters and keeps "
    "leading zeros; a code table saved again by a spreadsheet"
)
_ORDER_DIFFERS: Final = f"{_CODES_DIFFER}; a code table in another order of rows"
_LABELS_MISSING: Final = (
    "ventilation rebuilt from charts, a wider cohort than the published labels (which ask for two "
    "days and for nursing notes); splits by patient instead of the published ones by admission"
)
_RELEASE_DIFFERS: Final = (
    "another release than MIMIC-IV-Note 2.2 (2.1 has 357,289 and 2,471,881); a download cut short"
)

CLASS_COUNTS: Final = {
    "mortality": 1, "length_of_stay": 4, "ventilation": 1, "diagnoses": 1_266, "procedures": 711
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """One published figure."""

    what: str
    """Its key, as `task_counts` and callers name it."""
    values: tuple[int | str, ...]
    """The figure; several where published figures differ."""
    source: str
    explanation: str
    """What usually explains another figure."""


def _per_split(task: str, counts: tuple[int, int, int], explanation: str) -> tuple[Published, ...]:
    return tuple(
        Published(f"{task}: {split}", (count,), _COUNTS, explanation)
        for split, count in zip(SPLITS, counts, strict=True)
    )


def _of_labels(task: str, in_order: str, as_sorted: str) -> tuple[Published, ...]:
    key = f"{task}: sha256 of the"
    return (
        Published(f"{task}: labels", (CLASS_COUNTS[task],), _COUNTS, _CODES_DIFFER),
        Published(f"{key} labels in order", (in_order,), _HASHES, _ORDER_DIFFERS),
        Published(f"{key} sorted labels", (as_sorted,), _HASHES, _CODES_DIFFER),
    )


PUBLISHED: Final = (
    Published("rows of NOTEEVENTS", (2_083_180,), _TABLES, _TABLE_DIFFERS),
    Published("discharge summaries", (59_652,), _TABLES, _TABLE_DIFFERS),
    Published("admissions", (48_745,), _COUNTS, _COHORT_DIFFERS),
    Published("patients", (37_321,), _COUNTS, _COHORT_DIFFERS),
    *_per_split("mortality", (33_954, 4_908, 9_822), _DEATH_DIFFERS),
    *_per_split("length_of_stay", (30_421, 4_391, 8_797), _SPLIT_DIFFERS),
    *_per_split("diagnoses", (33_994, 4_918, 9_829), _SPLIT_DIFFERS),
    *_of_labels(
        "diagnoses",
        in_order="0df6a86367de7fa3e4f8dfd432dd617575e8ab0b2db9b0f1125438fb37e9d25d",
        as_sorted="b1694514c08254ac722b6db7ab15ce759246c899b1d92cdd38366662c8b33c3f",
    ),
    *_per_split("procedures", (30_030, 4_357, 8_681), _SPLIT_DIFFERS),
    *_of_labels(
        "procedures",
        in_order="93a106699f3891f63190693fcaee0755c8527d2fd839d215d621a827e5f54338",
        as_sorted="187b4d3f01d1503095ad062205f7d8f90184c3f17ff71e2f8bb341157446a1c0",
    ),
    *_per_split("ventilation", (5_666, 707, 706), _LABELS_MISSING),
    Published("discharge notes", (331_794, 331_793), _NOTES, _RELEASE_DIFFERS),
    Published("radiology notes", (2_321_355,), _NOTES, _RELEASE_DIFFERS),
)
"""All published figures, in the order in which they are shown."""

ASSUMED_TOKENS: Final = {"discharge": 512, "radiology": 235, "admission": 512}
"""Tokens of LLaMA per note of which the first 512 are read: all of MIMIC-IV-Note has 0.715 G.

By the source of a note; "admission" is for those of the tasks."""
ASSUMPTION: Final = (
    "published counts (MIMIC-IV-Note 2.2 for step 1, MIMIC-III 1.4 for the tasks), since notes or "
    "weights are not here; a radiology report is taken to have 235 tokens, any other note 512"
)
COUNTED_KINDS: Final = ("mimic4", "mimic3")
"""Sources of the corpus and of the tasks that counts are published for."""
_STAGES: Final = {
    "mimic3": {
        "notes": "rows of NOTEEVENTS",
        **{name: name for name in ("discharge summaries", "admissions")},
    },
    "mimic4": {name: name for name in ("discharge notes", "radiology notes")},
}
"""What is counted at which stage of a flow."""


def assumed_corpus() -> dict[str, int]:
    """How many notes of each source MIMIC-IV-Note 2.2 has."""
    return {source: _count(f"{source} notes") for source in ("discharge", "radiology")}


def assumed_tasks() -> dict[str, dict[str, int]]:
    """How many notes the five tasks on MIMIC-III 1.4 have in each split."""
    return {task: {split: _count(f"{task}: {split}") for split in SPLITS} for task in CLASS_COUNTS}


def _count(what: str) -> int:
    return next(int(published.values[0]) for published in PUBLISHED if published.what == what)


@dataclass(frozen=True)
class PublishedFigure:
    """Our figure beside the published one."""

    what: str
    ours: int | str
    published: str
    agrees: bool
    explanation: str
    """What usually explains a difference; "" where there is none."""


def flow_counts(
    kind: Literal["mimic3", "mimic4"], flow: Iterable[FlowCount]
) -> dict[str, int | str]:
    """The figures of a cohort flow under the keys of `PUBLISHED`."""
    return {
        what: stage.kept if what == "admissions" else stage.read
        for stage in flow
        if (what := _STAGES[kind].get(stage.stage))
    }


def task_counts(task: Task, table: pl.DataFrame) -> dict[str, int | str]:
    """The figures of a task with all its classes, and of its table with `split`.

    They are under the keys of `PUBLISHED`; a task that has none there has none.
    """
    if task.name not in CLASS_COUNTS:
        return {}
    counts: dict[str, int | str] = {
        f"{task.name}: {split}": table.filter(pl.col("split") == split).height for split in SPLITS
    }
    if task.kind == "multilabel":
        counts[f"{task.name}: labels"] = len(task.classes)
        counts[f"{task.name}: sha256 of the labels in order"] = label_hash(task.classes)
        counts[f"{task.name}: sha256 of the sorted labels"] = label_hash(sorted(task.classes))
    return counts


def label_hash(labels: tuple[str, ...] | list[str]) -> str:
    """sha256 of the labels, joined by spaces."""
    return hashlib.sha256(" ".join(labels).encode()).hexdigest()


def compare(counts: Mapping[str, int | str]) -> tuple[PublishedFigure, ...]:
    """Our figures beside the published ones, in their order; keys are those of `PUBLISHED`."""
    rows = []
    for published in PUBLISHED:
        if (ours := counts.get(published.what)) is None:
            continue
        agrees = ours in published.values
        shown = " or ".join(f"{n:,}" if isinstance(n, int) else n for n in published.values)
        explanation = "" if agrees else published.explanation
        rows.append(PublishedFigure(published.what, ours, shown, agrees, explanation))
    return tuple(rows)
