"""Write a whole synthetic hospital, with its truth beside it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from notetune import runs
from notetune.config import Config
from notetune.hospital.charts import (
    Chart,
    admission_truth,
    edge_case,
    edge_positions,
)
from notetune.hospital.edge_mimic4 import MIMIC4_EDGES
from notetune.hospital.edge_notes import NOTE_EDGES
from notetune.hospital.edge_tables import TABLE_EDGES
from notetune.hospital.mimic3 import Mimic3Writer, mimic3_key, mimic3_subject_id
from notetune.hospital.mimic4 import Mimic4Writer, mimic4_key
from notetune.hospital.oracle import Scored, oracle_scores
from notetune.hospital.outcome_model import OutcomeModel
from notetune.hospital.truth import AdmissionTruth, EdgeCase, HospitalTruth, write_truth

LEAST_PATIENTS_FOR_EDGES = 50
MIMIC3_EDGES = (*NOTE_EDGES, *TABLE_EDGES)
_PROGRESS_EVERY = 2000

_log = logging.getLogger(__name__)


class SyntheticConfig(Config):
    """How large the hospital is and how much its notes tell."""

    patients: PositiveInt = 400
    """Patients in the MIMIC-III part."""
    mimic4_patients: NonNegativeInt | None = None
    """Patients in the MIMIC-IV part; as many as in the MIMIC-III part if not given."""
    seed: NonNegativeInt = 0
    """The same seed gives the same bytes."""
    signal: Annotated[float, Field(ge=0, le=3)] = 1.0
    """How strongly outcomes depend on the conditions; 0: labels are independent of the text."""
    edge_cases: bool = True
    """Whether awkward records are among the patients (in a part of at least 50)."""
    overlap_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of MIMIC-IV patients who are MIMIC-III patients under other ids and dates."""


@dataclass
class _Collected:
    """What is remembered of the charts that were written."""

    scored: list[Scored] = field(default_factory=list)
    edge_cases: list[EdgeCase] = field(default_factory=list)
    splits: dict[str, list[int]] = field(
        default_factory=lambda: {"train": [], "val": [], "test": []}
    )


def write_hospital(folder: Path, config: SyntheticConfig) -> HospitalTruth:
    """Write the tables and notes of a synthetic hospital, and what is true of them.

    `folder` gets `mimic3/*.csv`, `mimic4/{note,hosp,icu}/*.csv.gz`, `truth/truth.json`,
    `truth/oracle.json` and `truth/splits/mimic_{train,val,test}.csv`. It appears in one step
    when all is written. Charts are streamed: only their truth stays in memory.

    Raises:
        RunError: If `folder` is something else than an earlier synthetic hospital.
    """
    settings = config.model_dump(mode="json")
    model = OutcomeModel(config.signal)
    with runs.new_folder(folder, settings) as building:
        older = _write_mimic3(building / "mimic3", config, model)
        newer, overlap = _write_mimic4(building / "mimic4", config, model)
        truth = HospitalTruth(
            admissions=tuple(row for row, _ in (*older.scored, *newer.scored)),
            edge_cases=(*older.edge_cases, *newer.edge_cases),
            splits={name: tuple(rows) for name, rows in older.splits.items()},
            overlap=overlap,
            oracle={"mimic3": oracle_scores(older.scored), "mimic4": oracle_scores(newer.scored)},
        )
        write_truth(building / "truth", truth, settings)
    return truth


def _write_mimic3(folder: Path, config: SyntheticConfig, model: OutcomeModel) -> _Collected:
    found = _Collected()
    edges = _edge_positions(config, config.patients, len(MIMIC3_EDGES))
    with Mimic3Writer(folder, config.seed, model) as writer:
        for index in _counted(config.patients, "mimic3"):
            fate, edit = MIMIC3_EDGES[edges[index]] if index in edges else (None, None)
            chart = writer.chart(index, fate)
            drafts = edit(chart) if edit else []
            writer.write(chart)
            found.edge_cases += [edge_case(chart, draft) for draft in drafts]
            rows = _collect(found, chart)
            if chart.split:
                kept = [row.subject_id for row in rows if "cohort" not in row.dropped]
                found.splits[chart.split] += kept
    return found


def _write_mimic4(
    folder: Path, config: SyntheticConfig, model: OutcomeModel
) -> tuple[_Collected, tuple[tuple[int, int], ...]]:
    found = _Collected()
    patients = config.patients if config.mimic4_patients is None else config.mimic4_patients
    edges = _edge_positions(config, patients, len(MIMIC4_EDGES))
    shared = _shared_patients(config, patients)
    overlap = []
    with Mimic4Writer(folder, config.seed, model) as writer:
        for index in _counted(patients, "mimic4"):
            fate, edit = MIMIC4_EDGES[edges[index]] if index in edges else (None, None)
            key = mimic4_key(config.seed, index)
            if index in shared:
                key = mimic3_key(config.seed, index)
            chart = writer.chart(index, key, fate)
            drafts = edit(chart) if edit else []
            writer.write(chart)
            found.edge_cases += [edge_case(chart, draft) for draft in drafts]
            _collect(found, chart)
            if index in shared:
                overlap.append((mimic3_subject_id(index), chart.subject_id))
    return found, tuple(overlap)


def _collect(found: _Collected, chart: Chart) -> list[AdmissionTruth]:
    rows = [admission_truth(chart, visit) for visit in chart.visits]
    true = [visit.stay.outcome.probabilities for visit in chart.visits]
    found.scored += zip(rows, true, strict=True)
    return rows


def _edge_positions(config: SyntheticConfig, patients: int, edges: int) -> dict[int, int]:
    least = LEAST_PATIENTS_FOR_EDGES if config.edge_cases else patients + 1
    return dict(edge_positions(config.seed, patients, edges, least))


def _shared_patients(config: SyntheticConfig, patients: int) -> set[int]:
    """Indices of ordinary patients who are in both parts."""
    special = {
        *_edge_positions(config, config.patients, len(MIMIC3_EDGES)),
        *_edge_positions(config, patients, len(MIMIC4_EDGES)),
    }
    ordinary = [i for i in range(min(patients, config.patients)) if i not in special]
    return set(ordinary[: round(config.overlap_fraction * patients)])


def _counted(patients: int, part: str) -> Iterator[int]:
    for index in range(patients):
        if index and index % _PROGRESS_EVERY == 0:
            _log.info("synthetic hospital: %d of %d patients of %s", index, patients, part)
        yield index
