"""FHIR R4: documents and reports, in NDJSON as a bulk export writes them or in Bundles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from notetune.config import MAX_SHOWN_CHARS, Shown
from notetune.sources.cohort import NoteStream
from notetune.sources.fhir_files import FOLDER, Attachments
from notetune.sources.fhir_text import attachment_text, section_text
from notetune.sources.rejections import Rejected
from notetune.sources.tables.records import Record
from notetune.sources.tables.resources import (
    codings,
    export_files,
    items,
    read_export,
    reference_id,
)
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import TaskedSource

_STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "DocumentReference": ("current", "superseded", "entered-in-error"),
    "DiagnosticReport": (
        *("registered", "partial", "preliminary", "final", "amended", "corrected", "appended"),
        *("cancelled", "entered-in-error", "unknown"),
    ),
    "Composition": ("preliminary", "final", "amended", "entered-in-error"),
}
"""Of each kind of resource that holds notes."""


class FhirSource(TaskedSource):
    """Notes of three resources: DocumentReference, DiagnosticReport and Composition.

    All text attachments of a DocumentReference, or of `presentedForm` of a DiagnosticReport, make
    one note; what is there as plain text and as HTML or XML is read once, and so is what is both a
    document and a report of one stay. A Composition is its sections under their titles. A `url` may
    name a file in the folder `attachments/` beside the file of the export. Tasks look labels up by
    `id` (of a document; of the others with their type before it, as `Composition/c1`), `patient` or
    `encounter`, the ids without their type; with `labels` or `codes` the outcomes come from
    Encounter and Condition of the same export.
    """

    kind: Literal["fhir"]
    path: Path
    """.ndjson or .ndjson.gz; a .json file of a Bundle or resource; a folder of either; or a
    pattern, such as `export/[CD]o*.ndjson` for documents and compositions without reports."""
    binaries: Path | None = None
    """Where a `url` to a Binary leads: an .ndjson file of Binary resources, or a folder of such
    files or of one `<id>.json` each. Nothing is ever fetched from a network."""
    types: dict[str, Shown] = Field(default_factory=dict)
    """Names for type codes, such as LOINC `{"18842-5": discharge}`; other documents are grouped by
    the text of their type."""
    superseded: Literal["keep", "drop"] = "drop"
    """Documents that another one replaces: drop leaves them out and counts them, as is always done
    with those entered in error and with cancelled reports."""

    folder_beside: ClassVar[str] = FOLDER
    """What is read beside each file, though no key names it."""

    def open(self) -> NoteStream:
        """Begin to read a bulk export.

        Raises:
            DataError: Here or while reading, as `TableSource.open`; or if `binaries` cannot be
                read.

        Source:
            HL7 FHIR R4, resources DocumentReference, DiagnosticReport, Composition and Binary.
        """
        files = export_files(self.path)
        layout = Layout("text", "id", "patient", "encounter", ("date",))
        reading = TableReading(self, self.path, layout)
        places = Attachments(self.binaries, self.max_note_chars)
        first_with = dict[int, tuple[str, str]]()  # hash of a note to the kind and id of the first

        def note_of(record: Record) -> RawNote | None:
            if unwanted := _unwanted(record.cells, self.superseded):
                reading.rejections.leave_out(unwanted)
                return None
            note, kind = _note(self, record, places), record.cells["resourceType"]
            told = hash(tuple(note.record.cells[name] for name in ("patient", "encounter", "text")))
            before, first = first_with.get(told, (kind, ""))
            if not reading.has(first):
                first_with[told] = kind, note.record.id("id", "note")
            elif before != kind:
                reading.rejections.leave_out("same note in another kind of resource")
                return None
            return note

        resources = read_export(files, reading.rejections, 2 * self.max_note_chars)
        return reading.stream(resources, note_of)


def _unwanted(resource: Mapping[str, Any], superseded: str) -> str | None:
    """Why a sound resource is no note; None if it is one."""
    if resource.get("resourceType") not in tuple(_STATUSES):  # it may be of any type
        return "another kind of resource"
    status = resource.get("status")
    if "entered-in-error" in (status, resource.get("docStatus")):
        return "entered in error"
    if status == "cancelled":
        return "cancelled"
    if status == "superseded" and superseded == "drop":
        return "superseded"
    if resource["resourceType"] == "DiagnosticReport" and not items(resource.get("presentedForm")):
        return "report without a presented form"
    return None


def _note(source: FhirSource, record: Record, places: Attachments) -> RawNote:
    resource = record.cells
    kind, name = resource["resourceType"], resource.get("id")
    if resource.get("status") not in (known := _STATUSES[kind]):
        raise Rejected("no known status", f"write one of {', '.join(known)}")
    patient = reference_id(resource.get("subject"), "Patient")
    if patient is None:
        raise Rejected("missing patient id", "let subject refer to a Patient")
    concept, encounter, date = map(resource.get, ("type", "encounter", "date"))
    attached: Any = resource.get("presentedForm")
    if kind == "DocumentReference":
        attached = [item.get("attachment") for item in items(resource.get("content"))]
        context = resource.get("context")
        encounters = items(context.get("encounter")) if isinstance(context, dict) else []
        encounter = encounters[0] if encounters else None
    elif isinstance(name, str) and name.strip():
        name = f"{kind}/{name.strip()}"
    if kind == "DiagnosticReport":
        concept = resource.get("code")
        date = resource.get("issued") or resource.get("effectiveDateTime")
    if kind == "Composition":
        text = section_text(resource)
    else:
        text = attachment_text(items(attached), places, record.file.parent)
    stay = reference_id(encounter, "Encounter")
    cells = {"id": name, "patient": patient, "encounter": stay, "date": date, "text": text}
    return RawNote(Record(record.file, record.line, cells), _type_name(source, record, concept))


def _type_name(source: FhirSource, record: Record, concept: Any) -> str:
    """What a document is: the name of a known code, else the type's text or display, else a code.

    Text as long as a sentence is not shown to be a type.
    """
    of_type = codings(concept)
    codes = [coding.get("code") for coding in of_type]
    named = [source.types[code] for code in codes if isinstance(code, str) and code in source.types]
    displays = [coding.get("display") for coding in of_type]
    text = concept.get("text") if isinstance(concept, dict) else None
    for candidate in (*named, text, *displays, *codes):
        if isinstance(candidate, str) and 0 < len(candidate) <= MAX_SHOWN_CHARS:
            return record.text_of("type", candidate).lower() or "document"
    return "document"
