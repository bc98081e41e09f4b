"""What the labels and codes of a task become: categories, chapters or groups, and their words."""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from notetune.audit import FlowCount
from notetune.config import MAX_SHOWN_CHARS
from notetune.errors import DataError
from notetune.notes.icd_chapters import CHAPTERS, icd_chapter
from notetune.sources.rejections import ReadingPolicy, Rejected, Rejections
from notetune.sources.tables.files import of_recipe, read_records, table_files
from notetune.sources.tables.records import Record
from notetune.sources.tables.tasks import RollUpTable, TableTask

UNKNOWN = "not in the roll-up"
NOT_ALLOWED = "not among the classes of the task"


@dataclass(frozen=True)
class _Groups:
    """A table in memory: groups by the key of a code, descriptions by that of a group."""

    groups: Mapping[str, tuple[str, ...]]
    words: Mapping[str, str]
    flow: FlowCount
    rejections: pl.DataFrame


@dataclass
class RollUp:
    """The classes of each code of a task, and what became of the codes that were asked for.

    Attributes:
        groups: The classes by the key of a code; None where no table says them.
        words: Descriptions by the key of a class.
        tables: Those of the user that were read for this.
        codes: How many codes were asked for.
        left_out: How many of them have no class, by reason.
    """

    task: TableTask
    groups: Mapping[str, tuple[str, ...]] | None
    words: Mapping[str, str]
    tables: tuple[_Groups, ...]
    codes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def classes(self, code: str, *version: str) -> tuple[str, ...]:
        """The classes of a code; none for one that is unknown or not wanted, which is counted.

        `version` is the cell of the version column, if there is one.

        Raises:
            Rejected: If the version is none of ICD.
        """
        if self.groups is not None:
            found = self.groups.get(_key(code), ())
        else:
            name = _class_of(self.task, code, *version)
            found = () if name is None else (name,)
        kept = tuple(name for name in found if self._allowed is None or name in self._allowed)
        self.codes += 1
        if not kept:
            self.left_out[NOT_ALLOWED if found else UNKNOWN] += 1
        return kept

    @cached_property
    def _allowed(self) -> frozenset[str] | None:
        return None if self.task.classes is None else frozenset(self.task.classes)

    def description(self, name: str) -> str:
        """The words of a class; "" where none are known."""
        return self.words.get(_key(name), "")

    def flow(self) -> Iterator[FlowCount]:
        """The rows of its tables, and what became of the codes, where these are no rows either.

        Raises:
            DataError: If not one code could be rolled up.
        """
        task = self.task
        if self.codes and self.left_out[UNKNOWN] == self.codes:
            raise DataError(
                f"none of the {self.codes} codes of task {task.name} is in its roll-up; check the "
                "columns, and that both are codes of one version."
            )
        yield from (table.flow for table in self.tables)
        if task.roll_up is not None and task.codes is None:
            kept = self.codes - self.left_out.total()
            stage = f"codes in the cells of task {task.name}"
            yield FlowCount(stage, self.codes, kept, dict(self.left_out))


def load_roll_up(task: TableTask, policy: ReadingPolicy) -> RollUp:
    """What the codes of a task become, with the tables of the recipe that say so.

    Raises:
        DataError: If a table is missing or faulty, or the policy stops.
    """
    tables, words, groups = [], dict[str, str](), None
    if isinstance(task.roll_up, RollUpTable):
        with of_recipe({f"task {task.name}, roll_up": task.roll_up}):
            table = _read(task.roll_up, f"rows of the roll-up of task {task.name}", policy)
        tables.append(table)
        words |= table.words
        groups = table.groups
    elif task.roll_up is not None:
        words |= {
            _key(f"{lead}{name}"): title
            for version, chapters in CHAPTERS.items()
            for lead in ("", f"ICD-{version} ")
            for name, title in chapters.items()
        }
    if (said := task.descriptions) is not None:
        as_roll_up = RollUpTable(**said.model_dump(), group_column=said.code_column)
        with of_recipe({f"task {task.name}, descriptions": said}):
            stage = f"rows of the descriptions of task {task.name}"
            tables.append(_read(as_roll_up, stage, policy))
        words |= tables[-1].words
    return RollUp(task, groups, words, tuple(tables))


def _class_of(task: TableTask, code: str, *version: str) -> str | None:
    """The category of a code, or the chapter, if it is in one."""
    codes = task.codes
    if task.roll_up is None:
        return code if codes is None else codes.class_of(code, *version)[: task.first_characters]
    number, lead = "9" if task.roll_up == "icd9-chapter" else "10", ""
    if codes is not None:
        number, lead = codes.edition(*version)
    chapter = icd_chapter(code, number)
    return chapter and f"{lead}{chapter}"


def _read(table: RollUpTable, stage: str, policy: ReadingPolicy) -> _Groups:
    columns = (table.code_column, table.group_column, table.description_column)
    rejections, kept = Rejections(policy), 0
    groups, words = dict[str, dict[str, None]](), dict[str, str]()
    wanted = list(dict.fromkeys(column for column in columns if column))
    for record in read_records(table_files(table.path), wanted, rejections):
        try:
            code, group, said = (_bare(record, column) for column in columns)
            said = _shortened(said)
            if said and words.get(_key(group), said) != said:
                raise Rejected("another description of the same code or group", "keep one")
        except Rejected as fault:
            rejections.reject(record.file, record.line, fault)
            continue
        if not (code and group):
            rejections.leave_out("no code or no group")
            continue
        if len(group) > MAX_SHOWN_CHARS:
            raise DataError(
                f"{record.where}: column {table.group_column} holds {len(group)} characters; a "
                f"code or group is at most {MAX_SHOWN_CHARS}. Name another column."
            )
        kept += 1
        groups.setdefault(_key(code), {})[sys.intern(group)] = None
        if said:
            words[_key(group)] = said
    rejections.check_share(table.path)
    flow = FlowCount(stage, rejections.rows_read, kept, rejections.counts())
    of_code = {code: tuple(found) for code, found in groups.items()}
    return _Groups(of_code, words, flow, rejections.table())


def _bare(record: Record, column: str | None) -> str:
    """A cell without the quotes that CCSR files put inside theirs; "" where there is none."""
    text = "" if column is None else record.text(column)
    return text[1:-1].strip() if text[:1] == text[-1:] == "'" and len(text) > 1 else text


def _shortened(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    head = text[:MAX_SHOWN_CHARS]
    return f"{head.rpartition(' ')[0].rstrip() or head[:-1]}…"


def _key(code: str) -> str:
    return re.sub(r"[.\-+*!†#]", "", code).upper()  # with the marks of national versions
