"""The text of documents: of attachments in any format and charset, and of sections."""

import base64

import pytest
from fhir_documents import CANARY, attachment, cohort_of, document, packed, text_of

from notetune.errors import DataError
from notetune.sources.fhir_text import section_text
from notetune.sources.rejections import Rejected


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


CHARACTERS = {
    "declared Latin-1": (
        "text/plain; charset=iso-8859-1",
        b"5\x9610 \x93q\x94 \x85",
        "5\u201310 “q” …",
    ),
    "assumed Latin-1": ("text/plain", b"caf\xe9 5\x9610", "café 5\u201310"),
    "HTML in Latin-1": ("text/html", b"<p>5\x9610\x85</p>", "5\u201310…"),
    "a byte that means nothing": ("text/plain; charset=latin1", b"5\x8110", "5 10"),
    "HTML that declares": ("text/html", b'<meta charset="iso-8859-15">\xa4 5\x9610', "€ 5\u201310"),
    "XML that declares": (
        "text/xml",
        b"<?xml version='1.0' encoding='ISO-8859-15'?><a>\xa45</a>",
        "€5",
    ),
    "UTF-8 that is said to be Latin-1": ("text/html", "<meta charset=latin1>é".encode(), "é"),
    "UTF-8 with a mark": ("text/plain", b"\xef\xbb\xbf5 mg", "5 mg"),
    "Latin-1 with the mark of UTF-8": (
        "text/plain; charset=iso-8859-1",
        b"\xef\xbb\xbf\xc3\xa9",
        "é",
    ),
    "UTF-16 by its mark": ("text/plain", "é 5".encode("utf-16"), "é 5"),
    "a mark between numbers": ("text/plain", "5\ufeff10".encode(), "5 10"),
    "a mark in HTML": ("text/html", "<b>5</b>\ufeff<i>10</i>".encode(), "5 10"),
}


@pytest.mark.parametrize("case", CHARACTERS)
def test_bytes_become_the_characters_that_were_meant(tmp_path, case):
    content_type, raw, text = CHARACTERS[case]
    data = base64.b64encode(raw).decode()
    assert text_of(tmp_path, attachment(content_type, data=data)) == text


def test_damaged_utf_8_is_not_taken_for_latin_1(tmp_path):
    for raw in (b"caf\xc3\xa9 \xff", b"caf\xc3"):
        content = attachment("text/plain", data=base64.b64encode(raw).decode())
        with pytest.raises(DataError, match="attachment is not in its charset"):
            text_of(tmp_path, content)


def plain(text):
    return attachment("text/plain", data=packed(text))


def html(text):
    return attachment("text/html", data=packed(text))


PDF = attachment("application/pdf", data=packed("%PDF-1.7"))
RTF = attachment("text/rtf", data=packed(r"{\rtf1 zygomorphic}"))
SEVERAL = {
    "two parts": ([plain("one"), plain("two")], "one\n\ntwo"),
    "one part twice": ([plain("one"), plain("one")], "one"),
    "one content in two formats": ([html("<p>One <b>two</b>"), plain("one  two")], "one  two"),
    "nearly the same in two formats": (
        [html("<h1>Note</h1>" + "word " * 40), plain("word " * 40)],
        " ".join(["word"] * 40),
    ),
    "different contents in two formats": ([html("<p>one"), plain("two")], "one\n\ntwo"),
    "parts, one of them twice": (
        [plain("one two"), html("<p>one two"), html("<p>three")],
        "one two\n\nthree",
    ),
    "HTML alone": ([PDF, html("<p>one")], "one"),
    "HTML before XML": ([attachment("text/xml", data=packed("<a>one</a>")), html("One")], "One"),
    "text beside RTF": ([RTF, plain("one")], "one"),
    "RTF that calls itself plain": (
        [plain(r"{\rtf1 zygomorphic}"), html("<p>one")],
        "one",
    ),
    "a format that is not here": (
        [attachment("text/html", url="https://a.example/1"), plain("one")],
        "one",
    ),
    "an empty one": ([plain(" "), html("<p>one")], "one"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_all_attachments_of_text_are_read_once_each(tmp_path, case):
    content, text = SEVERAL[case]
    assert text_of(tmp_path, *content) == text


WITHOUT_TEXT = {
    "attachment of application/pdf alone": [PDF],
    "attachment of text/rtf alone": [RTF],
    "attachment of application/rtf alone": [plain(r"{\rtf1 zygomorphic}")],
    "attachment of image/png alone": [attachment("IMAGE/PNG", data=packed("a"))],
    "attachment of an unknown type": [attachment("zygomorphic/plain", data=packed("a"))],
    "no attachment of text": [],
    "no such attachment file": [plain("one"), attachment("text/plain", url="attachments/2.txt")],
}


@pytest.mark.parametrize("reason", WITHOUT_TEXT)
def test_a_document_without_text_or_a_part_of_it_is_refused_by_name(tmp_path, reason):
    resources = [document("d0"), document("d1", content=WITHOUT_TEXT[reason])]
    with pytest.raises(DataError, match=f"line 2: {reason}") as caught:
        cohort_of(tmp_path, *resources)
    assert CANARY not in str(caught.value)
    cohort = cohort_of(tmp_path, *resources, policy="quarantine", max_rejected_share=0.5)
    assert cohort.flow[0].rejected == {reason: 1}
    assert (len(CHARACTERS), len(SEVERAL), len(WITHOUT_TEXT)) == (12, 12, 7)


def test_an_attachment_without_a_type_is_of_an_unknown_one(tmp_path):
    untyped = [{"attachment": {"data": packed("a")}}]
    with pytest.raises(DataError, match="line 2: attachment of an unknown type"):
        cohort_of(tmp_path, document("d0"), document("d1", content=untyped))


def section(title, text=None, *inside):
    div = {} if text is None else {"text": {"div": f"<div>{text}</div>"}}
    return {"title": title, "section": list(inside)} | div


def test_sections_stand_in_order_under_their_titles():
    sections = [
        section("Course", "<p>Fever</p><p>38<b>5</b></p>"),
        section("Empty", None, section("Empty too")),
        section("Plan", None, section("Drugs", "aspirin"), section(None, "rest")),
        section("ALLERGIES", "<b>Allergies</b><br/>none"),
    ]
    text = "Course\nFever\n38 5\n\nPlan\nDrugs\naspirin\n\nrest\n\nAllergies\nnone"
    assert section_text({"section": sections}) == text


def test_sections_without_text_or_too_deep_are_refused():
    with pytest.raises(Rejected, match="no section with text"):
        section_text({"section": [section("Empty")]})
    deep = section("in", CANARY)
    for _ in range(60):
        deep = section("out", None, deep)
    with pytest.raises(Rejected, match="sections over 50 deep"):
        section_text({"section": [deep]})
