"""Edge cases of the MIMIC-III notes: what the section extraction and the death clean-up meet.

Each function changes one chart and says what it did. The behaviour of the published 2021 scripts
is given where it differs from that of a correct reader.
"""

import copy
import dataclasses
import datetime as dt
from collections.abc import Mapping

from edge_cases.cases import Edge, EdgeCase, Fate, Verdict
from notetune.hospital.charts import Chart, Visit
from notetune.hospital.layout import mimic3_summary, summary_sections
from notetune.hospital.ward_notes import Note

_HISTORY = "History of Present Illness"
_ONE, _TWO, _DEATH = Fate(), Fate(admissions=2), Fate(dies=True)


def _retold(
    visit: Visit, added: Mapping[str, str] | None = None, replaced: Mapping[str, str] | None = None
) -> str:
    """The visit's discharge summary again, changed, with headings on their own lines."""
    author = dataclasses.replace(visit.author, layout="lines", slips=0.0, bullet="- ")
    sections = summary_sections(visit.stay, author, None)
    for name, text in (added or {}).items():
        sections[name] += text
    return mimic3_summary(visit.stay, author, sections | dict(replaced or {}))


def _addendum(visit: Visit, days_later: int, text: str) -> Note:
    written = visit.stay.discharged + dt.timedelta(days=days_later)
    return Note("Discharge summary", "Addendum", written, text, has_time=False)


def _null_hadm_id(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.notes[0].has_admission = False
    reason = "the discharge summary has no HADM_ID"
    what = "The only discharge summary has an empty HADM_ID."
    return [EdgeCase(chart, "null_hadm_id", what, [visit], visit.notes[:1], Verdict(False, reason))]


def _addendum_same_day(chart: Chart) -> list[EdgeCase]:
    return [_with_addendum(chart, "addendum_same_day", 0, "on the day of the report")]


def _addendum_later(chart: Chart) -> list[EdgeCase]:
    return [_with_addendum(chart, "addendum_later", 9, "nine days after the report")]


def _with_addendum(chart: Chart, name: str, days: int, when: str) -> EdgeCase:
    visit = chart.visits[0]
    text = f"Addendum:\nDictated {when}. The final cultures returned without growth.\n"
    visit.notes.insert(1, _addendum(visit, days, text))
    what = f"An addendum was written {when}; it follows the report in the joined text."
    return EdgeCase(
        chart, name, what, [visit], visit.notes[:2], Verdict(True, "report, then addendum")
    )


def _orphan_addendum(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.notes[0] = _addendum(visit, 3, visit.notes[0].text)
    reason = "no discharge summary of description Report"
    what = "The admission has an addendum and no report."
    return [
        EdgeCase(chart, "orphan_addendum", what, [visit], visit.notes[:1], Verdict(False, reason))
    ]


def _two_reports(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    first, second = copy.copy(visit.notes[0]), copy.copy(visit.notes[0])
    first.text = _retold(visit)
    second.written += dt.timedelta(days=2)
    second.text = _retold(visit, {"Discharge Instructions": " This is the corrected summary."})
    visit.notes[:1] = [first, second]
    verdict = Verdict(True, "joined in the order of their dates")
    what = "Two different reports of one admission, two days apart."
    return [EdgeCase(chart, "two_reports", what, [visit], visit.notes[:2], verdict)]


def _duplicate_same(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.notes.insert(1, copy.copy(visit.notes[0]))
    what = "The same discharge summary twice in one admission."
    verdict = Verdict(True, "the text is used once")
    return [
        EdgeCase(chart, "duplicate_text_same_admission", what, [visit], visit.notes[:2], verdict)
    ]


def _duplicate_other(chart: Chart) -> list[EdgeCase]:
    first, second = chart.visits[0], chart.visits[1]
    first.notes[0].text = second.notes[0].text
    reason = "its text is repeated under a later admission, which keeps it"
    notes = [first.notes[0], second.notes[0]]
    what = "The same discharge summary under two admissions of one patient."
    return [
        EdgeCase(chart, "duplicate_text_earlier", what, [first], notes, Verdict(False, reason)),
        EdgeCase(
            chart,
            "duplicate_text_later",
            what,
            [second],
            notes,
            Verdict(True, "the last one is kept"),
        ),
    ]


def _no_sections(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.notes[0].text = (
        "Please see the transfer note for the details of this stay. The patient did well and was\n"
        "discharged on the usual medicines. No further summary was dictated.\n"
    )
    reason = "no chief complaint, present illness or medical history"
    what = "A discharge summary without headings."
    return [EdgeCase(chart, "no_sections", what, [visit], visit.notes[:1], Verdict(False, reason))]


def _empty_section(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    leak = "Exploratory mediastinoscopy with biopsy"
    changed = {"Chief Complaint": "", "Major Surgical or Invasive Procedure": leak}
    text = _retold(visit, replaced=changed)
    # One blank line, not two: with two the published pattern finds the empty section.
    visit.notes[0].text = text.replace("Chief Complaint:\n\n\n", "Chief Complaint:\n\n")
    return [
        EdgeCase(
            chart,
            "empty_section",
            "The chief complaint is empty; the next section must not become its text.",
            [visit],
            visit.notes[:1],
            Verdict(True, "empty chief complaint", absent=(leak,)),
            Verdict(True, "the next section bleeds into the chief complaint", present=(leak,)),
        )
    ]


def _missing_blank_line(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    told, leak = "Symptoms began while shovelling snow.", "The attending dictated this course late."
    text = _retold(visit, {_HISTORY: f" {told}", "Brief Hospital Course": f"\n{leak}"})
    start = text.index(f"{_HISTORY}:")
    end = text.index("Discharge Disposition:")
    visit.notes[0].text = text[:start] + text[start:end].replace("\n\n", "\n") + text[end:]
    return [
        EdgeCase(
            chart,
            "missing_blank_line",
            "No blank line from the present illness to the discharge medications.",
            [visit],
            visit.notes[:1],
            Verdict(True, "headings end sections", present=(told,), absent=(leak,)),
            Verdict(True, "the hospital course is swallowed", present=(told, leak)),
        )
    ]


def _paragraph_with_colon(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    told = "the pulse was regular and the patient felt cold"
    text = f"\n\nIn the trauma bay vitals were: {told}."
    visit.notes[0].text = _retold(visit, {_HISTORY: text})
    return [
        EdgeCase(
            chart,
            "paragraph_with_colon",
            "A paragraph of the present illness opens like a heading.",
            [visit],
            visit.notes[:1],
            Verdict(True, "prose with a colon is no heading", present=(told,)),
            Verdict(True, "the present illness ends before it", absent=(told,)),
        )
    ]


def _crlf(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.notes[0].text = visit.notes[0].text.replace("\n", "\r\n")
    reason = "no section is found between carriage returns"
    return [
        EdgeCase(
            chart,
            "crlf",
            "The lines of the discharge summary end in carriage return and line feed.",
            [visit],
            visit.notes[:1],
            Verdict(True, "line ends are normalised"),
            Verdict(False, reason),
        )
    ]


def _unicode(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    told = "Temp 38.4 °C, naïve to opioids, INR ≥ 2, µg doses — per Dr. Müller"
    visit.notes[0].text = _retold(visit, {_HISTORY: f" {told}."})
    verdict = Verdict(True, "text is UTF-8", present=("38.4 °C", "naïve", "≥ 2", "Müller"))
    what = "Characters outside ASCII in the present illness."
    return [EdgeCase(chart, "unicode", what, [visit], visit.notes[:1], verdict)]


def _death_in(name: str, section: str, text: str, gone: str) -> Edge:
    """Death wording in a section where it is cut out and the admission stays."""

    def edit(chart: Chart) -> list[EdgeCase]:
        visit = chart.visits[0]
        visit.notes[0].text = _retold(visit, {section: text})
        what = f"Death wording once in {section}."
        verdict = Verdict(True, "the wording is cut out", absent=(gone,), labels=(("MOR", "1"),))
        return [EdgeCase(chart, name, what, [visit], visit.notes[:1], verdict, tasks=("MOR",))]

    return _DEATH, edit


def _death_drops(name: str, text: str) -> Edge:
    """Death wording in the present illness: the mortality task leaves the admission out."""

    def edit(chart: Chart) -> list[EdgeCase]:
        visit = chart.visits[0]
        visit.notes[0].text = _retold(visit, {_HISTORY: f" {text}"})
        reason = "death wording in the admission note"
        what = "Death wording in the present illness."
        verdict = Verdict(False, reason)
        return [EdgeCase(chart, name, what, [visit], visit.notes[:1], verdict, tasks=("MOR",))]

    return _DEATH, edit


NOTE_EDGES: tuple[Edge, ...] = (
    (_ONE, _null_hadm_id),
    (_ONE, _addendum_same_day),
    (_ONE, _addendum_later),
    (_ONE, _orphan_addendum),
    (_ONE, _two_reports),
    (_ONE, _duplicate_same),
    (_TWO, _duplicate_other),
    (_ONE, _no_sections),
    (_ONE, _empty_section),
    (_ONE, _missing_blank_line),
    (_ONE, _paragraph_with_colon),
    (_ONE, _crlf),
    (_ONE, _unicode),
    _death_in("death_in_exam", "Physical Exam", "\nLater: patient expired.", "patient expired"),
    _death_in(
        "death_in_medications",
        "Medications on Admission",
        "\n- list from pharmacy, pt deceased",
        "pt deceased",
    ),
    _death_drops("death_in_history", "In brief, the patient had passed away before rounds."),
    _death_drops("he_expired", "The family was called and he expired overnight."),
    _death_drops("time_of_death", "Time of death was noted by the covering resident."),
)
