"""A synthetic hospital with awkward records, and what is true of it."""

import functools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_cases.cases import Edge, EdgeCase, Fate, Verdict
from edge_cases.mimic3_notes import NOTE_EDGES
from edge_cases.mimic3_rows import ROW_EDGES
from edge_cases.mimic4 import MIMIC4_EDGES
from notetune.hospital.charts import Chart, Edit
from notetune.hospital.hospital import SyntheticConfig, write_hospital
from notetune.hospital.truth import TASKS, AdmissionTruth, HospitalTruth

__all__ = ["EdgeCase", "EdgyTruth", "Fate", "Verdict", "write_with_edges"]

EDGES: Mapping[str, tuple[Edge, ...]] = {
    "mimic3": (*NOTE_EDGES, *ROW_EDGES),
    "mimic4": MIMIC4_EDGES,
}


@dataclass(frozen=True)
class EdgyTruth:
    """The truth of the tables, and what is left out of it because of the notes.

    `version` is "correct", or "core-2021" for what the published 2021 scripts do.
    """

    truth: HospitalTruth
    edge_cases: tuple[EdgeCase, ...]

    @property
    def admissions(self) -> tuple[AdmissionTruth, ...]:
        return self.truth.admissions

    def dropped(self, row: AdmissionTruth, version: str = "correct") -> set[str]:
        """The tasks that have no place for the admission, whatever its tables say."""
        return {
            task
            for case in self.edge_cases
            if row.hadm_id in case.hadm_ids and not case.verdict(version).kept
            for task in case.tasks
        }

    def in_cohort(self, row: AdmissionTruth, version: str = "correct") -> bool:
        return self.dropped(row, version) != set(TASKS)

    def labels(self, row: AdmissionTruth, version: str = "correct") -> dict[str, Any]:
        """Task -> label of the tasks that are left."""
        labels = row.labels if version == "correct" else row.labels_2021
        dropped = self.dropped(row, version)
        return {task: label for task, label in labels.items() if task not in dropped}


def write_with_edges(folder: Path, config: SyntheticConfig) -> EdgyTruth:
    """Write a hospital with every edge case of its parts, spread over its patients.

    A part with fewer patients than edge cases has none.
    """
    found: list[EdgeCase] = []
    newer = config.patients if config.mimic4_patients is None else config.mimic4_patients
    edits = {}
    for part, patients in (("mimic3", config.patients), ("mimic4", newer)):
        for index, (fate, edge) in _placed(config.seed, patients, EDGES[part]):
            edits[part, index] = Edit(fate.stays, functools.partial(_change, edge, found))
    return EdgyTruth(write_hospital(folder, config, edits), tuple(found))


def _placed(seed: int, patients: int, edges: tuple[Edge, ...]) -> Iterator[tuple[int, Edge]]:
    if patients >= len(edges):
        chosen = random.Random(f"{seed}/edges").sample(range(patients), len(edges))
        yield from zip(chosen, edges, strict=True)


def _change(edge, found: list[EdgeCase], chart: Chart) -> None:
    found += edge(chart)
