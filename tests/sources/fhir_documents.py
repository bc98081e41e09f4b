"""FHIR documents with the attachments that a test gives them."""

import base64
import json

from notetune import config
from notetune.sources import read
from notetune.sources.fhir import FhirSource

CANARY = "zygomorphic"


def packed(text, charset="utf-8"):
    return base64.b64encode(text.encode(charset)).decode()


def document(name="d1", **changes):
    return {
        "resourceType": "DocumentReference",
        "id": name,
        "status": "current",
        "type": {"text": "Discharge Summary", "coding": [{"code": "18842-5"}]},
        "subject": {"reference": "Patient/p1"},
        "date": "2150-01-02T08:00:00+01:00",
        "context": {"encounter": [{"reference": "Encounter/e1"}]},
        "content": [attachment("text/plain", data=packed(f"{CANARY} one"))],
    } | changes


def attachment(kind, **fields):
    return {"attachment": {"contentType": kind, **fields}}


def source_of(path, **changes):
    return config.parse(FhirSource, {"kind": "fhir", "path": path} | changes, "recipe")


def cohort_of(folder, *resources, **changes):
    path = folder / "DocumentReference.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)))
    return read(source_of(path, **changes))


def text_of(folder, *content, **changes):
    (text,) = cohort_of(folder, document(content=list(content)), **changes).notes["text"]
    return text
