"""The catalogue of bad input: forty cases, what is fed and what must happen, under both policies.

The strict reader on the csv module is the only CSV reader of notetune, so that there is no faster
one to compare it with; what it reads is compared with the csv module itself. Every failing case
carries a canary word in its note text, which must be in no error, log, printed line or file.
"""

import base64
import csv
import gzip
import io
import json
import os
import random
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notetune import config
from notetune.errors import DataError
from notetune.metrics.ranking import auroc_score
from notetune.notes import outcomes, overlap, splits, strict_csv
from notetune.notes.near_duplicates import signatures
from notetune.notes.sources import (
    Cohort,
    TableSource,
    open_notes,
    read,
    write_rejections,
)

CANARY = "Zygomorphic"
HEADER = "id,patient,died,text\n"
ROWS = f'a,1,0,"{CANARY} one"\nb,2,1,"{CANARY} two"\nc,3,0,"{CANARY} three"\n'
GOOD = (HEADER + ROWS).encode()
DEATH = {"name": "death", "kind": "binary", "column": "died"}
COLUMNS = {"text": "text", "note_id": "id", "patient_id": "patient"}
QUARANTINE = {"policy": "quarantine", "max_rejected_share": 0.5}
POLICIES = ({"policy": "strict"}, QUARANTINE)

CASES: dict[int, tuple[str, Callable[..., None]]] = {}


def case(number: int, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(function: Callable[..., None]) -> Callable[..., None]:
        assert number not in CASES
        CASES[number] = (name, function)
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


@case(1, "missing column")
def _(folder):
    stops(folder, GOOD.replace(b"text", b"body", 1), "line 1: no column text among 4")


@case(2, "duplicate header")
def _(folder):
    stops(folder, GOOD.replace(b"died", b"TEXT", 1), "columns 3 and 4 have the same name")


@case(3, "byte order mark")
def _(folder):
    assert same_under_both(folder, b"\xef\xbb\xbf" + GOOD) == TEXTS


@case(4, "Latin-1 byte")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY} caf\xe9\n".encode("latin-1"), "bytes that are not UTF-8")
    row = f'd,4,0,"{CANARY}\ncaf\xe9\n{CANARY}"\n'.encode("latin-1")
    cohort = fed(folder, HEADER.encode() + row + ROWS.encode(), **QUARANTINE)
    assert cohort.rejections.row(0)[1:] == (2, None, "bytes that are not UTF-8")
    assert cohort.notes["text"].to_list() == TEXTS


@case(5, "UTF-16")
def _(folder):
    stops(folder, GOOD.decode().encode("utf-16"), "line 1: the file is UTF-16")
    stops(folder, GOOD.decode().encode("utf-16-le"), "line 1: NUL byte")


@case(6, "NUL byte")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY}\0\n", "NUL byte")


@case(7, "quoted newline")
def _(folder):
    texts = same_under_both(folder, HEADER + f'a,1,0,"{CANARY}\n\nb,2,1,x"\nb,2,1,y\n')
    assert texts == [f"{CANARY}\n\nb,2,1,x", "y"]


@case(8, "CRLF inside quotes, LF outside")
def _(folder):
    texts = same_under_both(folder, HEADER + f'a,1,0,"{CANARY}\r\ntwo\rthree"\nb,2,1,y\n')
    assert texts == [f"{CANARY}\ntwo\nthree", "y"]


@case(9, "quote that never closes")
def _(folder):
    stops(folder, GOOD + f'd,4,0,"{CANARY}\ne,5,1,x\n'.encode(), "line 5: a quote opens here")
    stops(folder, GOOD + f'd,4,0,"{CANARY}" x\n'.encode(), "line 5: text follows a closing quote")


@case(10, "short row")
def _(folder):
    left_out(folder, f"d,4,{CANARY}\n", "short row")
    left_out(folder, "\n", "blank line")


@case(11, "long row")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY},\n", "long row")


@case(12, "empty text")
def _(folder):
    for cell in ("", '""', '"  "', '"\n\t\r\n"', "\u00a0\u2003", "\ufeff"):
        left_out(folder, f"d,4,0,{cell}\n", "empty text")


@case(13, "NA, None and NULL as text")
def _(folder):
    words = ["NA", "None", "NULL", "nan", "null", "-", "0"]
    rows = "".join(f"{i},{i},{i % 2},{word}\n" for i, word in enumerate(words))
    assert same_under_both(folder, HEADER + rows) == words


@case(14, "ids such as 007")
def _(folder):
    cohort = fed(folder, HEADER + "007,007,0,x\n7,7,1,y\n7.0,1e3,0,z\n")
    assert cohort.notes["note_id"].to_list() == ["007", "7", "7.0"]
    assert cohort.notes["patient_id"].to_list() == ["007", "7", "1e3"]
    pl.DataFrame({"id": [7.0], "patient": ["1"], "died": ["0"], "text": [CANARY]}).write_parquet(
        folder / "ids.parquet"
    )
    with pytest.raises(DataError, match="column id holds a float"):
        read(source_of(folder / "ids.parquet"))


@case(15, "note of 10 MB")
def _(folder):
    text = f"{CANARY} " + f"{'x' * 99}\n" * 105_000 + "end"
    content = HEADER + f'a,1,0,"{text}"\nb,2,1,y\n'
    assert fed(folder, content).notes["text"].to_list() == [text, "y"]
    stops(folder, content, "line 2: a cell over 1,000 characters", max_note_chars=1_000)


@case(16, "line of 100,000 characters")
def _(folder):
    assert same_under_both(folder, HEADER + f"a,1,0,{'x' * 100_000}\nb,2,1,y\n") == [
        "x" * 100_000,
        "y",
    ]
    stops(folder, GOOD + b"d,4,0," + b"x" * 9_000, "line 5: a line over", max_note_chars=1_000)


@case(17, "note id given twice")
def _(folder):
    left_out(folder, f"b,2,1,{CANARY} two\n", "note id repeated with the same text")
    left_out(folder, f"b,2,1,{CANARY} 2\n", "note id repeated with another text")


@case(18, "rows in another order")
def _(folder):
    rows = [f"n{i},p{i % 9},{i % 2},text {i}\n" for i in range(60)]
    seen = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        cohort = fed(folder, HEADER + "".join(rows))
        assignment = splits.split_patients(cohort.notes["patient_id"], splits.SplitConfig())
        tables = (cohort.notes, cohort.tasks[0][1], assignment)
        seen.append([table.sort(table.columns[0]).hash_rows().to_list() for table in tables])
    assert seen[0] == seen[1] == seen[2]


@case(19, "gzip file cut short")
def _(folder):
    stops(folder, gzip.compress(GOOD)[:-12], "is damaged or cut", "notes.csv.gz")


@case(20, "odd gzip files")
def _(folder):
    stops(folder, gzip.compress(GOOD) + b"garbage", "is damaged or cut", "notes.csv.gz")
    stops(folder, GOOD, "is not compressed by gzip", "notes.csv.gz")
    stops(folder, gzip.compress(GOOD), "is compressed by gzip; name it", "notes.csv")
    members = gzip.compress(GOOD[:40]) + gzip.compress(GOOD[40:])
    assert fed(folder, members, "notes.csv.gz").notes["text"].to_list() == TEXTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_csv, "_FREE_BYTES", 1 << 20)
        rows = "".join(f"{i},4,0,{CANARY * 2_000}\n" for i in range(300))
        bomb = gzip.compress(GOOD + rows.encode())
        stops(folder, bomb, "expands to over 200 times its size", "notes.csv.gz")
    text = random.Random(0).choices("abcdefgh ,", k=3_000_000)
    honest = gzip.compress(GOOD + f'd,4,0,"{"".join(text)}"\n'.encode())
    assert fed(folder, honest, "notes.csv.gz").notes.height == 4


@case(21, "empty file")
def _(folder):
    stops(folder, b"", "is empty")
    stops(folder, gzip.compress(b""), "is empty", "notes.csv.gz")


@case(22, "header and no rows")
def _(folder):
    stops(folder, HEADER, "has a header and no rows")


SITE = {"name": "site", "kind": "multiclass", "column": "died", "classes": ["0", "1", "2"]}


@case(23, "unknown label")
def _(folder):
    left_out(folder, f"d,4,{CANARY},x\n", "unknown class of task site", tasks=[SITE])


@case(24, "missing label")
def _(folder):
    stops(folder, GOOD + b"d,4,,x\n", "line 5: missing label of task death", policies=POLICIES[:1])
    cohort = fed(folder, GOOD + b"d,4,,x\n", **QUARANTINE)
    assert cohort.notes.height == 4
    assert cohort.flow[1].rejected == {"missing label": 1}
    assert cohort.tasks[0][1]["note_id"].to_list() == ["a", "b", "c"]


@case(25, "label that is neither of two")
def _(folder):
    for cell in ("2", "yes", "0.0", "-1", CANARY):
        reason = "label of task death is neither positive nor negative"
        left_out(folder, f"d,4,{cell},x\n", reason)


TASK = outcomes.Task("death", "binary", ("death",))


def labelled(**positives_by_split: list[bool]) -> pl.DataFrame:
    rows = [
        (f"{split}-{i}", ["death"] if is_positive else [], f"{split}-{i}", split)
        for split, positives in positives_by_split.items()
        for i, is_positive in enumerate(positives)
    ]
    names = ["note_id", "labels", "patient_id", "split"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("labels").cast(pl.List(pl.String))
    )


@case(26, "test split with one class")
def _(folder):
    table = labelled(train=[True, False], test=[False, False, False])
    outcomes.check_train_classes(TASK, table)
    assert outcomes.single_class_splits(TASK, table) == ("test",)
    score = auroc_score(np.zeros(3, dtype=np.int8), np.array([0.1, 0.2, 0.3]))
    assert np.isnan(score)


@case(27, "train split with one class")
def _(folder):
    for positives in ([], [True, True], [False]):
        with pytest.raises(DataError, match="train") as caught:
            outcomes.check_train_classes(TASK, labelled(train=positives, test=[True, False]))
        assert_silent(caught.value)


@case(28, "class of one note")
def _(folder):
    rows = "".join(f"n{i},p{i},{int(i == 0)},x\n" for i in range(20))
    cohort = fed(folder, HEADER + rows)
    homes = set()
    for seed in range(30):
        assignment = splits.split_patients(
            cohort.notes["patient_id"], splits.SplitConfig(seed=seed)
        )
        table, _ = splits.split_table(cohort.tasks[0][1], cohort.notes, assignment)
        (home,) = table.filter(pl.col("labels").list.len() == 1)["split"]
        homes.add(home)
        if home == "train":
            outcomes.check_train_classes(TASK, table)
        else:
            with pytest.raises(DataError, match="have the same label"):
                outcomes.check_train_classes(TASK, table)
    assert homes == set(outcomes.SPLITS)


@case(29, "patient in train and test")
def _(folder):
    shared = pl.DataFrame({"patient_id": ["1", "1"], "split": ["train", "test"]})
    with pytest.raises(DataError, match="1 of 1 patients are in more than one split"):
        splits.check_disjoint(shared)
    finding = overlap.shared_patients("train", ["1", "2"], "test", ["1"])
    assert (finding.count, finding.blocks) == (1, True)
    for part in ("train", "validation", "test"):
        (folder / f"{part}.csv").write_text(f"SUBJECT_ID\n1\n{part}\n")
    files = {part: folder / f"{part}.csv" for part in ("train", "validation", "test")}
    with pytest.raises(DataError, match="this patient is already in"):
        splits.split_patients(["1"], splits.OfficialSplit(kind="files", **files))


@case(30, "near-duplicate across splits")
def _(folder):
    note = f"{CANARY} was admitted with chest pain and ruled out for infarction by enzymes " * 4
    found = overlap.near_duplicate_texts(
        "train", signatures([note + "today"]), "test", signatures([note + "tonight", "other"])
    )
    assert (found.count, found.share, found.blocks) == (1, 0.5, False)
    assert CANARY not in str(found)


@case(31, "note after the prediction time")
def _(folder):
    header = "id,patient,died,text,time,from\n"
    rows = "a,1,0,x,2150-01-01,2150-01-02\nb,2,1,y,2150-01-03,2150-01-02\n"
    cohort = fed(
        folder,
        header + rows,
        columns=COLUMNS | {"time": "time"},
        tasks=[DEATH | {"prediction_time": "from"}],
    )
    ((task, table),) = cohort.tasks
    assert table["prediction_time"][0] == datetime(2150, 1, 2)  # noqa: DTZ001
    found = overlap.late_notes(task.name, "test", cohort.notes, table)
    assert (found.count, found.blocks) == (1, True)


@case(32, "labels that meet no note")
def _(folder):
    (folder / "labels.csv").write_text("id,died\na,1\nb,0\n07,1\n")
    table = {"path": folder / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "id", "labels": table}
    rule = "1 of the 3 notes with a label of task death do not exist"
    stops(folder, GOOD, rule, policies=POLICIES[:1], tasks=[task])
    lost = pl.DataFrame({"note_id": ["a", "7"], "labels": [[], []]})
    notes = fed(folder, GOOD).notes
    assignment = pl.DataFrame({"patient_id": ["1"], "split": ["train"]})
    with pytest.raises(DataError, match="note 7 has labels but no patient"):
        splits.split_table(lost, notes, assignment)


@case(33, "halves of characters, other forms, controls, right-to-left")
def _(folder):
    texts = {
        "half \ud800": "half \ufffd",
        "cafe\u0301": "cafe\u0301",
        "bell\a and\x1b[31m red": "bell and[31m red",
        "\u202e\u05e9\u05dc\u05d5\u05dd": "\u202e\u05e9\u05dc\u05d5\u05dd",
    }
    lines = [
        json.dumps({"id": f"e\u0301{i}", "patient": str(i), "died": i % 2, "text": text})
        for i, text in enumerate(texts)
    ]
    cohort = fed(folder, "\n".join(lines), "notes.jsonl")
    assert cohort.notes["text"].to_list() == list(texts.values())
    assert cohort.notes["note_id"].to_list() == [f"\xe9{i}" for i in range(4)]
    for name in ("a\ud800", "a\nb", "a\x07", "a\u202eb"):
        bad = json.dumps({"id": name, "patient": "1", "died": 0, "text": CANARY})
        rule = "line 5: control characters in column id"
        stops(folder, "\n".join([*lines, bad]), rule, "notes.jsonl", POLICIES[:1])
        cohort = fed(folder, "\n".join([*lines, bad]), "notes.jsonl", **QUARANTINE)
        assert cohort.notes.height == 4


@case(34, "formula in a cell")
def _(folder):
    formula = '=cmd|"/c calc"!A1'
    quoted = formula.replace('"', '""')
    cohort = fed(folder, HEADER + f'"{quoted}",1,0,"{quoted}"\nb,2,1,y\n')
    assert cohort.notes.row(0)[0] == cohort.notes.row(0)[4] == formula
    cohort = fed(folder, HEADER + f'"{quoted}",1,0,\nb,2,1,y\n', **QUARANTINE)
    write_rejections(cohort.rejections, folder / "out.csv")
    with (folder / "out.csv").open(newline="") as file:
        assert [row["note_id"] for row in csv.DictReader(file)] == [f"'{formula}"]


@case(35, "path that is no readable file")
def _(folder):
    (folder / "folder.csv").mkdir()
    os.mkfifo(folder / "pipe.csv")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "locked.csv").write_bytes(GOOD)
    (folder / "locked.csv").chmod(0)
    rules = {"none": "is missing", "folder": "leads to no", "pipe": "not a regular", "loop": "loop"}
    for name, rule in rules.items():
        for policy in POLICIES:
            with pytest.raises(DataError, match=rule):
                read(source_of(folder / f"{name}.csv", **policy))
    if os.geteuid():
        with pytest.raises(DataError, match="cannot be read"):
            read(source_of(folder / "locked.csv"))


@case(36, "file that changes while it is read")
def _(folder):
    path = folder / "notes.csv"
    for policy in POLICIES:
        path.write_bytes(GOOD)
        rows = strict_csv.read_rows(path, ["text"])
        next(rows)
        with path.open("ab") as file:
            file.write(f"d,4,0,{CANARY}\n".encode())
        with pytest.raises(DataError, match="was changed while it was read") as caught:
            list(rows)
        assert_silent(caught.value)
        assert read(source_of(path, **policy)).notes.height == 4


@case(37, "semicolons or tabs")
def _(folder):
    stops(folder, GOOD.replace(b",", b";"), "it seems separated by semicolons")
    stops(folder, GOOD.replace(b",", b"\t"), "it seems separated by tabs")


@case(38, "mixed line ends")
def _(folder):
    lines = GOOD.split(b"\n")
    mixed = b"\r\n".join(lines[:2]) + b"\n" + b"\r\n".join(lines[2:])
    assert same_under_both(folder, mixed) == TEXTS
    stops(folder, GOOD + f"d,4,0,{CANARY}\re,5,0,x\n".encode(), "line 5: a lone carriage return")


@case(39, "10,000 columns")
def _(folder):
    names = ",".join(f"c{i}" for i in range(10_000))
    cells = "," * 9_999
    wide = HEADER.replace("\n", f",{names}\n") + f"a,1,0,{CANARY},{cells}\nb,2,1,y,{cells}\n"
    assert same_under_both(folder, wide) == [CANARY, "y"]


@case(40, "comma in a cell without quotes")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY}, seen today\n", "long row")


def test_the_catalogue_has_its_forty_cases():
    assert sorted(CASES) == list(range(1, 41))


@pytest.mark.parametrize("number", sorted(CASES), ids=lambda number: f"{number} {CASES[number][0]}")
def test_case(number, tmp_path, capfd, caplog):
    CASES[number][1](tmp_path)
    shown = "".join(capfd.readouterr()) + caplog.text
    assert not [form for form in encodings_of(CANARY) if form in shown]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.sampled_from(
            [b"a", b"1", b",", b",", b"\n", b"\n", b"\r", b'"', b'"', b"\0", b"\xff", b"\xc3\xa9"]
        ),
        max_size=60,
    )
)
def test_any_bytes_are_read_with_balanced_counts_or_refused_in_one_silent_line(tmp_path, pieces):
    data = HEADER.encode() + b"".join(pieces)
    (tmp_path / "notes.csv").write_bytes(data)
    for limit in (0.0, 1.0):
        policy = {"policy": "quarantine", "max_rejected_share": limit}
        source = source_of(tmp_path / "notes.csv", tasks=[], **policy)
        try:
            stream = open_notes(source)
            kept = sum(chunk.height for chunk in stream.chunks)
        except DataError as error:
            assert_silent(error)
            continue
        flow = stream.finish().flow[0]
        assert flow.kept == kept
        assert flow.read == kept + stream.finish().rejections.height
        if limit == 0.0:  # then nothing was rejected, and the csv module must agree
            rows = list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
            assert flow.read == len(rows)
