"""FHIR R4: DocumentReference resources in NDJSON, as a bulk export writes them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from notetune.config import MAX_SHOWN_CHARS, Shown
from notetune.sources.cohort import NoteStream
from notetune.sources.fhir_text import Binaries, attachment_text, open_binaries, referred_id
from notetune.sources.paths import matching_files
from notetune.sources.rejections import Rejected, Rejections
from notetune.sources.tables.files import Record, read_objects
from notetune.sources.tables.stream import Layout, RawNote, TableReading
from notetune.sources.tables.tasks import TaskedSource

_STATUSES: Final = ("current", "superseded", "entered-in-error")


class FhirSource(TaskedSource):
    """DocumentReference resources; superseded and mistaken ones are left out and counted.

    A document in several formats is read as plain text where it has that, else as HTML. Tasks look
    labels up by `id` (of the document), `patient` or `encounter`, the ids without their type.
    """

    kind: Literal["fhir"]
    path: Path
    """.ndjson or .ndjson.gz; a folder of such files; or a pattern."""
    binaries: Path | None = None
    """Where a `url` to a Binary leads: an .ndjson file of Binary resources, or a folder of such
    files or of one `<id>.json` each. Nothing is ever fetched from a network."""
    types: dict[str, Shown] = Field(default_factory=dict)
    """Names for type codes, such as LOINC `{"18842-5": discharge}`; other documents are grouped by
    the text of their type."""

    def open(self) -> NoteStream:
        """Begin to read a bulk export.

        Raises:
            DataError: Here or while reading, as `TableSource.open`; or if `binaries` cannot be
                read.

        Source:
            HL7 FHIR R4, resources DocumentReference and Binary.
        """
        files = matching_files(self.path, (".ndjson", ".ndjson.gz"))
        reading = TableReading(self, self.path, Layout("text", "id", "patient", ("date",)))
        binaries = open_binaries(self.binaries, self.max_note_chars)
        documents = _documents(files, reading.rejections, self.max_note_chars)
        return reading.stream(documents, lambda record: _note(self, record, binaries))


def _documents(files: Sequence[Path], rejections: Rejections, max_chars: int) -> Iterator[Record]:
    for file in files:
        for record in read_objects(file, ".ndjson", rejections, 2 * max_chars):
            if unwanted := _unwanted(record.cells):
                rejections.leave_out(unwanted)
            else:
                yield record


def _unwanted(resource: Mapping[str, Any]) -> str | None:
    """Why a sound resource is no note; None if it is one."""
    if resource.get("resourceType") != "DocumentReference":
        return "another kind of resource"
    if resource.get("status") == "superseded":
        return "superseded"
    if "entered-in-error" in (resource.get("status"), resource.get("docStatus")):
        return "entered in error"
    return None


def _note(source: FhirSource, record: Record, binaries: Binaries) -> RawNote:
    resource = record.cells
    if resource.get("status") not in _STATUSES:
        raise Rejected("no known status", f"write one of {', '.join(_STATUSES)}")
    patient = _reference(resource.get("subject"), "Patient")
    if patient is None:
        raise Rejected("missing patient id", "let subject refer to a Patient")
    context = resource.get("context")
    encounters = context.get("encounter") if isinstance(context, dict) else None
    first = encounters[0] if isinstance(encounters, list) and encounters else None
    cells = {
        "id": resource.get("id"),
        "patient": patient,
        "encounter": _reference(first, "Encounter"),
        "date": resource.get("date"),
        "text": attachment_text(resource.get("content"), binaries),
    }
    return RawNote(Record(record.file, record.line, cells), _type_name(source, record))


def _reference(value: Any, kind: str) -> str | None:
    """The id in a Reference to a resource of that kind; None if it is none."""
    reference = value.get("reference") if isinstance(value, dict) else None
    if isinstance(reference, str) and reference.startswith("urn:uuid:"):
        return reference
    return referred_id(reference, kind)


def _type_name(source: FhirSource, record: Record) -> str:
    """What a document is: the name of a known code, else the type's text or display, else a code.

    Text as long as a sentence is not shown to be a type.
    """
    value = record.cells.get("type")
    concept = value if isinstance(value, dict) else {}
    listed = concept.get("coding")
    codings = (
        [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    )
    codes = [coding.get("code") for coding in codings]
    named = [source.types[code] for code in codes if isinstance(code, str) and code in source.types]
    displays = [coding.get("display") for coding in codings]
    for candidate in (*named, concept.get("text"), *displays, *codes):
        if isinstance(candidate, str) and 0 < len(candidate) <= MAX_SHOWN_CHARS:
            return record.text_of("type", candidate).lower() or "document"
    return "document"
