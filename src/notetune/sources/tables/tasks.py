"""Outcome tasks without code: from a label column, a table of labels or a table of ICD codes."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from notetune.aliases import TaskKind
from notetune.config import Config, Name, Shown
from notetune.errors import DataError
from notetune.notes.icd import CATEGORY
from notetune.notes.outcomes import Task, classes_in
from notetune.sources.rejections import ReadingPolicy, Rejected
from notetune.strict_csv import MAX_CELL_CHARS

Where = dict[Shown, str | tuple[str, ...]]
"""The cell, or the cells, that a row must hold in each of some columns."""


class LabelTable(Config):
    """Labels in a table of their own: one row per note, patient, visit or other id."""

    path: Path
    """.csv, .csv.gz, .jsonl, .jsonl.gz or .parquet; a folder of Parquet files; or a pattern.

    Or FHIR resources, as `path` of a source of kind fhir. As a table, Encounter has the columns
    encounter, patient, start, end, days (between both), disposition (the codes of the discharge;
    for local ones, see `positive`) and expired (1 where they are a death by their code or words,
    else 0; the flow says which were taken for which)."""
    id_column: Shown
    label_column: Shown | None = None
    """Left out where each row is an event, such as a death or a readmission: its id is positive."""
    absent: Literal["missing", "negative"] = "missing"
    """What it means that an id has no row: that its label is not known, or that it is negative (of
    a multilabel task, that it has none of the classes). An id whose row has no label, or was
    rejected, is never negative."""
    where: Where = Field(default_factory=dict)
    """Rows that count, by their cells: {Kind: diag} or {Kind: [diag, main]}, as text and in this
    letter case. Others are left out and counted."""


class CodeTable(Config):
    """ICD codes in a table of their own: any number of rows per admission, patient or other id.

    Without `roll_up`, a code becomes its category: ICD-9 diagnoses three characters (external
    causes four), ICD-9 procedures and ICD-10 diagnoses three, ICD-10 procedures four.
    """

    path: Path
    """As `path` of `labels`. A table of FHIR Condition has the columns encounter, patient, icd9,
    icd10 and snomed (by the URI of the code system), icd for both with its version, or code for
    those of all systems."""
    id_column: Shown
    code_column: Shown
    of: Literal["diagnoses", "procedures"] = "diagnoses"
    version: Literal["icd9", "icd10", "as-is"] | None = None
    """One version for all codes; as-is takes each code for a class of its own."""
    version_column: Shown | None = None
    """Or a column that says 9 or 10; classes are then named `ICD-9 250` and `ICD-10 E11`."""
    no_codes: Literal["negative", "missing"] = "negative"
    """What it means that an id has no code: that it has none of the classes, or that its codes are
    not known, so that its notes are left out of the task, as those of a rejected row always are."""
    where: Where = Field(default_factory=dict)
    """As `where` of `labels`: the rows that count, where the table has codes of several kinds."""

    @model_validator(mode="after")
    def _has_one_version(self) -> Self:
        if (self.version is None) == (self.version_column is None):
            raise ValueError("give version or version_column, and not both")
        named = self.code_column  # as the columns of FHIR Condition are
        fitting = (None, "as-is", named) if named.startswith("icd") else ("as-is",)
        if named in ("icd9", "icd10", "snomed") and self.version not in fitting:
            raise ValueError(f"version of codes in column {named} is {fitting[-1]}")
        return self

    def class_of(self, code: str, version: str = "") -> str:
        """The class of a code with or without its dot, by the cell of the version column if any.

        Raises:
            Rejected: If the version is neither 9 nor 10.

        Source:
            Data specification, sections 2.4 and 5.1.
        """
        if self.version == "as-is":
            return code
        number, lead = self.edition(version)
        return f"{lead}{CATEGORY[self.of, number](code)}"

    def edition(self, version: str = "") -> tuple[str, str]:
        """The version of ICD, 9 or 10, and how the names of its classes begin.

        Raises:
            Rejected: As `class_of`.
        """
        number = version if self.version is None else self.version.removeprefix("icd")
        if number not in ("9", "10"):
            raise Rejected("ICD version is neither 9 nor 10", "mend the cell")
        return number, "" if self.version else f"ICD-{number} "


class SampleTable(Config):
    """Labels at prediction times, any number of them for one id: each row is a sample.

    Its text is the latest note of the id at or before the prediction time; a sample without one is
    left out and counted, as is a note without a time. A note of the day of the prediction time
    without an hour, or of midnight, is not known to be before it. Samples are named
    `NOTE_ID@PREDICTION_TIME`, for one note may be that of several. The defaults are those of a
    label file of MEDS.
    """

    path: Path
    """As `path` of `labels`; for MEDS the folder of the task."""
    id_column: Shown = "subject_id"
    prediction_time: Shown = "prediction_time"
    """Column with the last moment whose notes may be read."""
    label_column: Shown | None = None
    """Left out, that one of boolean_value, integer_value, float_value and categorical_value which
    is there and filled; numbers that are no classes need `borders`."""


class RollUpTable(Config):
    """What group each code belongs to, such as a CCSR file; one row per code and group.

    Source:
        Files of this form: CCSR of HCUP, whose quotes inside a cell are taken off.
    """

    path: Path
    """As that of `labels` and `codes`."""
    code_column: Shown
    """Whole codes, of one version; matched with and without their dot, in any letter case."""
    group_column: Shown
    """A code has the groups of all its rows; one that the table lacks is left out and counted."""
    description_column: Shown | None = None
    """Words for each group, shown beside it in the report."""


class DescriptionTable(Config):
    """Words for the classes of a task, matched as codes are in `RollUpTable`."""

    path: Path
    """As that of `labels` and `codes`."""
    code_column: Shown
    """Names of the classes: codes, categories or groups; dots and letter case do not matter."""
    description_column: Shown
    """One line each; over 120 characters it is cut at a word."""


class TableTask(Config):
    """One outcome, in a column of the notes or in another table."""

    name: Name
    kind: TaskKind
    column: Shown
    """Column of the notes with the label; or, with `labels`, `codes` or `samples`, with the id to
    look up."""
    labels: LabelTable | None = None
    codes: CodeTable | None = None
    """Multilabel: every category found under the id."""
    samples: SampleTable | None = None
    """Labels at prediction times, as in a label file of MEDS: each row is a sample, whose text is
    the latest note of its id at or before that time."""
    prediction_time: Shown | None = None
    """Column (of the label table, where there is one) with the moment from which the outcome is to
    be foretold; later notes are a leak. It has a time zone where the times of the notes have one.
    Where some labelled notes have one and others none, that is a leak too.
    A note of its day without an hour, or of midnight, may be later, which is said."""
    prediction_hours: NonNegativeFloat = 0
    """Hours after `prediction_time`: 24 with the start of a stay foretells from its first day. FHIR
    stays that ended before that are left out and counted."""
    separator: str | None = None
    """Between the labels of a multilabel cell; without it a cell holds one label."""
    first_characters: PositiveInt | None = None
    """Of each label of a multilabel task, so many count: 3 makes ICD-10 codes their categories.
    With `codes`, for version: as-is."""
    roll_up: Literal["chapter", "icd9-chapter", "icd10-chapter"] | RollUpTable | None = None
    """Multilabel: what each code becomes. A table gives its groups; `chapter` the ICD chapter of
    diagnoses in a table of `codes`, by its version; icd9-chapter and icd10-chapter that of labels,
    which have no version. A code without a group or chapter is left out and counted."""
    descriptions: DescriptionTable | None = None
    """Words for each class, shown beside it in the report. Chapters, and a roll-up table with a
    `description_column`, bring theirs."""
    borders: tuple[float, ...] | None = None
    """Cuts the numbers of a multiclass task into classes: [3, 7] makes them <=3, 3-7 and >7, or
    what `classes` names. A border belongs to the class below it."""
    classes: tuple[Shown, ...] | None = None
    """Allowed classes, in this order; without it, those found, sorted. Binary: the name of the
    positive class; without it, the name of the task. With `codes` or `roll_up`: those to keep."""
    positive: str | tuple[str, ...] = "1"
    """Cell of a positive note, or several such (binary only). Of a list, such as the codes of a
    FHIR discharge, one suffices."""
    negative: str | None = "0"
    """Cell of a negative note (binary only); null: every other cell that is filled in."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.separator is not None and (self.kind != "multilabel" or not self.separator):
            raise ValueError("separator is for multilabel tasks and is at least one character")
        if self.first_characters is not None and (
            self.kind != "multilabel" or (self.codes and self.codes.version != "as-is")
        ):
            raise ValueError("first_characters is for multilabel tasks, and codes taken as-is")
        self._check_borders()
        if self.kind == "binary" and self.classes is not None and len(self.classes) != 1:
            raise ValueError("a binary task has one class: the name of the positive one")
        if self.negative in self.positives or not self.positives:
            raise ValueError("positive and negative must differ")
        if self.prediction_hours and self.prediction_time is None:
            raise ValueError("prediction_hours counts from prediction_time; name its column")
        if self.codes is not None and (self.kind != "multilabel" or self.labels is not None):
            raise ValueError("a task with codes is multilabel and has no labels")
        if self.samples is not None and (self.labels or self.codes or self.prediction_time):
            raise ValueError("a task with samples has no labels, codes or prediction_time beside")
        if (
            self.labels is not None
            and self.labels.label_column is None
            and (self.kind != "binary" or self.labels.absent == "missing")
        ):
            raise ValueError("labels without label_column are of a binary task, absent: negative")
        if self.absent_is_negative and self.kind == "multiclass":
            raise ValueError("absent: negative is for binary and multilabel tasks")
        return self

    def _check_borders(self) -> None:
        borders = self.borders
        if borders is None:
            return
        if self.kind != "multiclass" or not borders or sorted(set(borders)) != list(borders):
            raise ValueError("borders are of a multiclass task: one or more numbers that rise")
        if self.classes is not None and len(self.classes) != len(borders) + 1:
            raise ValueError(
                f"{len(borders)} borders make {len(borders) + 1} classes; name so many"
            )

    @property
    def positive_class(self) -> tuple[str, ...]:
        """The one class of a binary task."""
        return self.classes or (self.name,)

    @property
    def positives(self) -> tuple[str, ...]:
        """The cells of a positive note of a binary task."""
        return (self.positive,) if isinstance(self.positive, str) else self.positive

    @property
    def all_classes(self) -> tuple[str, ...] | None:
        """The classes that are allowed, in their order; None for those that are found."""
        if self.classes is not None or self.borders is None:
            return self.classes
        numbers = [f"{border:.12g}" for border in self.borders]
        inner = (f"{low}-{high}" for low, high in pairwise(numbers))
        return (f"<={numbers[0]}", *inner, f">{numbers[-1]}")

    @model_validator(mode="after")
    def _has_times_of_both_classes(self) -> Self:
        if self.labels and self.labels.absent == "negative" and self.prediction_time is not None:
            raise ValueError(
                "absent: negative gives those without a row no prediction time, so their late "
                "notes would stay: give each a row with a label (`label_column`) and a time, and "
                "leave absent out"
            )
        return self

    @model_validator(mode="after")
    def _can_roll_up(self) -> Self:
        if self.kind != "multilabel" and self.roll_up is not None:
            raise ValueError("roll_up is for multilabel tasks")
        if self.kind == "binary" and self.descriptions is not None:
            raise ValueError("descriptions are for tasks with several classes")
        codes, by_table = self.codes, isinstance(self.roll_up, RollUpTable)
        if by_table and codes is not None and codes.version_column is not None:
            raise ValueError(
                "a roll_up table has no version, and E849 is a code of both: keep the codes of one "
                "version, or write version: as-is where no code means two things"
            )
        if self.roll_up is None or by_table:
            return self
        if (self.roll_up == "chapter") != (codes is not None):
            raise ValueError(
                "roll_up: chapter is for codes; for column or labels it is icd9-chapter or "
                "icd10-chapter"
            )
        if codes is not None and (codes.of != "diagnoses" or codes.version == "as-is"):
            raise ValueError("chapters are of diagnoses of a version, icd9 or icd10")
        return self

    @property
    def absent_is_negative(self) -> bool:
        """Whether an id without a row beside the notes has none of the classes."""
        if self.codes is not None:
            return self.codes.no_codes == "negative"
        return self.labels is not None and self.labels.absent == "negative"

    @property
    def note_columns(self) -> tuple[str, ...]:
        """The columns of the notes that the task needs."""
        moment = self.prediction_time if self.labels is None else None
        return (self.column,) if moment is None else (self.column, moment)


class TaskedSource(ReadingPolicy):
    """A source whose tasks are described in the recipe."""

    tasks: tuple[TableTask, ...] = ()
    max_note_chars: Annotated[PositiveInt, Field(le=10**15)] = MAX_CELL_CHARS

    @property
    def split_table(self) -> dict[str, Path | str | None]:
        """Keys of a split of kind column that the source knows, where the split lacks them."""
        return {}

    @model_validator(mode="after")
    def _task_names_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self


def checked_task(
    spec: TableTask, table: pl.DataFrame, origin: Path, description_of: Callable[[str], str]
) -> Task:
    """The task of a recipe, with the classes that it names or that its table from `origin` has.

    Raises:
        DataError: If no note has a label, or the number of classes does not fit the task.
    """
    if table.is_empty():
        raise DataError(
            f"{origin}: no note has a label of task {spec.name}; is column {spec.column} right "
            "and are ids written alike in the table of labels or codes?"
        )
    found = spec.all_classes or classes_in(table["labels"])
    classes = spec.positive_class if spec.kind == "binary" else found
    described = {name: words for name in classes if (words := description_of(name))}
    try:
        return Task(spec.name, spec.kind, classes, class_descriptions=described)
    except DataError as error:  # ours, so it shows no label
        raise DataError(f"{origin}, column {spec.column}: {error}") from None
