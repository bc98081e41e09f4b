"""Studies of FHIR exports alone: the recipe for them on a small export, and what Synthea writes."""

import base64
import gzip
import json
import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from builders import random_llama
from small_study import notetune

from notetune import config
from notetune.sources import read
from notetune.sources.fhir import FhirSource

ROOT = Path(__file__).parents[2]
EXPORT = ROOT / "tests/examples/clinosim"
SMALLER = (
    "device=cpu",
    "seeds=1",
    "prepare.max_tokens=64",
    "prepare.min_train_positives=3",
    "pretrain.epochs=0.1",
    "pretrain.perplexity_documents=5",
    "pretrain.tokens_per_row=512",
    "downstream.variants=[head-only]",
    "downstream.max_pieces=1",
    "evaluate.draws=100",
)


def resources_of(folder):
    """The resources of an export by their kind, with nothing but json."""
    found = {}
    for file in sorted(folder.glob("*.ndjson.gz")):
        for line in gzip.decompress(file.read_bytes()).splitlines():
            resource = json.loads(line)
            found.setdefault(resource["resourceType"], []).append(resource)
    return found


def stay_of(resource):
    reference = resource.get("encounter") or resource["context"]["encounter"][0]
    return reference["reference"].removeprefix("Encounter/")


def moment(text):
    return datetime.fromisoformat(text)


def expected_labels(by_kind):
    """What each task says of each note of the first day, and of each note of a stay with codes.

    Of stays that are over after that day nothing is foretold.
    """
    stays = {stay["id"]: stay for stay in by_kind["Encounter"]}
    kinds = ("Composition", "DiagnosticReport", "DocumentReference")
    notes = {
        note["id"] if kind == "DocumentReference" else f"{kind}/{note['id']}": note
        for kind in kinds
        for note in by_kind[kind]
    }
    died, length = {}, {}
    for name, note in notes.items():
        stay = stays[stay_of(note)]
        start, end = (moment(stay["period"][edge]) for edge in ("start", "end"))
        told_at = start + timedelta(hours=24)
        if moment(note.get("date") or note["issued"]) > told_at or end < told_at:
            continue
        days = (end - start) / timedelta(days=1)
        length[name] = ["<=3" if days <= 3 else "3-7" if days <= 7 else ">7"]
        if disposition := stay.get("hospitalization"):
            code = disposition["dischargeDisposition"]["coding"][0]["code"]
            died[name] = ["mortality"] * (code == "exp")
    letters = {}
    for ill in by_kind["Condition"]:
        if "encounter" in ill:
            letter = ill["code"]["coding"][0]["code"][0]
            letters.setdefault(stay_of(ill), set()).add(letter)
    coded = {name: letters.get(stay_of(note), set()) for name, note in notes.items()}
    return {"mortality": died, "length_of_stay": length}, coded


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What `prepare` and `study run` take, once the first of them is done."""
    folder = tmp_path_factory.mktemp("fhir")
    shutil.copytree(EXPORT, folder / "fhir")
    backbone = random_llama(folder / "backbone")
    places = (f"data={folder}", f"runs={folder}/runs", f"backbone={backbone}")
    given = (ROOT / "recipes/fhir.yaml", *places, *SMALLER)
    done = notetune("prepare", *given)
    assert done.returncode == 0, done.stderr
    return given, folder / "runs/fhir"


@pytest.mark.slow
def test_an_export_alone_makes_a_study_with_its_report(prepared):
    given, study = prepared
    done = notetune("study", "run", *given)
    assert done.returncode == 0, done.stderr
    report = json.loads((study / "report/report.json").read_text())
    tasks = {task["task"]: task for task in report["tasks"]}
    assert set(tasks) == {"mortality", "length_of_stay", "diagnoses"}
    page = (study / "report/report.md").read_text()
    assert "Certain infectious and parasitic diseases" in page
    assert "head-only" in page


def test_every_label_is_what_the_resources_say(prepared):
    _, study = prepared
    labels, coded = expected_labels(resources_of(EXPORT))
    assert {name: len(found) for name, found in labels.items()} == {
        "mortality": 118,
        "length_of_stay": 118,
    }
    for name, expected in labels.items():
        table = pl.read_parquet(study / f"prepared/tasks/{name}.parquet")
        assert dict(table.select("note_id", "labels").iter_rows()) == expected
    table = pl.read_parquet(study / "prepared/tasks/diagnoses.parquet")
    assert set(table["note_id"]) == set(coded)
    infectious = [name for name, found in coded.items() if found & {"A", "B"}]
    said = table.filter(pl.col("labels").list.contains("A00-B99"))
    assert sorted(said["note_id"]) == sorted(infectious)
    assert len(infectious) == 53


def note_text(patient, number):
    return f"Visit {number} of {patient}.\n# Chief Complaint\nNo complaints."


def synthea(patients, *, is_bulk):
    """Bundles of patients, and what they say; as Synthea 3 writes them with US Core.

    Each encounter has a note, as a report and as a document; all documents of a patient but the
    last are superseded. In a bulk export, references name the type, else they are urn:uuid.
    """
    bundles, truth = [], []
    for patient in (f"0000-{number}" for number in range(patients)):
        resources = [{"resourceType": "Patient", "id": patient}]
        for number in range(3):
            made, told = encounter(patient, number, is_bulk=is_bulk, is_last=number == 2)
            resources += made
            truth.append(told)
        prefix = "" if is_bulk else "urn:uuid:"
        entries = [
            {"fullUrl": f"{prefix}{resource['id']}", "resource": resource} for resource in resources
        ]
        bundles.append({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    return bundles, truth


def encounter(patient, number, *, is_bulk, is_last):
    def refer(kind, name):
        return {"reference": f"{kind}/{name}" if is_bulk else f"urn:uuid:{name}"}

    stay = f"{patient}-e{number}"
    died = is_last and patient.endswith("1")
    days = 1 + 3 * number
    start, end = (
        f"2020-0{number + 1}-01T08:30:00-05:00",
        f"2020-0{number + 1}-{1 + days:02}T08:30:00-05:00",
    )
    of = {"subject": refer("Patient", patient), "encounter": refer("Encounter", stay)}
    kind = {"coding": [{"system": "http://loinc.org", "code": "34117-2"}]}
    text = note_text(patient, number)
    form = {
        "contentType": "text/plain; charset=utf-8",
        "data": base64.b64encode(text.encode()).decode(),
    }
    discharge = {"system": "http://www.nubc.org/patient-discharge", "code": "20" if died else "01"}
    snomed = {"system": "http://snomed.info/sct", "code": str(44054006 + number)}
    resources = [
        {
            "resourceType": "Encounter",
            "id": stay,
            "status": "finished",
            "class": {"code": "IMP"},
            "subject": of["subject"],
            "period": {"start": start, "end": end},
            "hospitalization": {"dischargeDisposition": {"coding": [discharge]}},
        },
        {"resourceType": "Condition", "id": f"{stay}-c", "code": {"coding": [snomed]}} | of,
        {"resourceType": "DiagnosticReport", "id": f"{stay}-l", "status": "final", "code": {}} | of,
        {
            "resourceType": "DiagnosticReport",
            "id": f"{stay}-r",
            "status": "final",
            "code": kind,
            "effectiveDateTime": start,
            "issued": start.replace("00-", "00.123-"),
            "presentedForm": [form],
        }
        | of,
        {
            "resourceType": "DocumentReference",
            "id": f"{stay}-d",
            "status": "current" if is_last else "superseded",
            "type": kind,
            "subject": of["subject"],
            "date": start.replace("00-", "00.123-"),
            "content": [{"attachment": form}],
            "context": {"encounter": [of["encounter"]], "period": {"start": start, "end": end}},
        },
    ]
    time = datetime(2020, number + 1, 1, 13, 30, 0, 123000)  # noqa: DTZ001
    return resources, (f"{stay}-r", patient, time, text, died, days, snomed["code"])


def write_bundles(folder):
    bundles, truth = synthea(6, is_bulk=False)
    for number, bundle in enumerate(bundles):
        (folder / f"Person_{number}.json").write_text(json.dumps(bundle, indent=2))
    hospitals = {
        "resourceType": "Bundle",
        "entry": [{"resource": {"resourceType": "Organization"}}],
    }
    (folder / "hospitalInformation1.json").write_text(json.dumps(hospitals))
    return truth, {"another kind of resource": 1}


def write_bulk(folder):
    bundles, truth = synthea(6, is_bulk=True)
    files = {}
    for bundle in bundles:
        for entry in bundle["entry"]:
            files.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    for kind, resources in files.items():
        (folder / f"{kind}.ndjson").write_text("".join(f"{json.dumps(r)}\n" for r in resources))
    (folder / "manifest.json").write_text("{}")
    return truth, {}


@pytest.mark.parametrize("write", [write_bundles, write_bulk])
@pytest.mark.parametrize("superseded", ["drop", "keep"])
def test_what_synthea_writes_is_read_as_each_note_once(tmp_path, write, superseded):
    truth, others = write(tmp_path)
    tables = {"path": str(tmp_path), "id_column": "encounter"}
    codes = tables | {"code_column": "snomed", "version": "as-is"}
    tasks = [
        {"name": "died", "kind": "binary", "labels": tables | {"label_column": "expired"}},
        {"name": "stay", "kind": "multiclass", "labels": tables | {"label_column": "days"}},
        {"name": "ill", "kind": "multilabel", "codes": codes},
    ]
    tasks[1]["borders"] = [3]
    source = {"kind": "fhir", "path": str(tmp_path), "superseded": superseded}
    source["tasks"] = [task | {"column": "encounter"} for task in tasks]
    cohort = read(config.parse(FhirSource, source, "recipe"))
    notes = [(f"DiagnosticReport/{name}", *rest) for name, *rest in truth]
    kept = cohort.notes.select("note_id", "patient_id", "time", "text").rows()
    assert sorted(kept) == sorted(note[:4] for note in notes)
    told = {
        "died": {name: ["died"] * died for name, *_, died, _, _ in notes},
        "stay": {name: [">3" if days > 3 else "<=3"] for name, *_, days, _ in notes},
        "ill": {name: [code] for name, *_, code in notes},
    }
    found = {task.name: dict(table[:, :2].iter_rows()) for task, table in cohort.tasks}
    assert found == told
    assert Counter(len(labels) for labels in found["died"].values()) == {0: 17, 1: 1}
    again = {"superseded": 12, "same note in another kind of resource": 6}
    if superseded == "keep":
        again = {"same note in another kind of resource": 18}
    other = {"another kind of resource": 42 + sum(others.values())}
    flow = cohort.flow[0]
    assert flow.read == 6 * (1 + 3 * 5) + sum(others.values())
    assert flow.rejected == other | again | {"report without a presented form": 18}
    assert flow.kept == 18
