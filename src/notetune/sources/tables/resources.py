"""FHIR R4 resources of an export, also as rows of a table: Encounter and Condition."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from notetune.errors import DataError
from notetune.sources.paths import matching_files
from notetune.sources.rejections import Rejected, Rejections
from notetune.sources.tables.files import object_in, read_objects, read_records, table_files
from notetune.sources.tables.records import Record
from notetune.strict_csv import MAX_CELL_CHARS, open_file

NDJSON: Final = (".ndjson", ".ndjson.gz")
_EXPORT: Final = (*NDJSON, ".json")
_MOST_BYTES: Final = 1 << 29
"""Of a JSON file, which is read whole."""
_UUID: Final = "urn:uuid:"

_REFERENCE = re.compile(
    r"(?:.*/)?(?P<type>[A-Za-z]+)/(?P<id>[A-Za-z0-9.\-]{1,64})(?:/_history/.*)?"
)
_DAY_CHARS: Final = 10
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "Encounter": ("encounter", "patient", "start", "end", "over", "days", "disposition", "expired"),
    "Condition": ("encounter", "patient", "icd9", "icd10", "snomed", "icd", "version", "code"),
}
"""What a table of each kind of resource may be asked for."""
_SYSTEMS: Final[Mapping[str, str]] = {
    "http://hl7.org/fhir/sid/icd-9-cm": "icd9",
    "urn:oid:2.16.840.1.113883.6.103": "icd9",
    "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd9": "icd9",
    "http://hl7.org/fhir/sid/icd-10": "icd10",
    "http://hl7.org/fhir/sid/icd-10-cm": "icd10",
    "urn:oid:2.16.840.1.113883.6.3": "icd10",
    "urn:oid:2.16.840.1.113883.6.90": "icd10",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": "icd10",
    "http://jpfhir.jp/fhir/core/mhlw/CodeSystem/ICD10-2013-full": "icd10",
    "http://fhir.de/CodeSystem/dimdi/icd-10-gm": "icd10",
    "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd10": "icd10",
    "http://snomed.info/sct": "snomed",
    "urn:oid:2.16.840.1.113883.6.96": "snomed",
}
_EXPIRED: Final = re.compile(
    r"^exp$|^\W*(?:\d+\W+)?(?:discharged\W+)?(?:(?:the )?(?:patient|pt\.?) )?(?:(?:has|was|is) )?"
    r"(?:(?:in-)?hospital )?(?:expired|died|dead|deceased|death)\b(?! (?:not )?expected)"
)
"""At the beginning: further on the same words are said of papers, of others, or denied."""
_EXPIRED_OF_SNOMED: Final = ("371828006", "397709008", "419099009")
"""Patient deceased during stay, patient died, dead."""
_EXPIRED_OF_NUBC: Final = ("20", "40", "41", "42")
"""Codes of the National Uniform Billing Committee, as claims in the United States bear them."""
_MOST_NAMED: Final = 12
_LEAST_STAYS: Final = 10
"""Of a discharge that is named: what fewer stays share may be a text about a patient."""
_OTHER_SYSTEM: Final = "no code of the asked system"
_NOT_MEANT: Final = ("entered-in-error", "cancelled", "refuted")


def referred_id(reference: Any, kind: str) -> str | None:
    """The id in the address of a resource of that kind; None if it is none."""
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    return found["id"] if found and found["type"] == kind else None


def reference_id(value: Any, kind: str) -> str | None:
    """The id in a Reference to a resource of that kind; None if it is none."""
    reference = value.get("reference") if isinstance(value, dict) else None
    if isinstance(reference, str) and reference.startswith(_UUID):
        return reference.removeprefix(_UUID)
    return referred_id(reference, kind)


def codings(concept: Any) -> list[dict[str, Any]]:
    """The codings of a CodeableConcept."""
    return items(concept.get("coding")) if isinstance(concept, dict) else []


def items(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def records_beside(path: Path, wanted: Sequence[str], rejections: Rejections) -> Iterator[Record]:
    """The rows of a table beside the notes, whose path leads to tables or to resources."""
    if files := resource_files(path):
        return read_resources(files, wanted, rejections)
    return read_records(table_files(path), wanted, rejections)


def export_files(path: Path) -> list[Path]:
    """The files of an export: NDJSON, or JSON files of a Bundle or resource each.

    What stands as JSON beside NDJSON, such as a manifest, is not of the export.

    Raises:
        DataError: If a folder or pattern has none.
    """
    files = matching_files(path, _EXPORT)
    lines = [file for file in files if file.name.lower().endswith(NDJSON)]
    return lines or files


def resource_files(path: Path) -> list[Path]:
    """The files of an export that a path of a table stands for; none if it is another table."""
    names = [file.name.lower() for file in (path.rglob("*") if path.is_dir() else [path])]
    is_export = any(name.endswith(_EXPORT) for name in names)
    is_parquet = any(name.endswith(".parquet") for name in names)
    return export_files(path) if is_export and not is_parquet else []


def read_export(files: Sequence[Path], rejections: Rejections, max_chars: int) -> Iterator[Record]:
    """The resources of the files of `export_files`; a Bundle is taken apart.

    `rejections` takes what is no JSON object, and counts the resources; a character of `max_chars`
    in a line of NDJSON may take four bytes.

    Raises:
        DataError: If a file is missing, damaged or too long, or `rejections` stops.
    """
    for file in files:
        if not file.name.lower().endswith(".json"):
            for record in read_objects(file, ".ndjson", rejections, max_chars):
                yield from _unbundled(record, rejections)
            continue
        with open_file(file, ".json") as content:
            raw = content.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise DataError(
                f"{file} has over {_MOST_BYTES >> 20} MiB, which are read at once; export one "
                "Bundle per patient, or NDJSON."
            )
        for record in object_in(file, 1, raw, rejections):
            yield from _unbundled(record, rejections)


def _unbundled(record: Record, rejections: Rejections) -> Iterator[Record]:
    """A resource, or those of a Bundle, each with the id by which the others refer to it.

    In a JSON file, the line of a resource is its place in the Bundle.
    """
    if record.cells.get("resourceType") != "Bundle":
        yield record
        return
    entries = items(record.cells.get("entry"))
    rejections.rows_read += len(entries) - 1
    for number, entry in enumerate(entries, start=1):
        resource, url = entry.get("resource"), entry.get("fullUrl")
        if not isinstance(resource, dict):
            rejections.leave_out("entry without a resource")
            continue
        if isinstance(url, str) and url.startswith(_UUID):
            resource["id"] = url.removeprefix(_UUID)
        line = number if record.file.suffix.lower() == ".json" else record.line
        yield Record(record.file, line, resource)


def read_resources(
    files: Sequence[Path], wanted: Sequence[str], rejections: Rejections
) -> Iterator[Record]:
    """The rows that resources stand for: one per Encounter, one per code of a Condition.

    Encounter has the columns that `LabelTable.path` names; `expired` is 1 for `exp`, the deaths of
    NUBC and SNOMED CT and words that begin as one, and `rejections.discharges` counts both answers.
    Condition has those of `CodeTable.path`, codes by the URI of their system.

    Args:
        files: What `resource_files` gave; resources of another kind in them are left out.
        wanted: Columns, all of one kind of resource.
        rejections: Takes the resources that cannot be used, and counts all rows.

    Raises:
        DataError: If no kind of resource has such columns, no resource is of that kind or has such
            a code, a file is damaged, or `rejections` stops.

    Source:
        HL7 FHIR R4: resources Encounter and Condition, and the URIs of code systems.
    """
    kind = _kind(files[0], wanted)
    found = has_rows = False
    for record in read_export(files, rejections, 2 * MAX_CELL_CHARS):
        if record.cells.get("resourceType") != kind:
            rejections.leave_out("another kind of resource")
            continue
        found = True
        if reason := _not_meant(record.cells):
            rejections.leave_out(reason)
        else:
            for row in _rows(record, wanted, rejections):
                has_rows = True
                yield row
    if not has_rows and rejections.counts().get(_OTHER_SYSTEM):
        raise DataError(
            f"{files[0].parent}: no {kind} has a code of a system that is known for "
            f"{', '.join(wanted)}; column code takes the codes of any system."
        )
    if not found:
        raise DataError(
            f"{files[0].parent}: the {len(files)} files hold no {kind}, whose columns "
            f"{', '.join(wanted)} are; check the path."
        )


def discharge_notice(task: str, discharges: Counter[tuple[str, bool]]) -> str:
    """Which discharges were taken for death and which for survival; "" if there are none."""
    if not discharges:
        return ""
    dead, alive = (
        {said: stays for (said, is_death), stays in discharges.most_common() if is_death == side}
        for side in (True, False)
    )
    return (
        f"Task {task}: discharges taken for death, {sum(dead.values()):,}: {_named(dead)}; for "
        f"survival, {sum(alive.values()):,}: {_named(alive)} (named is what {_LEAST_STAYS} stays "
        "share). If one stands on the wrong side, take `label_column: disposition` and name the "
        "deaths by `positive`."
    )


def _named(stays_of: Mapping[str, int]) -> str:
    shared = [said for said, stays in stays_of.items() if stays >= _LEAST_STAYS]
    named = [f"{said} ({stays_of[said]:,})" for said in shared if said.isprintable()]
    named = named[:_MOST_NAMED]
    if others := len(stays_of) - len(named):
        named.append(f"{others:,} not named")
    return ", ".join(named) or "none"


def _kind(file: Path, wanted: Sequence[str]) -> str:
    for kind, columns in _COLUMNS.items():
        if set(wanted) <= set(columns):
            return kind
    known = "; ".join(f"{kind} has {', '.join(columns)}" for kind, columns in _COLUMNS.items())
    raise DataError(
        f"{file}: no FHIR resource has the columns {', '.join(wanted)} together: {known}."
    )


def _not_meant(resource: Mapping[str, Any]) -> str | None:
    """Why a resource says nothing of a patient; None if it does."""
    codes = [coding.get("code") for coding in codings(resource.get("verificationStatus"))]
    said = [code for code in (resource.get("status"), *codes) if isinstance(code, str)]
    return next((code.replace("-", " ") for code in said if code in _NOT_MEANT), None)


def _rows(record: Record, wanted: Sequence[str], rejections: Rejections) -> Iterator[Record]:
    rows_of = _stay if record.cells["resourceType"] == "Encounter" else _codes
    try:
        rows = rows_of(record, wanted)
    except Rejected as fault:
        rejections.reject(record.file, record.line, fault)
        return
    if not rows:
        rejections.leave_out(_OTHER_SYSTEM)
        return
    rejections.rows_read += len(rows) - 1
    for row in rows:
        if "expired" in wanted and row["expired"] is not None:
            rejections.discharges[row["said"], bool(row["expired"])] += 1
        yield Record(record.file, record.line, {name: row[name] for name in wanted})


def _stay(record: Record, wanted: Sequence[str]) -> list[dict[str, Any]]:
    resource = record.cells
    stay = resource.get("hospitalization")
    disposition = stay.get("dischargeDisposition") if isinstance(stay, dict) else None
    codes, said, is_expired = _disposition(disposition)
    row = {
        "encounter": resource.get("id"),
        "patient": reference_id(resource.get("subject"), "Patient"),
        "disposition": codes,
        "said": said,
        "expired": is_expired,
    }
    if {"start", "end", "over", "days"} & set(wanted):
        row |= _period(record)
    return [row]


def _disposition(concept: Any) -> tuple[list[str], str, int | None]:
    """Codes of a discharge, all that it says, and whether that is death; None if it says nothing.

    Source:
        SNOMED CT; UB-04 form locator 17 of the NUBC.
    """
    of_codings = codings(concept)
    codes = [coding["code"] for coding in of_codings if isinstance(coding.get("code"), str)]
    texts = [concept.get("text") if isinstance(concept, dict) else None]
    texts += [coding.get("display") for coding in of_codings]
    words = [" ".join(text.split()) for text in (*codes, *texts) if isinstance(text, str)]
    of_nubc = [c.get("code") for c in of_codings if "nubc" in str(c.get("system")).lower()]
    is_expired = (
        any(_EXPIRED.search(text.lower()) for text in words)
        or any(code in _EXPIRED_OF_SNOMED for code in codes)
        or any(code in _EXPIRED_OF_NUBC for code in of_nubc)
    )
    return codes, " / ".join(dict.fromkeys(words)), int(is_expired) if words else None


def _period(record: Record) -> dict[str, Any]:
    """Start, end, when it is surely over and the days between, each None where it is not known.

    A stay that ends on a day may last that whole day; one that ends in the year 9999 has not ended.
    Where one of both is a day without a time of day, whole days are counted.
    """
    period = record.cells.get("period")
    given = period if isinstance(period, dict) else {}
    start, end = (_time(record, given.get(name)) for name in ("start", "end"))
    texts = [str(given.get(name)).strip() for name in ("start", "end")]
    is_day = [len(text) == _DAY_CHARS for text in texts]
    if end and end.year == MAXYEAR:
        end = None
    over = end + timedelta(days=1) if end and is_day[1] else end
    row = {"start": start, "end": end, "over": over, "days": None}
    if start is None or end is None:
        return row
    first, last = start, end
    if any(is_day):
        first, last = (datetime.fromisoformat(text[:_DAY_CHARS]) for text in texts)
    if (first.tzinfo is None) != (last.tzinfo is None):
        raise Rejected("period with and without a time zone", "write both of its times with one")
    if last < first:
        raise Rejected("period ends before it begins", "mend the period")
    return row | {"days": (last - first) / timedelta(days=1)}


def _time(record: Record, value: Any) -> datetime | None:
    """A time; a day is its midnight in UTC, for other times of FHIR have a zone."""
    time = Record(record.file, record.line, {"time": value}).time("time")
    is_day = isinstance(value, str) and len(value.strip()) == _DAY_CHARS
    return time.replace(tzinfo=UTC) if time and is_day else time


def _codes(record: Record, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """A row per code, of those systems that are asked for."""
    resource = record.cells
    row = {
        "encounter": reference_id(resource.get("encounter"), "Encounter"),
        "patient": reference_id(resource.get("subject"), "Patient"),
    }
    asked = [name for name in wanted if name not in row]
    rows = []
    for coding in codings(resource.get("code")):
        system, code = _SYSTEMS.get(str(coding.get("system"))), coding.get("code")
        cells: dict[str, Any] = {"code": code} | ({system: code} if system else {})
        if system in ("icd9", "icd10"):
            cells |= {"icd": code, "version": system.removeprefix("icd")}
        if all(name in cells for name in asked):
            rows.append(row | cells)
    return rows if asked else [row]
