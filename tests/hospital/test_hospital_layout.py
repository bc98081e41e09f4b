"""Each hospital writes its summaries with its own marks."""

import re
from collections import Counter

from samples import stays

from notetune.hospital.layout import mimic3_summary, mimic4_summary, summary_sections
from notetune.hospital.prose import author


def test_mimic3_notes_carry_its_marks_and_mimic4_notes_underscores_only():
    marks = Counter()
    for stay, earlier in stays(40):
        who = author(0, stay.presentation.number + len(marks))
        sections = summary_sections(stay, who, earlier)
        older, newer = mimic3_summary(stay, who, sections), mimic4_summary(stay, who, sections)
        assert "___" not in older
        assert "[**" not in newer
        assert not re.search(r"<[A-Z]+", older + newer)
        assert newer.startswith(" \nName:  ___                     Unit No:   ___\n \n")
        assert "\nSocial History:\n___\nFamily History:\n" in newer
        assert max(len(line) for line in older.split("\n")) <= 80
        marks.update(
            re.sub(r"[\d*\[\]-]", "", mark).strip()
            for mark in re.findall(r"\[\*\*[^*]*\*\*\]", older)
        )
        assert 150 < len(older.split()) < 650
    assert marks[""] > 80
    assert {"Known lastname", "Hospital", "Last Name (STitle)", "Doctor Last Name"} <= set(marks)
