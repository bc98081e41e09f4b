"""Patients into train, validation and test: no patient is ever on two sides."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self, assert_never

import polars as pl
from pydantic import Field, model_validator

from notetune.config import Config, Shown
from notetune.errors import DataError
from notetune.notes.ids import nearly_among
from notetune.notes.outcomes import SPLITS
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import read_records, table_files
from notetune.sources.tables.records import Record
from notetune.sources.tables.source import TableSource
from notetune.strict_csv import read_rows


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
    column: Shown = "SUBJECT_ID"
    """The column with the patient id."""


class ColumnSplit(Config):
    """A split that a table names, such as the one of the notes: a row per note or patient.

    In the notes, a row that cannot be used, or under quarantine one without a split, is dealt with
    by their policy; in another table it stops.
    """

    kind: Literal["column"]
    path: Path | None = None
    """.csv, .csv.gz, .jsonl, .jsonl.gz or .parquet; when left out the table of the notes, or of a
    MEDS data set its metadata/subject_splits.parquet."""
    patient_id: Shown | None = None
    """The column with the patient id, or with the note id where the source knows no patients; that
    of the source when left out."""
    column: Shown = "split"
    """The column with the name of the split."""
    train: tuple[str, ...] = ("train", "training")
    """Its words for training notes, in any letter case."""
    validation: tuple[str, ...] = ("validation", "valid", "val", "development", "dev", "tuning")
    test: tuple[str, ...] = ("test", "testing", "held_out", "held-out", "eval", "evaluation")
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of the training patients that go into validation instead, drawn by `seed`."""
    seed: int = 0

    @model_validator(mode="after")
    def _words_differ(self) -> Self:
        words = [word.lower() for word in (*self.train, *self.validation, *self.test)]
        if twice := {word for word in words if words.count(word) > 1}:
            raise ValueError(f"{min(twice)} stands for two splits; name each word once")
        return self


AnySplit = SplitConfig | OfficialSplit | ColumnSplit
Split = Annotated[AnySplit, Field(discriminator="kind")]


def split_patients(
    patient_ids: Iterable[str], config: AnySplit, source: Config | None = None
) -> pl.DataFrame:
    """Assign each patient to one split; ids may come in any order and repeatedly.

    `source` is that of the notes: it says which cells are missing, and where the column is in the
    notes themselves, whose each row is and what becomes of a row that cannot be used.

    Returns:
        Columns `patient_id` and `split`, one row per patient, sorted by id, whatever the order of
        the ids. For fractions, exactly `round(fraction * patients)` are in validation and in test.
        With files or a column, patients named nowhere are absent; other ids are ignored.

    Raises:
        DataError: If a split that was asked for would be empty, a file is faulty or shares a
            patient with another, or a column has two splits for a patient or an unknown word.
    """
    patients = sorted(set(patient_ids))
    match config:
        case SplitConfig():
            split_of = _random_split(patients, config)
        case OfficialSplit():
            split_of = _official_split(patients, config)
        case ColumnSplit():
            split_of = _column_split(patients, config, source)
        case _:
            assert_never(config)
    schema = {"patient_id": pl.String, "split": pl.String}
    return pl.DataFrame(list(split_of.items()), schema=schema, orient="row")


def split_table(
    table: pl.DataFrame, patient_of: pl.DataFrame, assignment: pl.DataFrame
) -> tuple[pl.DataFrame, int]:
    """A task table with `patient_id` and `split`, and the number of notes in no split.

    `patient_of` has `note_id` and `patient_id`, one row per note, and `assignment` is what
    `split_patients` returned.

    Raises:
        DataError: If a note of the table has no row in `patient_of`.
    """
    patients = patient_of.select("note_id", "patient_id")
    joined = table.join(patients, on="note_id", how="left", maintain_order="left")
    if (lost := joined.filter(pl.col("patient_id").is_null())["note_id"]).len():
        raise DataError(
            f"note {lost[0]} has labels but no patient ({lost.len()} of {table.height} notes); "
            "give the notes and the labels the same note ids, both as text."
        )
    joined = joined.join(assignment, on="patient_id", how="left", maintain_order="left")
    kept = joined.filter(pl.col("split").is_not_null())
    return kept, joined.height - kept.height


def _random_split(patients: list[str], config: SplitConfig) -> dict[str, str]:
    held_out = {name: getattr(config, name) for name in ("validation", "test")}
    counts = {name: round(fraction * len(patients)) for name, fraction in held_out.items()}
    counts["train"] = len(patients) - sum(counts.values())
    if empty := [name for name in SPLITS if counts[name] < 1 and held_out.get(name, 1) > 0]:
        raise DataError(
            f"{len(patients)} patients are too few: {empty[0]} would get none. "
            "Add patients, or set the fraction of that split to 0."
        )

    def keyed_hash(patient: str) -> bytes:
        return hashlib.blake2b(f"{config.seed}\0{patient}".encode(), digest_size=16).digest()

    shuffled = sorted(patients, key=keyed_hash)
    names = [name for name in SPLITS for _ in range(counts[name])]
    return dict(sorted(zip(shuffled, names, strict=True)))


def _official_split(patients: list[str], config: OfficialSplit) -> dict[str, str]:
    named: dict[str, str] = {}
    files = {"train": config.train, "validation": config.validation, "test": config.test}
    for split, path in files.items():
        for row in read_rows(path, [config.column]):
            patient = row.cells[0].strip()
            if not patient:
                raise DataError(f"{path}, line {row.line}: no patient id; remove the line.")
            if (other := named.setdefault(patient, split)) != split:
                raise DataError(
                    f"{path}, line {row.line}: this patient is already in "
                    f"{files[other]}; keep each patient in one file."
                )
    split_of = _of_patients(patients, named, config.column)
    if empty := [split for split in SPLITS if split not in split_of.values()]:
        raise DataError(
            f"{files[empty[0]]} names none of the {len(patients)} patients, so "
            f"{empty[0]} would be empty; is it the split of this data set?"
        )
    return split_of


def _of_patients(patients: list[str], named: dict[str, str], column: str) -> dict[str, str]:
    """The split of each patient that has one, refusing ids that are spelt in two ways."""
    if nearly := nearly_among(patients, named):
        raise DataError(
            f"{nearly:,} of {len(patients):,} patients of the notes are in column {column} of the "
            "split but for zeros before their ids or .0 behind; write ids alike in both tables."
        )
    return {patient: named[patient] for patient in patients if patient in named}


def _column_split(
    patients: list[str], config: ColumnSplit, source: Config | None
) -> dict[str, str]:
    named = _named_splits(config, source)
    split_of = _of_patients(patients, named, config.patient_id or config.column)
    if config.validation_share:
        share = SplitConfig(validation=config.validation_share, test=0, seed=config.seed)
        training = [patient for patient, split in split_of.items() if split == "train"]
        split_of |= _random_split(training, share)
    if empty := [split for split in ("train", "test") if split not in split_of.values()]:
        raise DataError(
            f"{config.path}: no patient of the notes is in {empty[0]}; look at split.patient_id "
            "and at the words of each split."
        )
    return split_of


def _named_splits(config: ColumnSplit, source: Config | None) -> dict[str, str]:
    """The split of each patient in the table."""
    named: dict[str, str] = {}
    asked, rows = {"path": config.path, "patient_id": config.patient_id}, _rows(config, source)
    if isinstance(source, TableSource) and source.split_table == asked:
        rows = _rows_of_notes(config, source)
    split_of_word = {word.lower(): split for split in SPLITS for word in getattr(config, split)}
    unknown, first = 0, ""
    for record, patient, word in rows:
        if (split := split_of_word.get(word.lower())) is None:
            unknown += 1
            first = first or f"{record.where}: column {config.column} names no split"
        elif named.setdefault(patient, split) != split:
            raise DataError(
                f"{record.where}: this patient is in another split in an earlier row; keep all "
                "rows of a patient in one split."
            )
    if unknown:
        others = f", nor do {unknown - 1} other rows" if unknown > 1 else ""
        raise DataError(
            f"{first}{others}; known are {', '.join(split_of_word)}. Add "
            "its word to split.train, .validation or .test, or name another column."
        )
    return named


def _rows(config: ColumnSplit, source: Config | None) -> Iterator[tuple[Record, str, str]]:
    """The rows of a table, each with its patient and its word for a split; a bad one stops."""
    assert config.path
    assert config.patient_id
    missing = source.missing if isinstance(source, ReadingPolicy) else ReadingPolicy().missing
    rejections = Rejections(ReadingPolicy(missing=missing))
    columns = [config.patient_id, config.column]
    for record in read_records(table_files(config.path), columns, rejections):
        try:
            patient, word = record.id(config.patient_id, "patient"), record.text(config.column)
        except Rejected as fault:
            raise DataError(f"{record.where}: {fault.reason}; {fault.remedy}.") from None
        yield record, patient, word


def _rows_of_notes(config: ColumnSplit, source: TableSource) -> Iterator[tuple[Record, str, str]]:
    """As `_rows`, from the notes themselves: what becomes of a bad row is up to their policy."""
    rejections, patient_of = Rejections(source), source.patient_of()
    columns = list(dict.fromkeys((*source.patient_columns, config.column)))
    files = table_files(source.path)
    for record in read_records(files, columns, rejections, source.max_note_chars):
        try:
            patient, word = patient_of(record), record.text(config.column)
            if not word and not rejections.is_strict:
                raise Rejected("missing split", "name it")
        except Rejected as fault:
            rejections.reject(record.file, record.line, fault)
            continue
        yield record, patient, word
    rejections.check_share(source.path)
