"""The text of attachments: decoded, read from HTML, found in a local Binary."""

import gzip
import json

import pytest
from fhir_documents import CANARY, attachment, cohort_of, document, packed, text_of

from notetune.errors import DataError


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
