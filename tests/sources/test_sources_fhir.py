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
    assert cohort.notes.rows() == [("d1", "p1", "e1", "discharge summary", time, f"{CANARY} one")]
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
        ("urn:uuid:1d2e", "1d2e"),
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
    "attachment of application/pdf alone": one("application/pdf", data=packed(CANARY)),
    "attachment without data or url": one(),
    "attachment is not base64": one(data=f"{CANARY}!"),
    "attachment is not in its charset": one(
        "text/plain; charset=utf-8", data=packed(f"{CANARY} \xe9", "latin-1")
    ),
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


def test_superseded_documents_can_be_kept_and_mistaken_ones_cannot(tmp_path):
    documents = [
        document("d1", status="superseded"),
        document("d2", status="superseded", docStatus="entered-in-error"),
        document("d3", status="entered-in-error"),
    ]
    cohort = cohort_of(tmp_path, *documents, superseded="keep")
    assert cohort.notes["note_id"].to_list() == ["d1"]
    assert cohort.flow == (FlowCount("notes", 3, 1, {"entered in error": 2}),)


def report(name="d1", **changes):
    return {
        "resourceType": "DiagnosticReport",
        "id": name,
        "status": "final",
        "code": {"coding": [{"code": "24627-2", "display": "Chest CT"}]},
        "subject": {"reference": "Patient/p1"},
        "encounter": {"reference": "Encounter/e1"},
        "issued": "2150-01-02T08:00:00+01:00",
        "presentedForm": [{"contentType": "text/plain", "data": packed("no embolus")}],
    } | changes


def composition(name="d1", **changes):
    section = {"title": "Course", "text": {"div": "<div><p>Fever</p></div>"}}
    return {
        "resourceType": "Composition",
        "id": name,
        "status": "final",
        "type": {"text": "Discharge Summary"},
        "subject": {"reference": "Patient/p1"},
        "encounter": {"reference": "Encounter/e1"},
        "date": "2150-01-02",
        "section": [section],
    } | changes


def test_reports_and_compositions_are_notes_beside_documents(tmp_path):
    cohort = cohort_of(
        tmp_path,
        document(),
        report(),
        report("r2", issued=None, effectiveDateTime="2150-01-02", code=None),
        report("r3", presentedForm=None),
        report("r4", status="cancelled"),
        report("r5", status="entered-in-error"),
        composition(),
    )
    eight, midnight = datetime(2150, 1, 2, 7), datetime(2150, 1, 2)  # noqa: DTZ001
    assert cohort.notes.rows() == [
        ("d1", "p1", "e1", "discharge summary", eight, f"{CANARY} one"),
        ("DiagnosticReport/d1", "p1", "e1", "chest ct", eight, "no embolus"),
        ("DiagnosticReport/r2", "p1", "e1", "document", midnight, "no embolus"),
        ("Composition/d1", "p1", "e1", "discharge summary", midnight, "Course\nFever"),
    ]
    left_out = {"report without a presented form": 1, "cancelled": 1, "entered in error": 1}
    assert cohort.flow == (FlowCount("notes", 7, 4, left_out),)


def test_a_note_that_is_a_report_and_a_document_is_read_once(tmp_path):
    same = {"content": [attachment("text/plain", data=packed("no embolus"))]}
    other_stay = same | {"context": {"encounter": [{"reference": "Encounter/e2"}]}}
    other_patient = same | {"subject": {"reference": "Patient/p2"}}
    cohort = cohort_of(
        tmp_path,
        report("r1"),
        report("r2"),
        document("d1", **same),
        document("d2", **same),
        document("d3", **other_stay),
        document("d4", **other_patient),
    )
    kept = ["DiagnosticReport/r1", "DiagnosticReport/r2", "d3", "d4"]
    assert cohort.notes["note_id"].to_list() == kept
    assert cohort.flow == (FlowCount("notes", 6, 4, {"same note in another kind of resource": 2}),)


def test_a_note_is_read_where_the_same_one_of_another_kind_was_rejected(tmp_path):
    same = {"content": [attachment("text/plain", data=packed("no embolus"))], "date": "in May"}
    policy = {"policy": "quarantine", "max_rejected_share": 0.5}
    cohort = cohort_of(tmp_path, document("d1", **same), report("r1"), **policy)
    assert cohort.notes["note_id"].to_list() == ["DiagnosticReport/r1"]
    assert cohort.flow[0].rejected == {"unreadable time": 1}


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        (composition(section=[{"title": CANARY}]), "no section with text"),
        (composition(status="current"), "no known status"),
        (report(id=None), "missing note id"),
        (report(presentedForm=[{"contentType": "application/pdf"}]), "of application/pdf alone"),
    ],
)
def test_a_bad_report_or_composition_stops_without_its_text(tmp_path, resource, problem):
    with pytest.raises(DataError, match=f"line 2: .*{problem}") as caught:
        cohort_of(tmp_path, document(), resource)
    assert CANARY not in str(caught.value)


def test_an_export_alone_gives_notes_and_outcomes(tmp_path):
    stays = [("e1", "exp", "2150-01-09"), ("e2", "home", "2150-01-03")]
    others = [
        {
            "resourceType": "Encounter",
            "id": name,
            "status": "finished",
            "period": {"start": "2150-01-01", "end": end},
            "hospitalization": {"dischargeDisposition": {"coding": [{"code": code}]}},
        }
        for name, code, end in stays
    ]
    others.append(
        {
            "resourceType": "Condition",
            "encounter": {"reference": "Encounter/e2"},
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9"}]},
        }
    )
    (tmp_path / "others.ndjson").write_text("\n".join(map(json.dumps, others)))
    second = {"encounter": [{"reference": "Encounter/e2"}]}
    tables = {"path": tmp_path, "id_column": "encounter"}
    codes = tables | {"code_column": "icd10", "version": "icd10"}
    tasks = [
        {"name": "mortality", "kind": "binary", "labels": tables | {"label_column": "expired"}},
        {"name": "stay", "kind": "multiclass", "labels": tables | {"label_column": "days"}},
        {"name": "icd", "kind": "multilabel", "codes": codes},
    ]
    tasks[0]["prediction_time"] = "start"
    tasks[1]["borders"] = [3, 7]
    cohort = cohort_of(
        tmp_path,
        document("d1"),
        document("d2", context=second),
        tasks=[task | {"column": "encounter"} for task in tasks],
    )
    found = {
        task.name: (task.classes, dict(table[:, :2].iter_rows())) for task, table in cohort.tasks
    }
    assert found == {
        "mortality": (("mortality",), {"d1": ["mortality"], "d2": []}),
        "stay": (("<=3", "3-7", ">7"), {"d1": [">7"], "d2": ["<=3"]}),
        "icd": (("E11",), {"d1": [], "d2": ["E11"]}),
    }
    start = datetime(2150, 1, 1)  # noqa: DTZ001
    assert cohort.tasks[0][1]["prediction_time"].to_list() == [start, start]


def stays_task(folder, ends):
    """Mortality 24 hours after the start of stays of the first day of 2150, with their ends."""
    stays = [
        {
            "resourceType": "Encounter",
            "id": f"e{number}",
            "period": {"start": "2150-01-01T00:00:00Z"} | ({"end": end} if end else {}),
            "hospitalization": {"dischargeDisposition": {"coding": [{"code": code}]}},
        }
        for number, (end, code) in enumerate(ends)
    ]
    (folder / "stays.ndjson").write_text("\n".join(map(json.dumps, stays)))
    table = {"path": folder / "stays.ndjson", "id_column": "encounter", "label_column": "expired"}
    task = {"name": "mortality", "kind": "binary", "column": "encounter", "labels": table}
    return task | {"prediction_time": "start", "prediction_hours": 24}


def test_stays_that_ended_before_the_prediction_time_are_left_out_and_counted(tmp_path):
    ends = [
        ("2150-01-01T05:00:00Z", "exp"),
        ("2150-01-01", "home"),
        ("2150-01-02T00:00:01Z", "exp"),
        ("2150-01-02", "home"),
        (None, "home"),
        ("2150-01-01T00:00:00Z", "home"),  # a midnight, not a day
    ]
    documents = [
        document(f"d{number}", context={"encounter": [{"reference": f"Encounter/e{number}"}]})
        for number in range(len(ends))
    ]
    task = stays_task(tmp_path, ends)
    cohort = cohort_of(tmp_path, *documents, tasks=[task])
    ((_, table),) = cohort.tasks
    labels = dict(table.select("note_id", "labels").iter_rows())
    assert labels == {"d2": ["mortality"], "d3": [], "d4": []}
    flow = {stage.stage: stage.rejected for stage in cohort.flow}
    reason = "stay ended before the prediction time"
    assert flow["rows of the table for task mortality"] == {reason: 3}
    assert flow["task mortality"] == {"missing label": 0, reason: 3}


def test_a_stay_that_ends_before_the_hours_after_its_end_stays(tmp_path):
    task = stays_task(tmp_path, [("2150-01-01T05:00:00Z", "exp"), ("2150-01-01", "home")])
    documents = [document("d0", context={"encounter": [{"reference": "Encounter/e0"}]})]
    cohort = cohort_of(tmp_path, *documents, tasks=[task | {"prediction_time": "end"}])
    assert cohort.tasks[0][1]["labels"].to_list() == [["mortality"]]
