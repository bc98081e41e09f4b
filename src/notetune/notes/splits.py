"""Patients into train, validation and test: no patient is ever on two sides."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self, assert_never

import polars as pl
from pydantic import Field, model_validator

from notetune.config import Config
from notetune.errors import DataError
from notetune.notes.outcomes import SPLITS
from notetune.notes.strict_csv import read_rows


class SplitConfig(Config):
    """A random split by patient, the same for the same patients and seed on every machine."""

    kind: Literal["fractions"] = "fractions"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the patients in validation, rounded to whole patients."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the patients in test, rounded to whole patients."""
    seed: int = 0

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must be below 1; the rest is train")
        return self


class OfficialSplit(Config):
    """A published split: one CSV file of patient ids per part (ids may repeat within a file)."""

    kind: Literal["files"]
    train: Path
    validation: Path
    test: Path
    column: str = "SUBJECT_ID"
    """The column with the patient id."""

    @property
    def files(self) -> dict[str, Path]:
        """The file of each split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


Split = Annotated[SplitConfig | OfficialSplit, Field(discriminator="kind")]


def split_patients(patient_ids: Iterable[str], config: SplitConfig | OfficialSplit) -> pl.DataFrame:
    """Assign each patient to one split.

    Args:
        patient_ids: Ids in any order, repeated or not.
        config: Fractions with a seed, or official files.

    Returns:
        Columns `patient_id` and `split`, one row per patient, sorted by id. The assignment depends
        on the set of ids only, never on their order. For fractions, exactly
        `round(fraction * patients)` are in validation and in test. With official files, patients
        named in none of them are absent, and ids that are no patient of ours are ignored.

    Raises:
        DataError: If a split that was asked for would be empty, or an official file is faulty or
            shares a patient with another.
    """
    patients = sorted(set(patient_ids))
    match config:
        case SplitConfig():
            split_of = _random_split(patients, config)
        case OfficialSplit():
            split_of = _official_split(patients, config)
        case _:
            assert_never(config)
    assignment = pl.DataFrame(
        {"patient_id": list(split_of), "split": list(split_of.values())},
        schema={"patient_id": pl.String, "split": pl.String},
    )
    check_disjoint(assignment)
    return assignment


def split_table(
    table: pl.DataFrame, patient_of: pl.DataFrame, assignment: pl.DataFrame
) -> tuple[pl.DataFrame, int]:
    """A task table with `patient_id` and `split`, and the number of notes in no split.

    Args:
        table: Columns `note_id` and `labels`.
        patient_of: Columns `note_id` and `patient_id`, one row per note (the notes frame will do).
        assignment: What `split_patients` returned.

    Raises:
        DataError: If a note of the table has no row in `patient_of`.
    """
    patients = patient_of.select("note_id", "patient_id")
    joined = table.join(patients, on="note_id", how="left", maintain_order="left")
    lost = joined.filter(pl.col("patient_id").is_null())["note_id"]
    if lost.len():
        raise DataError(
            f"note {lost[0]} has labels but no patient ({lost.len()} of {table.height} notes); "
            "give the notes and the labels the same note ids, both as text."
        )
    joined = joined.join(assignment, on="patient_id", how="left", maintain_order="left")
    kept = joined.filter(pl.col("split").is_not_null())
    check_disjoint(kept)
    return kept, joined.height - kept.height


def check_disjoint(table: pl.DataFrame) -> None:
    """Check that every patient is in one split only.

    Args:
        table: Columns `patient_id` and `split`.

    Raises:
        DataError: With the number of patients in several splits.
    """
    splits_per_patient = table.group_by("patient_id").agg(pl.col("split").n_unique())
    shared = splits_per_patient.filter(pl.col("split") > 1).height
    if shared:
        raise DataError(
            f"{shared} of {splits_per_patient.height} patients are in more than one split; "
            "put all notes of a patient into the same one."
        )


def _random_split(patients: list[str], config: SplitConfig) -> dict[str, str]:
    held_out = {name: getattr(config, name) for name in ("validation", "test")}
    counts = {name: round(fraction * len(patients)) for name, fraction in held_out.items()}
    counts["train"] = len(patients) - sum(counts.values())
    empty = [name for name in SPLITS if counts[name] < 1 and held_out.get(name, 1) > 0]
    if empty:
        raise DataError(
            f"{len(patients)} patients are too few: {empty[0]} would get none. "
            "Add patients, or set the fraction of that split to 0."
        )
    shuffled = sorted(patients, key=lambda patient: _keyed_hash(config.seed, patient))
    names = [name for name in SPLITS for _ in range(counts[name])]
    return dict(sorted(zip(shuffled, names, strict=True)))


def _keyed_hash(seed: int, patient: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{patient}".encode(), digest_size=16).digest()


def _official_split(patients: list[str], config: OfficialSplit) -> dict[str, str]:
    named: dict[str, str] = {}
    for split in SPLITS:
        path = config.files[split]
        for row in read_rows(path, [config.column]):
            patient = row.cells[0].strip()
            if not patient:
                raise DataError(f"{path}, line {row.line}: no patient id; remove the line.")
            other = named.setdefault(patient, split)
            if other != split:
                raise DataError(
                    f"{path}, line {row.line}: this patient is already in "
                    f"{config.files[other]}; keep each patient in one file."
                )
    split_of = {patient: named[patient] for patient in patients if patient in named}
    empty = [split for split in SPLITS if split not in split_of.values()]
    if empty:
        raise DataError(
            f"{config.files[empty[0]]} names none of the {len(patients)} patients, so "
            f"{empty[0]} would be empty; is it the split of this data set?"
        )
    return split_of
