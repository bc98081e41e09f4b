"""Write a whole synthetic hospital, with its truth beside it."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from notetune import runs
from notetune.config import Config
from notetune.hospital.charts import Chart, Edit, Edits, admission_truth, told
from notetune.hospital.mimic3 import Mimic3, mimic3_subject_id
from notetune.hospital.mimic4 import Mimic4, mimic4_subject_id
from notetune.hospital.oracle import Scored, oracle_scores
from notetune.hospital.outcome_model import OutcomeModel
from notetune.hospital.tables import open_tables
from notetune.hospital.truth import Hospital, HospitalTruth, write_truth


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
    overlap_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of MIMIC-IV patients who are MIMIC-III patients under other ids and dates."""


def write_hospital(
    folder: Path, config: SyntheticConfig, edits: Edits = MappingProxyType({})
) -> HospitalTruth:
    """Write the tables and notes of a synthetic hospital, and what is true of them.

    `folder` gets `mimic3/*.csv`, `mimic4/{note,hosp,icu}/*.csv.gz`, `truth/truth.json`,
    `truth/oracle.json` and `truth/splits/mimic_{train,val,test}.csv`. It appears in one step
    when all is written. Charts are streamed: only their truth stays in memory.

    Raises:
        RunError: If `folder` is something else than an earlier synthetic hospital.
    """
    settings = config.model_dump(mode="json")
    newer = config.patients if config.mimic4_patients is None else config.mimic4_patients
    sizes: dict[Hospital, int] = {"mimic3": config.patients, "mimic4": newer}
    shared = range(min(sizes.values()))[: round(config.overlap_fraction * newer)]
    scored: dict[Hospital, list[Scored]] = {"mimic3": [], "mimic4": []}
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    with runs.new_folder(folder, settings) as building:
        for hospital, found in scored.items():
            keys = [
                f"{config.seed}/{'mimic3' if index in shared else hospital}/{index}"
                for index in range(sizes[hospital])
            ]
            for chart in _written(building / hospital, hospital, keys, config, edits):
                for visit in chart.visits:
                    true = visit.stay.outcome.probabilities
                    found.append((admission_truth(chart, visit), true))
                    if chart.split:
                        splits[chart.split].append(chart.subject_id)
        truth = HospitalTruth(
            admissions=tuple(row for found in scored.values() for row, _ in found),
            splits={name: tuple(subjects) for name, subjects in splits.items()},
            overlap=tuple((mimic3_subject_id(i), mimic4_subject_id(i)) for i in shared),
            oracle={hospital: oracle_scores(found) for hospital, found in scored.items()},
        )
        write_truth(building / "truth", truth, settings)
    return truth


def _written(
    folder: Path, hospital: Hospital, keys: Sequence[str], config: SyntheticConfig, edits: Edits
) -> Iterator[Chart]:
    """Write the tables of one part, and yield each chart when it is written."""
    model = OutcomeModel(config.signal)
    with open_tables(folder, hospital) as tables:
        part = Mimic3(tables) if hospital == "mimic3" else Mimic4(tables)
        for index, key in enumerate(keys):
            edit = edits.get((hospital, index), Edit())
            chart = part.chart(index, key, functools.partial(told, edit, model, config.seed))
            edit.change(chart)
            part.write(chart)
            yield chart
