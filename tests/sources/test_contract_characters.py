"""The same awkward characters, written as each source may hold them, come out as one text."""

import base64
import csv
import html
import json
import sys
from dataclasses import dataclass

import polars as pl
import pytest
from fhir_documents import attachment, document, source_of
from mimic3_tables import small

from notetune.audit import IN_ALL
from notetune.sources import read
from notetune.sources.eicu import EicuSource
from notetune.sources.meds import MedsSource
from notetune.sources.mimic.mimic4 import Mimic4Source
from notetune.sources.omop import OmopSource
from notetune.sources.tables.source import TableSource
from notetune.strict_csv import read_header

MARK = b"\xef\xbb\xbf"
BREAKS = "unusual line breaks made plain"
CONTROLS = "control characters replaced"
WIDE = "full-width characters narrowed"
SPACES = "unusual spaces made plain"
ZERO_WIDTH = "byte order marks and zero-width spaces made plain"
JOINERS = "soft hyphens and joiners taken out"
C1 = bytes({*range(0x80, 0xA0)} - {0x81, 0x8D, 0x8F, 0x90, 0x9D})
# As written, as read, and the kind of change.
PIECES = [
    (f"1{chr(code)}2", f"1{bytes([code]).decode('cp1252')}2", CONTROLS) for code in C1
] + [
    ("BP\x00120\x1b/80", "BP 120 /80", CONTROLS),
    ("5\x8110\x7f20", "5 10 20", CONTROLS),
    ("hyper\u00adtension 5\u00ad10 mg", "hypertension 5 10 mg", JOINERS),
    ("ab\u200dc\u2060d 7\u200c8\u20609", "abcd 7 8 9", JOINERS),
    ("5\ufeff10\u200b15", "5 10 15", ZERO_WIDTH),
    ("\uff11\uff12\uff10\uff0f\uff18\uff10\uff0e\uff15\uff4d\uff47", "120\uff0f80\uff0e5mg", WIDE),
    ("3\u00a04", "3 4", SPACES),
    ("3\u20094\u202f5\u30006", "3 4 5 6", SPACES),
    ("1\u20282\u20293", "1\n2\n3", BREAKS),
    ("4\v5\f6\r7", "4\n5\n6\n7", BREAKS),
    ("10\u2079, stable\x85", "10\u2079, stable\u2026", CONTROLS),
]  # fmt: skip


@dataclass(frozen=True)
class Way:
    """A format, the characters that it cannot hold, and what reads a text that it holds."""

    read: object
    cannot: str = "\0"
    """CSV with a NUL is refused as UTF-16 or damage."""
    widest: int = sys.maxunicode

    def holds(self, text):
        return not set(text) & set(self.cannot) and max(map(ord, text)) <= self.widest


def marked(path, columns, *rows):
    """A CSV file that begins with a byte order mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([columns.split(), *rows])


def table(path):
    columns = {"text": "text"}
    return read(TableSource(kind="table", path=path, columns=columns, tasks=()))


def of_csv(folder, text):
    marked(folder / "notes.csv", "text", [text])
    return table(folder / "notes.csv")


def of_jsonl(folder, text):
    path = folder / "notes.jsonl"
    path.write_bytes(MARK + json.dumps({"text": text}, ensure_ascii=False).encode())
    return table(path)


def of_parquet(folder, text):
    pl.DataFrame({"text": [text]}).write_parquet(folder / "notes.parquet")
    return table(folder / "notes.parquet")


def of_omop(folder, text):
    marked(folder / "n.csv", "note_id person_id note_date note_text", [1, 2, "2150-01-02", text])
    return read(OmopSource(kind="omop", path=folder / "n.csv"))


def of_meds(folder, text):
    (folder / "data").mkdir()
    event = {"subject_id": [1], "time": [None], "code": ["NOTE"], "text_value": [text]}
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String}
    frame = pl.DataFrame(event, schema=schema | {"text_value": pl.String})
    frame.write_parquet(folder / "data/0.parquet")
    return read(MedsSource(kind="meds", folder=folder, notes={"NOTE": "note"}))


def fhir(folder, resource):
    path = folder / "notes.ndjson"
    path.write_bytes(MARK + json.dumps(resource, ensure_ascii=False).encode())
    return read(source_of(path))


def attached(kind, raw):
    data = base64.b64encode(raw).decode()
    return document(content=[attachment(kind, data=data)])


def of_latin_1(folder, text):
    return fhir(folder, attached("text/plain; charset=iso-8859-1", text.encode("latin-1")))


def of_utf_8(folder, text):
    return fhir(folder, attached("text/plain; charset=iso-8859-1", MARK + text.encode()))


def of_html(folder, text):
    return fhir(folder, attached("text/html", f"<p>{html.escape(text)}</p>".encode()))


def of_html_in_latin_1(folder, text):
    return fhir(folder, attached("text/html; charset=latin1", f"<b>{text}</b>".encode("latin-1")))


def of_composition(folder, text):
    div = f"<div>{html.escape(text)}</div>"
    changes = {
        "resourceType": "Composition",
        "status": "final",
        "section": [{"text": {"div": div}}],
    }
    return fhir(folder, document(**changes))


def of_eicu(folder, text):
    columns = (
        "patientunitstayid uniquepid unitvisitnumber hospitaldischargestatus hospitaladmitoffset "
        "hospitaldischargeoffset age gender ethnicity unittype unitadmitsource apacheadmissiondx"
    )
    marked(folder / "patient.csv", columns, [1, 2, 1, "Alive", 0, 9, 50, "", "", "", "", ""])
    marked(folder / "diagnosis.csv", "patientunitstayid icd9code", [1, "401.9"])
    for name, path in (
        ("admissionDx", f"a|{text}"),
        ("pastHistory", f"a/Organ Systems/{text}"),
        ("physicalExam", text),
    ):
        own = name.replace("Dx", "dx").lower()
        stem = {"admissiondx": "admitdx"}.get(own, own)
        minute = "physicalexamoffset" if own == "physicalexam" else f"{stem}enteredoffset"
        columns = f"patientunitstayid {minute} {stem}path {own}id"
        marked(folder / f"{name}.csv", columns, [1, 5, path, 7])
    return read(EicuSource(kind="eicu", folder=folder))


def summary_of(text):
    return f"Chief Complaint:\n{text}\n\nDischarge Diagnosis:\nnone"


def mimic3(labels):
    def of_mimic3(folder, text):
        tables = small()
        tables.tables["NOTEEVENTS"][0]["TEXT"] = summary_of(text)
        source = tables.write(folder, labels=labels)
        for path in folder.iterdir():
            path.write_bytes(MARK + path.read_bytes())
        return read(source)

    return of_mimic3


def of_mimic4(folder, text):
    columns = "note_id subject_id hadm_id note_type note_seq charttime text"
    rows = ["DS", 1, "2150-01-03 00:00:00"]
    marked(folder / "note/discharge.csv", columns, ["1", 1, 20, *rows, summary_of(text)])
    marked(folder / "note/radiology.csv", columns, ["2", 1, 20, *rows, "clear"])
    return read(Mimic4Source(kind="mimic4", folder=folder))


WAYS = {
    "CSV": Way(of_csv),
    "JSON lines": Way(of_jsonl, ""),
    "Parquet": Way(of_parquet, ""),
    "OMOP": Way(of_omop),
    "MEDS": Way(of_meds, ""),
    "FHIR, windows-1252 that is said to be Latin-1": Way(of_latin_1, "", 0xFF),
    "FHIR, UTF-8 with a mark that is said to be Latin-1": Way(of_utf_8, ""),
    "FHIR, HTML": Way(of_html, "\r\v\f"),  # there they are spaces
    "FHIR, HTML in Latin-1": Way(of_html_in_latin_1, "\r\v\f", 0xFF),
    "FHIR, Composition": Way(of_composition, "\r\v\f"),
    "eICU": Way(of_eicu, "\0/"),  # of a path
    "MIMIC-III": Way(mimic3("correct")),
    "MIMIC-III, core-2021": Way(mimic3("core-2021")),
    "MIMIC-IV": Way(of_mimic4),
}


@pytest.mark.parametrize("name", WAYS)
def test_awkward_characters_come_out_alike_and_are_counted(tmp_path, name):
    way = WAYS[name]
    held = [piece for piece in PIECES if way.holds(piece[0])]
    assert len(held) >= len(C1) + 3
    cohort = way.read(tmp_path, "; ".join(piece[0] for piece in held))
    expected = "; ".join(piece[1] for piece in held)
    assert expected in cohort.notes["text"][0]
    told = {kind for _, _, kind in held}
    if "HTML" in name and way.widest == 0xFF:
        told -= {SPACES}  # markup has &nbsp; for a space
    assert cohort.flow[0].changed == dict.fromkeys([IN_ALL, *told], 1)


@pytest.mark.parametrize("labels", ["correct", "core-2021"])
def test_admission_notes_hold_no_awkward_character_either(tmp_path, labels):
    held = [piece for piece in PIECES if piece[2] != BREAKS and "\0" not in piece[0]]
    cohort = mimic3(labels)(tmp_path, "; ".join(piece[0] for piece in held))
    texts = cohort.notes.filter(source="admission")["text"]
    assert "; ".join(piece[1] for piece in held) in texts[0]
    assert len(texts) == 2


@pytest.mark.parametrize("name", ["CSV", "JSON lines", "OMOP", "MEDS", "FHIR, HTML"])
def test_clean_notes_count_nothing(tmp_path, name):
    cohort = WAYS[name].read(tmp_path, "BP 120/80, 37.2\u00b0C, 5 \u2013 10 mg\u2026")
    assert cohort.flow[0].changed == {}


def test_a_mark_at_the_start_of_a_file_is_no_part_of_it(tmp_path):
    marked(tmp_path / "notes.csv", "text", ["a"])
    assert read_header(tmp_path / "notes.csv") == ["text"]
    assert table(tmp_path / "notes.csv").flow[0].changed == {}
