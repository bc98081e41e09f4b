"""Malformed tables: CSV, JSON lines and Parquet."""

import json
from datetime import date, datetime, time
from decimal import Decimal

import polars as pl

from malformed.cases import (
    Case,
    added,
    all_of,
    cut,
    frame,
    line,
    nothing,
    put,
    swapped,
    turned,
    without,
    zipped,
)
from malformed.recipes import PREPARE
from malformed.valid import CANARY, NOTES

_CSV, _JSONL, _PARQUET = "notes.csv", "notes.jsonl", "notes.parquet"
JSONL = f"{PREPARE} prepare.source.path={_JSONL}"
PARQUET = f"{PREPARE} prepare.source.path={_PARQUET}"
_GZ = f"{PREPARE} prepare.source.path=notes.csv.gz"
_LENIENT = "prepare.source.policy=quarantine prepare.source.max_rejected_share=0.5"
_INIT = "init notes.csv -o new.yaml"
_N01 = f"n01,100,2150-01-02 08:00:00,51,b,{NOTES['n01'][1]},1"


def _row(old: str, new: str) -> object:
    """The last such part of the row of note n01 replaced."""
    start, _, end = _N01.rpartition(old)
    return swapped(_CSV, _N01, f"{start}{new}{end}")


def _is_note(name: str, **changes: str) -> dict[str, tuple[str, str, str]]:
    patient, text, died = NOTES[name]
    kept = {"patient": patient, "text": text, "died": died} | changes
    return {name: tuple(kept.values())}


CSV = [
    Case("quote that never closes", _row(NOTES["n01"][1], f'"{CANARY}'), "line 3: a quote opens here and never closes; close or double it"),
    Case("short row", _row(",1", ""), "line 3: short row: 6 cells where the header has 7; quote every cell"),
    Case("bytes that are no gzip", put("notes.csv.gz", "note,patient\n"), "is not compressed by gzip", _GZ),
    Case("empty", put(_CSV, ""), "notes.csv is empty; it needs a header and at least one row"),
    Case("one line break", put(_CSV, "\n"), "notes.csv, line 1: blank line; remove it"),
    Case("spaces alone", put(_CSV, "   \n  \n"), "no column 'note' among 1"),
    Case("commas alone", put(_CSV, ",,,\n,,,\n"), "columns 1 and 2 have the same name"),
    Case("header alone", put(_CSV, "note,patient,time,text,died\n"), "has a header and no rows; is it the complete file?"),
    Case("no header", swapped(_CSV, "note,patient,time,age,ward,text,died\n", ""), "line 1: no column 'note' among 7; name one that is there"),
    Case("blank line in the middle", _row("n01,100", "\nn01,100"), "line 3: blank line; remove it"),
    Case("blank lines at the end", added(_CSV, "\n\r\n\n"), status=0),
    Case("long row", _row(",1", ",1,2"), "line 3: long row: 8 cells where the header has 7"),
    Case("text after a quote", _row(NOTES["n01"][1], f'"{CANARY}" {CANARY}'), "line 3: text follows a closing quote"),
    Case("NUL", _row("100", "1\x0000"), "line 3: NUL byte (UTF-16, or damage)"),
    Case("UTF-16", turned(_CSV, lambda t: t.decode().encode("utf-16")), "line 1: the file is UTF-16; save it as UTF-8"),
    Case("UTF-16 without a mark", turned(_CSV, lambda t: t.decode().encode("utf-16-le")), "line 1: NUL byte"),
    Case("UTF-32", turned(_CSV, lambda t: t.decode().encode("utf-32")), "line 1: the file is UTF-16; save it as UTF-8"),
    Case("Latin-1", turned(_CSV, lambda t: t.replace(b"fever", b"fi\xe8vre", 1)), "bytes that are not UTF-8; save the file as UTF-8"),
    Case("byte order mark", turned(_CSV, lambda t: b"\xef\xbb\xbf" + t), status=0),
    Case("Windows line ends", swapped(_CSV, "\n", "\r\n", -1), status=0),
    Case("line ends of old Macs", swapped(_CSV, "\n", "\r", -1), "line 1: a lone carriage return outside quotes"),
    Case("header in capitals", swapped(_CSV, "note,patient,time", "NOTE,Patient, TIME"), status=0),
    Case("column given twice", swapped(_CSV, "age,ward", "text,ward"), "columns 4 and 6 have the same name; rename one of them"),
    Case("cell of 21 million characters", _row(CANARY, "x" * 21_000_000), "line 3: a cell over 20,000,000 characters"),
    Case("10,000 columns more", swapped(_CSV, ",died\n", ",died" + "".join(f",c{n}" for n in range(10_000)) + "\n"), "line 2: short row: 7 cells where the header has 10007"),
    Case("semicolons", swapped(_CSV, ",", ";", -1), status=0),
    Case("tabs", swapped(_CSV, ",", "\t", -1), status=0),
    Case("packed but not named so", all_of(zipped(_CSV), lambda f: (f / "notes.csv.gz").rename(f / _CSV)), "is compressed by gzip; name it notes.csv.gz"),
    Case("gzip cut short", zipped(_CSV, lambda data: data[:-9]), "the compressed file is damaged or cut; copy it again", _GZ),
    Case("gzip with a byte changed", zipped(_CSV, lambda data: data[:40] + b"\xff\xff\xff" + data[43:]), "notes.csv.gz, line 1: the compressed file is damaged or cut", _GZ),
    Case("gzip in gzip", all_of(zipped(_CSV), lambda f: (f / "notes.csv.gz").rename(f / "notes.csv.gz.csv"), zipped("notes.csv.gz.csv")), "notes.csv.gz.csv.gz, line 1: NUL byte (UTF-16, or damage)", f"{PREPARE} prepare.source.path=notes.csv.gz.csv.gz"),
    Case("years 1 and 9999", all_of(_row("2150-01-02 08:00:00", "0001-01-01T00:00:00+14:00"), swapped(_CSV, "2150-01-02 08:00:00", "9999-12-31T23:59:59-12:00")), "line 2: unreadable time; write times as 2164-10-23 21:09:00"),
    Case("first and last second of all years", all_of(_row("2150-01-02 08:00:00", "0001-01-01 00:00:00"), swapped(_CSV, "2150-01-02 08:00:00", "9999-12-31 23:59:59")), status=0),
    Case("time in American form", _row("2150-01-02 08:00:00", "01/02/2150 8:00 AM"), "line 3: unreadable time"),
    Case("time in words", _row("2150-01-02 08:00:00", "yesterday"), "line 3: unreadable time"),
    Case("time in seconds since 1970", _row("2150-01-02 08:00:00", "5680310400"), "line 3: unreadable time"),
    Case("time of a leap second", _row("08:00:00", "08:00:60"), "line 3: unreadable time"),
    Case("29 February of no leap year", _row("2150-01-02", "2150-02-29"), "line 3: unreadable time"),
    Case("word for missing as note id", _row("n01", "NULL"), "line 3: missing note id; name the note"),
    Case("word for missing as patient", _row("100", "nan"), "line 3: missing patient id"),
    Case("word for missing as text", _row(NOTES["n01"][1], "NA"), "line 3: empty text; fill in the text or remove the row"),
    Case("spaces as text", _row(NOTES["n01"][1], "\u00a0 \u2003"), "line 3: empty text"),
    Case("label outside", _row(",1", ",2"), "label of task died is neither positive nor negative; write 0 or 1"),
    Case("label missing", _row(",1", ","), "line 3: missing label of task died; fill in the label"),
    Case("label in words", _row(",1", ",yes"), "label of task died is neither positive nor negative"),
    Case("label with a decimal", _row(",1", ",1.0"), "label of task died is neither positive nor negative"),
    Case("patient with a decimal", _row("100", "100.0"), notes=_is_note("n01", patient="100.0"), status=0),
    Case("ids that differ by spaces", _row("n01", " n00 "), "line 3: note id repeated with another text; give each note its own id"),
    Case("spaces around an id", _row("n01", " n01 "), status=0),
    Case("ids of two Unicode forms", all_of(_row("n01", "e\u0301"), swapped(_CSV, "n02", "\u00e9")), "note id repeated with another text"),
    Case("note id twice with other text", _row("n01", "n00"), "note id repeated with another text"),
    Case("row twice", added(_CSV, f"{_N01}\n"), "line 42: note id repeated with the same text"),
    Case("id of 300 characters", _row("n01", "n" * 300), "the note id in column note has 300 characters; an id is one line of at most 200"),
    Case("id of two lines", _row("n01", '"n\n01"'), "control characters in column note; remove them"),
    Case("id that colours", _row("n01", "n\x1b[31m"), "control characters in column note"),
    Case("id in another writing direction", _row("n01", "n\u202e01"), "control characters in column note"),
    Case("text column named as id", turned(_CSV, lambda t: t.replace(b" fever", b" fever" * 50)), "the note id in column text has", f"{PREPARE} prepare.source.columns.note_id=text"),
    Case("two patients", nothing, "2 patients are too few", f"{PREPARE} prepare.source.columns.patient_id=ward"),
    Case("all of one label", swapped(_CSV, ",1\n", ",0\n", -1), "same label"),
    Case("one note", put(_CSV, f"note,patient,time,age,ward,text,died\n{_N01}\n"), "1 patients are too few"),
    Case("bad rows to leave out", all_of(_row(",1", ",2"), swapped(_CSV, "n04,102", ",102")), status=0, command=f"{PREPARE} {_LENIENT}", notes={"n01": None, "n04": None}),
    Case("too many bad rows", swapped(_CSV, ",1\n", ",9\n", -1), "20 of 40 rows cannot be used", f"{PREPARE} prepare.source.policy=quarantine prepare.source.max_rejected_share=0.4"),
    Case("formula as an id", _row("n01", "=1+1"), status=0, notes={"n01": None, "=1+1": NOTES["n01"]}),
    Case("a folder", all_of(without(_CSV), lambda f: (f / _CSV).mkdir()), "notes.csv leads to no .parquet file"),
    Case("missing", without(_CSV), "notes.csv is missing; check the path"),
    Case("a link to itself", all_of(without(_CSV), lambda f: (f / _CSV).symlink_to(_CSV)), "notes.csv"),
    Case("another name", nothing, "is no .csv, .csv.gz, .jsonl, .jsonl.gz, .parquet file; convert it", f"{PREPARE} prepare.source.path=recipe.yaml"),
    Case("limit of notes beyond 64 bits", nothing, "a whole number over", f"{PREPARE} prepare.source.max_note_chars={10**19}"),
    Case("largest limit of notes", nothing, status=0, command=f"{PREPARE} prepare.source.max_note_chars={10**15}"),
    Case("first look at nothing", put(_CSV, "\n"), "notes.csv, line 1: blank line; remove it", _INIT),
    Case("first look at no header", swapped(_CSV, "note,patient,time,age,ward,text,died\n", ""), "give one first line of names", _INIT),
    Case("first look at ragged rows", turned(_CSV, lambda t: t.replace(b",1\n", b"\n", 9)), status=0, command=_INIT, said="The columns by the first 31 rows"),
    Case("first look at numbers beyond all", _row("51", "9" * 5000), status=0, command=_INIT, said="The columns by the first 40 rows"),
    Case("prediction without a column", nothing, "no column 'words' among 7", "predict words notes.csv --text words"),
    Case("prediction of a faulty row", _row(NOTES["n01"][1], ""), "line 3: empty text", "predict words notes.csv"),
    Case("prediction of a faulty column", _row("51", f'"{CANARY} 51"'), "training had numbers alone there", "predict columns notes.csv"),
    Case("prediction into the notes", nothing, "notes.csv exists already and would be overwritten", "predict words notes.csv -o notes.csv"),
    Case("prediction into another kind of file", nothing, "output scores.txt is neither .csv nor .parquet", "predict words notes.csv -o scores.txt"),
]  # fmt: skip


def _cell(column: str, value: object, number: int = 1) -> object:
    """Another value in a line of JSON."""
    return line(_JSONL, number, lambda row: {**row, column: value})


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _raw(old: str, new: str) -> object:
    return swapped(_JSONL, old, new)


JSON_LINES = [
    Case("broken line", _raw('"n01"', '"n01'), "notes.jsonl, line 2: not a JSON object in UTF-8; write one object a line"),
    Case("line that is a list", line(_JSONL, 1, lambda row: [row]), "line 2: not a JSON object"),
    Case("nested id", _cell("note", {"id": "n01"}), "column note holds a dict; store ids and labels as text or whole numbers"),
    Case("line that is null", line(_JSONL, 1, lambda _: None), "line 2: not a JSON object"),
    Case("one document over all lines", turned(_JSONL, lambda t: json.dumps([json.loads(one) for one in t.splitlines()], indent=1).encode()), "line 1: not a JSON object"),
    Case("objects without line breaks", swapped(_JSONL, "\n", " ", -1), "line 1: not a JSON object"),
    Case("blank line", _raw("}\n", "}\n\n"), "line 2: not a JSON object"),
    Case("empty", put(_JSONL, ""), "notes.jsonl"),
    Case("empty object", put(_JSONL, "{}\n"), "line 1: no key note"),
    Case("a key missing", line(_JSONL, 1, lambda row: {k: v for k, v in row.items() if k != "patient"}), "line 2: no key patient; give it in every line, null if none"),
    Case("key given twice", _raw('{"note": "n01",', '{"note": "n00", "note": "n01",'), status=0),
    Case("nested text", _cell("text", [CANARY]), "column text is not text; name the text column"),
    Case("text that is a number", _cell("text", 7), "column text is not text"),
    Case("text that is empty", _cell("text", ""), "line 2: empty text"),
    Case("text that is null", _cell("text", None), "line 2: empty text"),
    Case("NaN as an id", _raw('"n01"', "NaN"), "line 2: missing note id"),
    Case("infinity as an id", _raw('"n01"', "-Infinity"), "column note holds a float"),
    Case("decimal id", _cell("note", 1.0), "column note holds a float"),
    Case("answer as an id", _cell("patient", value=True), notes=_is_note("n01", patient="1"), status=0),
    Case("number of 4,000 digits as an id", _raw('"n01"', "9" * 4000), "the note id in column note has 4000 characters"),
    Case("number of 5,000 digits as an id", _raw('"n01"', "9" * 5000), "line 2: not a JSON object"),
    Case("number beyond all as a time", _cell("time", 10**30), "line 2: unreadable time"),
    Case("list as a time", _cell("time", [2150]), "line 2: unreadable time"),
    Case("list as a label", _cell("died", [1]), status=0),
    Case("object as a label", _cell("died", {"died": 1}), "column died holds a dict"),
    Case("half of a character as an id", _cell("note", "n\ud800"), "control characters in column note"),
    Case("half of a character in a text", _cell("text", f"{NOTES['n01'][1]} \ud800"), notes=_is_note("n01", text=f"{NOTES['n01'][1]} \ufffd"), status=0),
    Case("depth of 100,000", _raw('"n01"', _nested(100_000)), "line 2: not a JSON object"),
    Case("half of a character in a key", swapped(_JSONL, '"age"', '"a\\ud800"', -1), status=0),
    Case("half of a character in a name", swapped(_JSONL, '"age"', '"a\\ud800"', -1), status=0, command="init notes.jsonl -o new.yaml", said="printable characters are left out: 1"),
    Case("Latin-1", turned(_JSONL, lambda t: t.replace(b"fever", b"fi\xe8vre", 1)), "not a JSON object in UTF-8"),
    Case("UTF-16", turned(_JSONL, lambda t: t.decode().encode("utf-16")), "line 1: the file is UTF-16"),
    Case("byte order mark", turned(_JSONL, lambda t: b"\xef\xbb\xbf" + t), status=0),
    Case("bad lines to leave out", all_of(_raw('"n01"', '"n01'), line(_JSONL, 3, lambda _: 7)), status=0, command=f"{JSONL} {_LENIENT}", notes={"n01": None, "n03": None}),
    *(
        Case(f"first look at depth {depth}", swapped(_JSONL, '"ward": "b"', f'"ward": {_nested(depth)}', -1), status=0, command="init notes.jsonl -o new.yaml", said="The columns by the first")
        for depth in (800, 900, 940)
    ),
]  # fmt: skip


def _column(name: str, values: pl.Series | pl.Expr) -> object:
    return frame(_PARQUET, lambda table: table.with_columns(values.alias(name)))


_STRUCT = pl.struct(pl.col("note").alias("id"))

PARQUET_FILES = [
    Case("cut short", cut(_PARQUET, 0.7), "notes.parquet is not a readable Parquet file; write it again"),
    Case("empty", put(_PARQUET, ""), "notes.parquet is not a readable Parquet file"),
    Case("no rows", frame(_PARQUET, lambda t: t.clear()), "notes.parquet"),
    Case("CSV under its name", lambda f: (f / _PARQUET).write_bytes((f / _CSV).read_bytes()), "is not a readable Parquet file"),
    Case("encrypted", turned(_PARQUET, lambda t: b"PARE" + t[4:-4] + b"PARE"), "is not a readable Parquet file"),
    Case("length of the footer beyond the file", turned(_PARQUET, lambda t: t[:-8] + b"\xff\xff\xff\x7fPAR1"), "is not a readable Parquet file"),
    Case("negative length of the footer", turned(_PARQUET, lambda t: t[:-8] + b"\xff\xff\xff\xffPAR1"), "is not a readable Parquet file"),
    Case("zeros in the middle", turned(_PARQUET, lambda t: t[:200] + b"\0" * 100 + t[300:]), "is not a readable Parquet file"),
    Case("zeros in the footer", turned(_PARQUET, lambda t: t[:-300] + b"\0" * 100 + t[-200:]), "is not a readable Parquet file"),
    Case("a column missing", frame(_PARQUET, lambda t: t.drop("patient")), "no column 'patient' among 6; there are note, time"),
    Case("columns that differ by case", frame(_PARQUET, lambda t: t.with_columns(NOTE=pl.col("note"))), "columns note and NOTE differ by case; rename one"),
    Case("capitals", frame(_PARQUET, lambda t: t.rename(str.upper)), status=0),
    Case("decimal ids", _column("note", pl.int_range(40) + 0.5), "column note holds a float; store ids and labels"),
    Case("fixed decimals as ids", _column("note", pl.Series([Decimal(n) / 2 for n in range(40)])), "column note holds a float"),
    Case("binary text", _column("text", pl.col("text").cast(pl.Binary)), "column text is not text; name the text column"),
    Case("binary ids", _column("note", pl.col("note").cast(pl.Binary)), "column note holds a bytes"),
    Case("dictionary of texts", _column("text", pl.col("text").cast(pl.Categorical)), status=0),
    Case("categories as labels", _column("died", pl.col("died").cast(pl.String).cast(pl.Enum(["0", "1"]))), status=0),
    Case("nested ids", _column("note", _STRUCT), "column note holds a dict"),
    Case("nested text", _column("text", _STRUCT), "column text is not text"),
    Case("lists as ids", _column("note", pl.concat_list("note")), "column note holds a list"),
    Case("arrays as ids", _column("note", pl.concat_list("note").list.to_array(1)), "column note holds a"),
    Case("lists as labels", _column("died", pl.concat_list("died")), status=0),
    Case("whole numbers as patients", _column("patient", pl.col("patient").cast(pl.Int64)), status=0),
    Case("answers as labels", _column("died", pl.col("died").cast(pl.Boolean)), status=0),
    Case("nulls as ids", _column("note", pl.lit(None)), "row 1: missing note id"),
    Case("times with a zone", _column("time", pl.col("time").dt.replace_time_zone("Europe/Berlin")), status=0),
    Case("nanoseconds", _column("time", pl.col("time").dt.cast_time_unit("ns")), status=0),
    Case("days as times", _column("time", pl.lit(date(2150, 1, 2))), status=0),
    Case("times of day as times", _column("time", pl.lit(time(8))), "row 1: unreadable time"),
    Case("durations as times", _column("time", pl.col("time") - datetime(2150, 1, 1)), "row 1: unreadable time"),  # noqa: DTZ001
    Case("times beyond all years", _column("time", pl.lit(2**62).cast(pl.Datetime("us"))), "notes.parquet holds a time outside of the years 1 to 9999; mend it"),
    Case("a folder of none", all_of(without(_PARQUET), lambda f: (f / _PARQUET).mkdir()), "leads to no .parquet file"),
    Case("first look at a cut one", cut(_PARQUET, 0.7), "is not a readable Parquet file", "init notes.parquet -o new.yaml"),
    Case("first look at nested columns", frame(_PARQUET, lambda t: t.with_columns(_STRUCT.alias("ward"), age=pl.concat_list("age"), time=pl.col("text").cast(pl.Binary))), status=0, command="init notes.parquet -o new.yaml", said="The columns by the first 40 rows"),
    Case("prediction of binary text", _column("text", pl.col("text").cast(pl.Binary)), "column text is not text", "predict words notes.parquet"),
]  # fmt: skip
