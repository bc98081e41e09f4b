import gzip
import json
from datetime import datetime

import pytest
from fhir_documents import CANARY, attachment, cohort_of, document, packed, source_of

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources import read


def test_a_document_becomes_a_note(tmp_path):
    cohort = cohort_of(tmp_path, document())
    time = datetime(2150, 1, 2, 7)  # noqa: DTZ001
    assert cohort.notes.rows() == [("d1", "p1", "discharge summary", time, f"{CANARY} one")]
    assert cohort.flow == (FlowCount("notes", 1, 1),)


def test_packed_files_and_folders_of_files_are_read_in_order(tmp_path):
    for number, name in enumerate(("a.ndjson", "b.ndjson.gz")):
        content = json.dumps(document(f"d{number}")).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read(source_of(tmp_path)).notes["note_id"].to_list() == ["d0", "d1"]


def test_superseded_mistaken_and_other_resources_are_left_out_and_counted(tmp_path):
    cohort = cohort_of(
        tmp_path,
        document("d1"),
        document("d2", status="superseded"),
        document("d3", status="entered-in-error"),
        document("d4", docStatus="entered-in-error"),
        document("d5", docStatus="amended"),
        {"resourceType": "Patient", "id": "p1"},
    )
    assert cohort.notes["note_id"].to_list() == ["d1", "d5"]
    left_out = {"superseded": 1, "entered in error": 2, "another kind of resource": 1}
    assert cohort.flow == (FlowCount("notes", 6, 2, left_out),)
    assert cohort.rejections.is_empty()


@pytest.mark.parametrize(
    ("subject", "patient"),
    [
        ("Patient/p1", "p1"),
        ("https://hospital.example/fhir/Patient/p1/_history/3", "p1"),
        ("urn:uuid:1d2e", "urn:uuid:1d2e"),
    ],
)
def test_the_patient_is_the_id_in_the_reference(tmp_path, subject, patient):
    cohort = cohort_of(tmp_path, document(subject={"reference": subject}))
    assert cohort.notes["patient_id"].to_list() == [patient]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ({"coding": [{"code": "18842-5"}], "text": "Summary"}, "discharge"),
        ({"coding": [{"code": "1", "display": "Shown"}], "text": "Radiology"}, "radiology"),
        ({"coding": [{"code": "1", "display": "Shown"}]}, "shown"),
        ({"coding": [{"code": "11506-3"}]}, "11506-3"),
        ({"text": CANARY * 20, "coding": "none"}, "document"),
        (None, "document"),
    ],
)
def test_a_document_is_grouped_by_code_text_or_display(tmp_path, kind, name):
    cohort = cohort_of(tmp_path, document(type=kind), types={"18842-5": "discharge"})
    assert cohort.notes["source"].to_list() == [name]


@pytest.mark.parametrize("column", ["id", "patient", "encounter"])
def test_labels_come_per_document_patient_or_encounter(tmp_path, column):
    cohort = {"id": "d1", "patient": "p1", "encounter": "e1"}
    (tmp_path / "labels.csv").write_text(f"who,died\n{cohort[column]},1\n")
    labels = {"path": tmp_path / "labels.csv", "id_column": "who", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": column, "labels": labels}
    ((_, table),) = cohort_of(tmp_path, document(), tasks=[task]).tasks
    assert table.rows() == [("d1", ["death"])]


def one(kind="text/plain", **fields):
    return {"content": [attachment(kind, **fields)]}


BAD = {
    "no known status": {"status": None},
    "missing patient id": {"subject": {"reference": "Group/p1"}},
    "missing note id": {"id": None},
    "control characters in column id": {"id": "\ud800"},
    "unreadable time": {"date": CANARY},
    "no attachment of text": one("application/pdf", data=packed(CANARY)),
    "attachment without data or url": one(),
    "attachment is not base64": one(data=f"{CANARY}!"),
    "attachment is not in its charset": one(data=packed(f"{CANARY} \xe9", "latin-1")),
    "attachment in an unknown charset": one(
        "text/plain; charset=unicode_escape", data=packed(CANARY)
    ),
    "no such Binary": one(url="Binary/unknown"),
    "empty text": one(data=packed(" \n")),
    "note id repeated with the same text": {"id": "d0"},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_document_stops_or_is_counted_without_its_text(tmp_path, reason):
    resources = [document("d0"), document("d1", **BAD[reason])]
    with pytest.raises(DataError, match=rf"ndjson, line 2: {reason}") as caught:
        cohort_of(tmp_path, *resources)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    lenient = {"policy": "quarantine", "max_rejected_share": 0.5}
    cohort = cohort_of(tmp_path, *resources, **lenient)
    ((found, count),) = cohort.flow[0].rejected.items()
    assert found.startswith(reason)
    assert (cohort.flow[0].read, cohort.flow[0].kept, count) == (2, 1, 1)
    assert CANARY not in str(cohort.rejections.rows())


def test_the_bad_documents_are_all_there():
    assert len(BAD) == 13
