"""Malformed exports: FHIR, MEDS and OMOP."""

import base64
import gzip
import json

import polars as pl

from malformed.cases import (
    Case,
    Make,
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
)
from malformed.valid import CANARY, NOTES, attachment

FHIR, MEDS, OMOP = (f"prepare {kind}.yaml --json" for kind in ("fhir", "meds", "omop"))
_DOCUMENTS = "fhir/DocumentReference.ndjson"
_SHARD = "meds/data/train/0.parquet"
_TABLE = "omop.csv"


def _document(**changes: object) -> Make:
    """The document of note n01 with other values."""
    return line(_DOCUMENTS, 1, lambda resource: resource | changes)


def _content(*content: dict) -> Make:
    return _document(content=list(content))


def _packed(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(data).decode()


def _nested(depth: int) -> dict:
    section: dict = {"text": {"div": f"<div>{CANARY}</div>"}}
    for _ in range(depth):
        section = {"section": [section]}
    return section


def _composition(**changes: object) -> dict:
    kept = {"resourceType": "Composition", "id": "c1", "status": "final"}
    return {**kept, "subject": {"reference": "Patient/100"}, **changes}


def _encounters(*resources: dict) -> Make:
    """Labels from encounters of the export instead of a table."""
    lines = "".join(json.dumps({"resourceType": "Encounter"} | one) + "\n" for one in resources)
    return all_of(
        put("Encounter.ndjson", lines),
        swapped("fhir.yaml", "column: id", "column: patient"),
        swapped("fhir.yaml", "labels.csv, id_column: id, label_column: died", "Encounter.ndjson, id_column: patient, label_column: expired, absent: negative"),
    )  # fmt: skip


def _stay(patient: str = "100", **changes: object) -> dict:
    return {"id": f"e{patient}", "subject": {"reference": f"Patient/{patient}"}, **changes}


def _discharged(code: object, **more: object) -> dict:
    return {"hospitalization": {"dischargeDisposition": {"coding": [{"code": code, **more}]}}}


_LEFT_OUT = {"n01": None}
_LENIENT = "prepare.source.policy=quarantine"
"""A label for no note is counted then."""

FHIR_FILES = [
    Case("attachment that is no base64", _content(attachment("text/plain", data="%%%")), "line 2: attachment is not base64; export it again"),
    Case("no attachment", _content(), "line 2: no attachment of text; export it as text/plain"),
    Case("kind of resource that is a list", _document(resourceType=["DocumentReference"]), notes=_LEFT_OUT, status=0, command=f"{FHIR} {_LENIENT}"),
    Case("another kind of resource", _document(resourceType="Patient"), notes=_LEFT_OUT, status=0, command=f"{FHIR} {_LENIENT}"),
    Case("all of another kind", swapped(_DOCUMENTS, "DocumentReference", "Observation", -1), "none of its 40 rows can be used"),
    Case("a Bundle instead of lines", turned(_DOCUMENTS, lambda t: json.dumps({"resourceType": "Bundle", "entry": [{"resource": json.loads(one)} for one in t.splitlines()]}).encode()), status=0),
    Case("a Bundle over several lines", turned(_DOCUMENTS, lambda t: json.dumps({"resourceType": "Bundle", "entry": [{"resource": json.loads(one)} for one in t.splitlines()]}, indent=1).encode()), "line 1: not a JSON object in UTF-8; write one object a line"),
    Case("broken line", swapped(_DOCUMENTS, '"n01"', '"n01'), "line 2: not a JSON object"),
    Case("depth of 100,000", swapped(_DOCUMENTS, '{"text": "note"}', "[" * 100_000 + "]" * 100_000), "line 1: not a JSON object"),
    Case("no status", _document(status=None), "line 2: no known status; write one of current"),
    Case("status that is an object", _document(status={"code": "current"}), "line 2: no known status"),
    Case("superseded", _document(status="superseded"), notes=_LEFT_OUT, status=0, command=f"{FHIR} {_LENIENT}"),
    Case("entered in error", _document(docStatus="entered-in-error"), notes=_LEFT_OUT, status=0, command=f"{FHIR} {_LENIENT}"),
    Case("no patient", _document(subject=None), "line 2: missing patient id; let subject refer to a Patient"),
    Case("patient that is a group", _document(subject={"reference": "Group/1"}), "missing patient id"),
    Case("patient of another server", _document(subject={"reference": "https://a.b/fhir/Patient/100/_history/2"}), status=0),
    Case("patient that is a list", _document(subject=[{"reference": "Patient/100"}]), "missing patient id"),
    Case("no id", _document(id=None), "line 2: missing note id"),
    Case("id that is a number", _document(id=1), status=0, notes={"n01": None}, command=f"{FHIR} prepare.source.policy=quarantine"),
    Case("id that is a list", _document(id=["n01"]), "column id holds a list"),
    Case("time in words", _document(date="yesterday"), "line 2: unreadable time"),
    Case("a year as the time", _document(date="2150"), "line 2: unreadable time"),
    Case("rich text", _content(attachment("application/rtf", data=_packed("{\\rtf1 " + CANARY + "}"))), "attachment of application/rtf alone; export it as text/plain or text/html"),
    Case("rich text called plain", _content(attachment("text/plain", data=_packed("{\\rtf1 " + CANARY + "}"))), "line 2: attachment of application/rtf alone"),
    Case("a picture", _content(attachment("image/png", data=_packed(b"\x89PNG"))), "attachment of image/png alone"),
    Case("unknown charset", _content(attachment("text/plain; charset=klingon", data=_packed(CANARY))), "attachment in an unknown charset; export it in UTF-8"),
    Case("charset that runs a decoder", _content(attachment("text/plain; charset=rot13", data=_packed(CANARY))), "attachment in an unknown charset"),
    Case("another charset than it says", _content(attachment("text/plain; charset=utf-8", data=_packed(f"{CANARY} \xe9".encode("latin-1")))), "attachment is not in its charset"),
    Case("url of a network", _content(attachment("text/plain", url="https://a.b/c.txt")), "attachment without data or url to a Binary or file"),
    Case("url that leads out", _content(attachment("text/plain", url="attachments/../../recipe.yaml")), "attachment url that leads to no file in attachments/; mend the url"),
    Case("url of 5,000 characters", _content(attachment("text/plain", url=f"attachments/{'a' * 5000}")), "no such attachment file"),
    Case("url with NUL", _content(attachment("text/plain", url="attachments/a%00b")), "attachment url that leads to no file"),
    Case("url of a port that is none", _content(attachment("text/plain", url="http://[::1")), "line 2: attachment without data or url to a Binary or file"),
    Case("Binary that is not there", _content(attachment("text/plain", url="Binary/7")), "no such Binary; set binaries"),
    Case("content that is an object", _document(content={"attachment": {}}), "no attachment of text"),
    Case("attachment that is a list", _document(content=[{"attachment": [1]}]), "no attachment of text"),
    Case("data that is a number", _content(attachment("text/plain", data=7)), "line 2: attachment without data"),
    Case("size that is not so", _content(attachment("text/plain", data=_packed(CANARY), size=10**6)), "attachment is shorter than its size"),
    Case("100,000 open tags", _content(attachment("text/html", data=_packed("<div>" * 100_000 + NOTES["n01"][1]))), status=0),
    Case("a bomb of entities", _content(attachment("application/xml", data=_packed('<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><t>' + NOTES["n01"][1] + "</t>"))), status=0),
    Case("sections 300 deep", added(_DOCUMENTS, json.dumps(_composition(section=[_nested(300)])) + "\n"), "line 41: sections over 50 deep; put them side by side"),
    Case("sections that are numbers", added(_DOCUMENTS, json.dumps(_composition(section=[1, [2], None])) + "\n"), "line 41: no section with text; export the narratives"),
    Case("packed but cut", all_of(lambda f: (f / f"{_DOCUMENTS}.gz").write_bytes(gzip.compress((f / _DOCUMENTS).read_bytes())[:-9]), without(_DOCUMENTS)), "the compressed file is damaged or cut"),
    Case("no NDJSON", all_of(without(_DOCUMENTS), put("fhir/a.json", "{}")), "fhir: none of its 1 rows can be used ("),
    Case("outcome of codes that are lists", _encounters(_stay(), _stay("101", **_discharged(["exp"], system="http://www.nubc.org/patient-discharge"))), "none of the 0 ids of the table for task died has a note"),
    Case("outcome of resources that are lists", _encounters(_stay(), {"resourceType": ["Encounter"]}), "none of the 0 ids of the table for task died has a note"),
    Case("outcome of a period backwards", all_of(_encounters(_stay(period={"start": "2150-01-03", "end": "2150-01-02"})), swapped("fhir.yaml", "label_column: expired, absent: negative", "label_column: days"), swapped("fhir.yaml", "kind: binary", "kind: multiclass, borders: [3]")), "Encounter.ndjson, line 1: period ends before it begins; mend the period"),
    Case("outcome of another column", all_of(_encounters(_stay()), swapped("fhir.yaml", "label_column: expired", "label_column: died")), "no FHIR resource has the columns patient, died together"),
]  # fmt: skip


def _column(name: str, values: pl.Expr) -> Make:
    return frame(_SHARD, lambda table: table.with_columns(values.alias(name)))


_FIRST = pl.int_range(pl.len()) == 1

MEDS_FILES = [
    Case("no texts", frame(_SHARD, lambda t: t.drop("text_value")), "0.parquet: no column 'text_value' among 5; the nearest is"),
    Case("cut short", cut(_SHARD, 0.6), "0.parquet is not a readable Parquet file; write it again"),
    Case("ids as text", _column("subject_id", pl.col("subject_id").cast(pl.String)), status=0),
    Case("ids as floats", _column("subject_id", pl.col("subject_id").cast(pl.Float64)), status=0),
    Case("no codes", frame(_SHARD, lambda t: t.drop("code")), "no column 'code' among 5"),
    Case("numbers as codes", _column("code", pl.lit(7)), "none of its 40 rows can be used"),
    Case("nulls as codes", _column("code", pl.when(_FIRST).then(None).otherwise("code")), notes=_LEFT_OUT, status=0, command=f"{MEDS} {_LENIENT}"),
    Case("codes of a dictionary", _column("code", pl.col("code").cast(pl.Categorical)), status=0),
    Case("no event of the codes", _column("code", pl.lit("LAB//1")), "none of its 40 rows can be used"),
    Case("no subject", _column("subject_id", pl.when(_FIRST).then(None).otherwise("subject_id")), "row 2: missing patient id"),
    Case("an event without a time", _column("time", pl.when(_FIRST).then(None).otherwise("time")), status=0),
    Case("times as text", _column("time", pl.lit("2150-01-02 08:00:00")), status=0),
    Case("times as numbers", _column("time", pl.lit(7)), "row 1: unreadable time"),
    Case("no text in one", _column("text_value", pl.when(_FIRST).then(None).otherwise("text_value")), "row 2: empty text"),
    Case("numbers as texts", _column("text_value", pl.lit(7)), "column text_value is not text"),
    Case("no events", frame(_SHARD, lambda t: t.clear()), "none of its 0 rows can be used"),
    Case("no shard", without(_SHARD), "meds/data leads to no .parquet file"),
    Case("no data", without("meds"), "meds/data is not a folder with Parquet files; name the folder above it"),
    Case("a shard that is text", put(_SHARD, "subject_id,code\n"), "is not a readable Parquet file"),
    Case("a note in two shards", lambda f: (f / "meds/data/train/1.parquet").write_bytes((f / _SHARD).read_bytes()), "note id repeated with the same text"),
    Case("shards that differ", frame(_SHARD, lambda t: t.with_columns(subject_id=pl.col("subject_id").cast(pl.String)).rename({"note": "Note"})), status=0),
]  # fmt: skip

_OMOP_N01 = f"n01,100,2150-01-02,{NOTES['n01'][1]}"


def _row(old: str, new: str) -> Make:
    return swapped(_TABLE, _OMOP_N01, _OMOP_N01.replace(old, new))


OMOP_FILES = [
    Case("no table", without(_TABLE), "omop.csv is missing; check the path"),
    Case("no texts", swapped(_TABLE, "note_text", "note_title"), "no column 'note_text' among 4"),
    Case("capitals", swapped(_TABLE, "note_id,person_id,note_date,note_text", "NOTE_ID,PERSON_ID,NOTE_DATE,NOTE_TEXT"), status=0),
    Case("dates that are numbers", _row("2150-01-02", "21500102"), status=0),
    Case("dates of another form", _row("2150-01-02", "02.01.2150"), status=0),
    Case("no date", _row("2150-01-02", ""), status=0),
    Case("note after the moment", all_of(put("labels.csv", "id,died,moment\n" + "".join(f"{name},{died},2150-01-01\n" for name, (_, _, died) in NOTES.items())), swapped("omop.yaml", "kind: binary", "kind: binary, prediction_time: moment")), "leak check: 20 notes of train were written after the prediction time of died. Set prepare.late_notes=drop"),
    Case("death before the note", all_of(put("labels.csv", "id,died,moment\n" + "".join(f"{name},{died},{'2149-12-31' if died == '1' else '2150-01-03'}\n" for name, (_, _, died) in NOTES.items())), swapped("omop.yaml", "kind: binary", "kind: binary, prediction_time: moment")), "Set prepare.late_notes=drop to leave them out of the task"),
    Case("no person", _row(",100,", ",,"), "line 3: missing patient id"),
    Case("JSON lines", nothing, "notes.jsonl is not .csv, .csv.gz or .parquet; export the table as such", f"{OMOP} prepare.source.path=notes.jsonl"),
    Case("no labels", without("labels.csv"), "labels.csv is missing"),
    Case("labels without a row", put("labels.csv", "id,died\n"), "labels.csv has a header and no rows"),
    Case("labels of no note", swapped("labels.csv", "n", "m", -1), "40 of the 40 notes with a label of task died do not exist"),
    Case("labels that contradict", added("labels.csv", "n01,0\n"), "labels.csv, line 42: an earlier row gives this id another label"),
    Case("label for a note that is not there", added("labels.csv", "n99,0\n"), "1 of the 41 notes with a label of task died do not exist"),
    Case("grouped by a text", all_of(swapped(_TABLE, "note_text", "note_title,note_text"), swapped(_TABLE, ",2150-01-02,", f",2150-01-02,{'a title ' * 20},", -1)), "column note_title has over 120 characters; group by another column", f"{OMOP} prepare.source.grouped_by=note_title"),
]  # fmt: skip
