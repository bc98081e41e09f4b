"""Bad input, the cases of files: their names, bytes, headers and rows."""

import gzip
import os
import random

import pytest
from catalogue import (
    CANARY,
    GOOD,
    HEADER,
    POLICIES,
    QUARANTINE,
    ROWS,
    TEXTS,
    Cases,
    assert_silent,
    fed,
    left_out,
    same_under_both,
    source_of,
    stops,
)

from notetune import strict_csv
from notetune.errors import DataError
from notetune.sources import read

CASES = Cases()


@CASES.case(1, "missing column")
def _(folder):
    stops(folder, GOOD.replace(b"text", b"body", 1), "line 1: no column 'text' among 4")


@CASES.case(2, "duplicate header")
def _(folder):
    stops(folder, GOOD.replace(b"died", b"TEXT", 1), "columns 3 and 4 have the same name")


@CASES.case(3, "byte order mark")
def _(folder):
    assert same_under_both(folder, b"\xef\xbb\xbf" + GOOD) == TEXTS


@CASES.case(4, "Latin-1 byte")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY} caf\xe9\n".encode("latin-1"), "bytes that are not UTF-8")
    row = f'd,4,0,"{CANARY}\ncaf\xe9\n{CANARY}"\n'.encode("latin-1")
    cohort = fed(folder, HEADER.encode() + row + ROWS.encode(), **QUARANTINE)
    assert cohort.rejections.row(0)[1:] == (2, None, "bytes that are not UTF-8")
    assert cohort.notes["text"].to_list() == TEXTS


@CASES.case(5, "UTF-16")
def _(folder):
    stops(folder, GOOD.decode().encode("utf-16"), "line 1: the file is UTF-16")
    stops(folder, GOOD.decode().encode("utf-16-le"), "line 1: NUL byte")


@CASES.case(6, "NUL byte")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY}\0\n", "NUL byte")


@CASES.case(7, "quoted newline")
def _(folder):
    texts = same_under_both(folder, HEADER + f'a,1,0,"{CANARY}\n\nb,2,1,x"\nb,2,1,y\n')
    assert texts == [f"{CANARY}\n\nb,2,1,x", "y"]


@CASES.case(8, "CRLF inside quotes, LF outside")
def _(folder):
    texts = same_under_both(folder, HEADER + f'a,1,0,"{CANARY}\r\ntwo\rthree"\nb,2,1,y\n')
    assert texts == [f"{CANARY}\ntwo\nthree", "y"]


@CASES.case(9, "quote that never closes")
def _(folder):
    stops(folder, GOOD + f'd,4,0,"{CANARY}\ne,5,1,x\n'.encode(), "line 5: a quote opens here")
    stops(folder, GOOD + f'd,4,0,"{CANARY}" x\n'.encode(), "line 5: text follows a closing quote")


@CASES.case(10, "short row")
def _(folder):
    left_out(folder, f"d,4,{CANARY}\n", "short row")
    assert same_under_both(folder, GOOD + b"\n\r\n") == same_under_both(folder, GOOD)
    between = GOOD + b"\n" + f"d,4,0,{CANARY}\n".encode()
    stops(folder, between, "line 5: blank line", policies=POLICIES[:1])
    assert fed(folder, between, **QUARANTINE).flow[0].rejected == {"blank line": 1}


@CASES.case(11, "long row")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY},\n", "long row")


@CASES.case(15, "note of 10 MB")
def _(folder):
    text = f"{CANARY} " + f"{'x' * 99}\n" * 105_000 + "end"
    content = HEADER + f'a,1,0,"{text}"\nb,2,1,y\n'
    assert fed(folder, content).notes["text"].to_list() == [text, "y"]
    stops(folder, content, "line 2: a cell over 1,000 characters", max_note_chars=1_000)


@CASES.case(16, "line of 100,000 characters")
def _(folder):
    assert same_under_both(folder, HEADER + f"a,1,0,{'x' * 100_000}\nb,2,1,y\n") == [
        "x" * 100_000,
        "y",
    ]
    stops(folder, GOOD + b"d,4,0," + b"x" * 9_000, "line 5: a line over", max_note_chars=1_000)


@CASES.case(19, "gzip file cut short")
def _(folder):
    stops(folder, gzip.compress(GOOD)[:-12], "is damaged or cut", "notes.csv.gz")


@CASES.case(20, "odd gzip files")
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


@CASES.case(21, "empty file")
def _(folder):
    stops(folder, b"", "is empty")
    stops(folder, gzip.compress(b""), "is empty", "notes.csv.gz")


@CASES.case(22, "header and no rows")
def _(folder):
    stops(folder, HEADER, "has a header and no rows")


@CASES.case(35, "path that is no readable file")
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


@CASES.case(36, "file that changes while it is read")
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


@CASES.case(37, "semicolons, tabs or bars")
def _(folder):
    for mark in (b";", b"\t", b"|"):
        assert same_under_both(folder, GOOD.replace(b",", mark)) == TEXTS


@CASES.case(38, "mixed line ends")
def _(folder):
    lines = GOOD.split(b"\n")
    mixed = b"\r\n".join(lines[:2]) + b"\n" + b"\r\n".join(lines[2:])
    assert same_under_both(folder, mixed) == TEXTS
    stops(folder, GOOD + f"d,4,0,{CANARY}\re,5,0,x\n".encode(), "line 5: a lone carriage return")


@CASES.case(39, "10,000 columns")
def _(folder):
    names = ",".join(f"c{i}" for i in range(10_000))
    cells = "," * 9_999
    wide = HEADER.replace("\n", f",{names}\n") + f"a,1,0,{CANARY},{cells}\nb,2,1,y,{cells}\n"
    assert same_under_both(folder, wide) == [CANARY, "y"]


@CASES.case(40, "comma in a cell without quotes")
def _(folder):
    left_out(folder, f"d,4,0,{CANARY}, seen today\n", "long row")
