"""Edge cases of the MIMIC-IV part."""

import copy
import datetime as dt

from edge_cases.cases import Edge, EdgeCase, Fate, Verdict
from notetune.hospital.charts import Chart
from notetune.hospital.ward_notes import Note

_ICD_WIDTH = 7  # icd_code is CHAR(7) in the database
_LONG_NOTE_WORDS = 6000


def _addendum(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    written = visit.stay.discharged + dt.timedelta(days=4)
    text = " \nAddendum:\nPending cultures returned without growth.\n"
    visit.notes.insert(1, Note("AD", "", written, text))
    verdict = Verdict(True, "the addendum follows the summary")
    what = "An addendum (note type AD) four days after the summary."
    return [EdgeCase(chart, "mimic4_addendum", what, [visit], visit.notes[:2], verdict)]


def _replaced(name: str, what: str, old: str, new: str) -> Edge:
    """Other white space where the text has a space or a line feed."""

    def edit(chart: Chart) -> list[EdgeCase]:
        visit = chart.visits[0]
        head, heading, tail = visit.notes[0].text.partition("Past Medical History:")
        visit.notes[0].text = head + heading + tail.replace(old, new, 3)
        verdict = Verdict(True, "white space is normalised", absent=(new,))
        return [EdgeCase(chart, name, what, [visit], visit.notes[:1], verdict)]

    return Fate(), edit


def _very_short(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.notes[0].text = " \nName:  ___\n \nSee paper chart.\n"
    reason = "no chief complaint, present illness or medical history"
    what = "A discharge summary of a few words."
    return [
        EdgeCase(chart, "mimic4_very_short", what, [visit], visit.notes[:1], Verdict(False, reason))
    ]


def _very_long(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    line = "Hematology labs were stable compared with the day before.\n"
    repeats = _LONG_NOTE_WORDS // len(line.split())
    heading = "Pertinent Results:\n"
    visit.notes[0].text = visit.notes[0].text.replace(heading, heading + line * repeats, 1)
    verdict = Verdict(True, "only the admission sections count", absent=(line.strip(),))
    what = f"A discharge summary of more than {_LONG_NOTE_WORDS} words."
    return [EdgeCase(chart, "mimic4_very_long", what, [visit], visit.notes[:1], verdict)]


def _padded_codes(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.diagnoses = [code.ljust(_ICD_WIDTH) for code in visit.diagnoses if code]
    what = "Diagnosis codes padded with spaces to seven characters."
    verdict = Verdict(True, "codes are stripped")
    return [EdgeCase(chart, "mimic4_padded_codes", what, [visit], [], verdict, tasks=("DIAG",))]


def _no_icu(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.in_icu = False
    what = "An admission without intensive care."
    verdict = Verdict(True, "hospital-wide; a cohort of intensive care leaves it out")
    return [EdgeCase(chart, "mimic4_no_icu_stay", what, [visit], [], verdict)]


def _radiology_without_admission(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    film = copy.copy(next(note for note in visit.notes if note.category == "RR"))
    film.written -= dt.timedelta(days=40)
    film.has_admission = False
    visit.notes.append(film)
    what = "A radiology report before any admission: hadm_id is empty."
    verdict = Verdict(True, "kept in a corpus, in no admission")
    return [EdgeCase(chart, "mimic4_radiology_null_hadm_id", what, [], [film], verdict, tasks=())]


def _two_versions(chart: Chart) -> list[EdgeCase]:
    first, second = chart.visits[0], chart.visits[1]
    first.icd_version, second.icd_version = 9, 10
    first.diagnoses, first.procedures = ["4280", "E8859"], ["0066"]
    second.diagnoses, second.procedures = ["I509", "E119"], ["02703ZZ"]
    what = "A patient coded in ICD-9 first and in ICD-10 later; both know codes that begin with E."
    older = Verdict(True, "ICD-9", labels=(("DIAG", "E885"), ("PROC", "006")))
    newer = Verdict(True, "ICD-10", labels=(("DIAG", "E11"), ("PROC", "0270")))
    tasks = ("DIAG", "PROC")
    return [
        EdgeCase(chart, "mimic4_icd9_admission", what, [first], [], older, tasks=tasks),
        EdgeCase(chart, "mimic4_icd10_admission", what, [second], [], newer, tasks=tasks),
    ]


def _discharge_exam(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    leak = "Ambulated the full corridor with physical therapy."
    head, mark, tail = visit.notes[0].text.partition("DISCHARGE PHYSICAL EXAM:\n")
    visit.notes[0].text = f"{head}{mark}{leak}\n{tail}"
    verdict = Verdict(True, "the exam ends at its discharge part", absent=(leak,))
    what = "The physical exam holds the exam on discharge, as most do."
    return [EdgeCase(chart, "mimic4_discharge_exam", what, [visit], visit.notes[:1], verdict)]


MIMIC4_EDGES: tuple[Edge, ...] = (
    (Fate(), _addendum),
    _replaced("mimic4_carriage_return", "Lone carriage returns in the history.", "\n", "\r"),
    _replaced("mimic4_tabs", "Tabs in the history.", " ", "\t"),
    (Fate(), _very_short),
    (Fate(), _very_long),
    (Fate(), _padded_codes),
    (Fate(days=(2.2,)), _no_icu),
    (Fate(), _radiology_without_admission),
    (Fate(admissions=2), _two_versions),
    (Fate(), _discharge_exam),
)
