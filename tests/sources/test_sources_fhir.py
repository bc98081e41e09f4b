import base64
import gzip
import json
from datetime import datetime

import pytest

from notetune import config
from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.sources import FhirSource, read

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
    ("content_type", "charset"),
    [
        ("text/plain", "utf-8"),
        ("TEXT/PLAIN; charset=UTF-8", "utf-8"),
        ('text/plain;charset="iso-8859-1"', "latin-1"),
        ("text/plain; format=flowed; charset=windows-1252", "cp1252"),
        ("text/plain; charset=utf-16", "utf-16"),
    ],
)
def test_text_is_decoded_by_its_charset(tmp_path, content_type, charset):
    data = packed("caf\xe9 one\r\ntwo", charset)
    assert text_of(tmp_path, attachment(content_type, data=data)) == "caf\xe9 one\ntwo"


def test_base64_may_be_wrapped_in_lines(tmp_path):
    data = packed("one two three four")
    assert text_of(tmp_path, attachment("text/plain", data=f"{data[:8]}\n {data[8:]}")) == (
        "one two three four"
    )


HTML = """<html><head><title>Secret title</title><style>p {color: red}</style></head>
<body><h1>Chief&nbsp;Complaint</h1><p>Chest <b>pain</b>,
  2 &lt; 3 days.<br/>None<script>alert("x")</script> else.</p>
<table><tr><td>HR</td><td>80</td></tr><tr><td>BP</td><td>120/80</td></tr></table>
<ul><li>aspirin<li>heparin</ul><pre>kept   spaces
second line</pre><!-- hidden --></body></html>"""


def test_html_is_read_as_its_visible_text(tmp_path):
    assert text_of(tmp_path, attachment("text/html", data=packed(HTML))).split("\n") == [
        "Chief Complaint",
        "Chest pain, 2 < 3 days.",
        "None else.",
        "HR 80",
        "BP 120/80",
        "aspirin",
        "heparin",
        "kept   spaces",
        "second line",
    ]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("platelets 10<sup>9</sup>/L", "platelets 10 9/L"),
        ("<pre>10<sup>9</sup>/L</pre>", "10 9/L"),
        ("<span>5</span><span>10</span> mg", "5 10 mg"),
        ("5<!-- x -->10<script>7</script>mg<img>daily", "5 10 mg daily"),
        (
            "<b>W</b>ound H<sub>2</sub>O &#150; 5&#x96;10\x96mg",
            "Wound H2O \u2013 5\u201310\u2013mg",
        ),
    ],
)
def test_numbers_never_run_together_where_markup_parts_them(tmp_path, html, expected):
    assert text_of(tmp_path, attachment("text/html", data=packed(html))) == expected


def test_plain_text_is_preferred_wherever_it_stands(tmp_path):
    formats = [
        attachment("application/pdf", data=packed("%PDF")),
        attachment("text/html", data=packed("<p>html</p>")),
        attachment("text/plain", data=packed("plain")),
        attachment("text/plain", data=packed("other plain")),
    ]
    assert text_of(tmp_path, *formats) == "plain"
    assert text_of(tmp_path, *formats[:2]) == "html"


def write_binaries(folder, how):
    resources = [
        {"resourceType": "Binary", "id": f"b{i}", "data": packed(f"{CANARY} binary {i}")}
        for i in range(3)
    ]
    if how == "file":
        path = folder / "Binary.ndjson"
        path.write_text("\n".join(map(json.dumps, resources)))
        return path
    path = folder / "binaries"
    path.mkdir()
    for resource in resources:
        name = f"{resource['id']}.{'json' if how == 'one file each' else 'ndjson'}"
        (path / name).write_text(json.dumps(resource))
    return path


@pytest.mark.parametrize("how", ["file", "folder of files", "one file each"])
@pytest.mark.parametrize(
    "url", ["Binary/b1", "https://hospital.example/fhir/Binary/b1", "Binary/b1/_history/2"]
)
def test_a_url_leads_to_a_local_binary(tmp_path, how, url):
    binaries = write_binaries(tmp_path, how)
    text = text_of(tmp_path, attachment("text/plain", url=url), binaries=binaries)
    assert text == f"{CANARY} binary 1"


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


@pytest.mark.parametrize(
    "url", ["../../secret", "Binary/../secret", "Binary/%2e%2e", "file:///secret", "Binary/"]
)
def test_a_url_never_leaves_the_folder_of_binaries(tmp_path, url):
    folder = tmp_path / "binaries"
    folder.mkdir()
    secret = {"resourceType": "Binary", "id": "secret", "data": packed(CANARY)}
    (tmp_path / "secret.json").write_text(json.dumps(secret))
    with pytest.raises(DataError, match=r"without data or url to a Binary|no such Binary"):
        text_of(tmp_path, attachment("text/plain", url=url), binaries=folder)


def test_packed_or_damaged_binaries_are_refused(tmp_path):
    path = tmp_path / "Binary.ndjson.gz"
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match="is packed, so that no Binary in it can be found"):
        cohort_of(tmp_path, document(), binaries=path)
    (tmp_path / "Binary.ndjson").write_text(f'{{"a": "{CANARY}\n')
    with pytest.raises(DataError, match=r"Binary\.ndjson, line 1: not a JSON object") as caught:
        cohort_of(tmp_path, document(), binaries=tmp_path / "Binary.ndjson")
    assert CANARY not in str(caught.value)
