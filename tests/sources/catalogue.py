"""What the cases of bad input share: good rows, a canary in their text, and what must happen."""

import base64
import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from notetune import config
from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.cohort import Cohort
from notetune.sources.rejections import write_rejections
from notetune.sources.tables.source import TableSource

CANARY = "Zygomorphic"
HEADER = "id,patient,died,text\n"
ROWS = f'a,1,0,"{CANARY} one"\nb,2,1,"{CANARY} two"\nc,3,0,"{CANARY} three"\n'
GOOD = (HEADER + ROWS).encode()
DEATH = {"name": "death", "kind": "binary", "column": "died"}
COLUMNS = {"text": "text", "note_id": "id", "patient_id": "patient"}
QUARANTINE = {"policy": "quarantine", "max_rejected_share": 0.5}
POLICIES = ({"policy": "strict"}, QUARANTINE)

Case = Callable[[Path], None]


class Cases(dict[int, tuple[str, Case]]):
    """Cases by number, each with its name."""

    def case(self, number: int, name: str) -> Callable[[Case], Case]:
        def add(function: Case) -> Case:
            assert number not in self
            self[number] = (name, function)
            return function

        return add


def source_of(path: Path, **changes: object) -> TableSource:
    fields = {"kind": "table", "path": path, "columns": COLUMNS, "tasks": [DEATH]}
    return config.parse(TableSource, fields | changes, "recipe")


def fed(folder: Path, content: bytes | str, name: str = "notes.csv", **changes: object) -> Cohort:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    cohort = read(source_of(folder / name, **changes))
    for stage in cohort.flow:
        assert stage.read == stage.kept + sum(stage.rejected.values())
    return cohort


def encodings_of(text: str) -> Iterator[str]:
    for form in (text, text.lower()):
        yield form
        yield json.dumps(form)[1:-1]
        yield urllib.parse.quote(form)
        yield base64.b64encode(form.encode()).decode()
        yield form.encode().hex()


def assert_silent(error: BaseException) -> None:
    """Neither the error nor anything chained to it shows text, and it is one line."""
    assert "\n" not in str(error)
    chained: BaseException | None = error
    while chained is not None:
        shown = repr(chained) + str(vars(chained))
        assert not [form for form in encodings_of(CANARY) if form in shown]
        assert chained.__cause__ is None
        chained = None if chained.__suppress_context__ else chained.__context__


def stops(
    folder: Path,
    content: bytes | str,
    rule: str,
    name: str = "notes.csv",
    policies: tuple[dict[str, object], ...] = POLICIES,
    **changes: object,
) -> None:
    """The file is refused with that rule."""
    for policy in policies:
        with pytest.raises(DataError) as caught:
            fed(folder, content, name, **policy, **changes)
        assert rule in str(caught.value)
        assert name in str(caught.value)
        assert_silent(caught.value)


def left_out(folder: Path, row: bytes | str, reason: str, **changes: object) -> None:
    """The row after the good ones stops strict reading; quarantine counts it and keeps the rest."""
    raw = row.encode() if isinstance(row, str) else row
    stops(folder, GOOD + raw, f"line 5: {reason}", policies=POLICIES[:1], **changes)
    cohort = fed(folder, GOOD + raw, **QUARANTINE, **changes)
    assert cohort.flow[0].rejected == {reason: 1}
    assert (cohort.flow[0].read, cohort.flow[0].kept) == (4, 3)
    assert cohort.rejections["line"].to_list() == [5]
    assert cohort.notes.equals(fed(folder, GOOD).notes)
    write_rejections(cohort.rejections, folder / "rejections.csv")
    assert CANARY not in (folder / "rejections.csv").read_text()


def same_under_both(folder: Path, content: bytes | str, **changes: object) -> list[str]:
    """Nothing is rejected under either policy; the texts."""
    strict, lenient = (fed(folder, content, **policy, **changes) for policy in POLICIES)
    assert strict.notes.equals(lenient.notes)
    assert strict.flow[0].rejected == lenient.flow[0].rejected == {}
    return strict.notes["text"].to_list()


TEXTS = [f"{CANARY} one", f"{CANARY} two", f"{CANARY} three"]
