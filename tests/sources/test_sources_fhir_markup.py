"""What is seen of HTML and XML."""

import pytest
from fhir_documents import attachment, packed, text_of

from notetune.sources.fhir_markup import visible_text

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


CDA = """<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3">
<title>Discharge</title><code code="34133-9"/><section><title>Course</title>
<text><paragraph>Fever <content styleCode="Bold">38</content><content>5</content></paragraph>
<list><item>aspirin</item><item>heparin</item></list></text></section>
<value>7</value><unit>8</unit><name>one</name><name>two</name>
<note><![CDATA[5 < 6 & <b>]]></note></ClinicalDocument>"""


@pytest.mark.parametrize("content_type", ["application/xml", "text/xml; charset=utf-8"])
def test_xml_is_its_text_without_tags(tmp_path, content_type):
    assert text_of(tmp_path, attachment(content_type, data=packed(CDA))).split("\n") == [
        "Discharge",
        "Course",
        "Fever 38 5",
        "aspirin",
        "heparin",
        "7 8 one two 5 < 6 & <b>",
    ]


def test_xhtml_is_read_as_html_is(tmp_path):
    data = packed("<html><head><title>T</title></head><body><p>One<br/>two</p></body></html>")
    assert text_of(tmp_path, attachment("application/xhtml+xml", data=data)) == "One\ntwo"


def test_much_damaged_markup_takes_no_longer_than_its_length():
    count = 200_000
    assert visible_text("<![CDATA[" * count, is_xml=True) == ""
    assert visible_text("<![CDATA[5" + "<![CDATA[6]]>7", is_xml=True) == "5 6 7"
