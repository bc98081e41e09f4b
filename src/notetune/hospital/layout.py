"""Discharge summaries as the two hospitals lay them out, from the same sections.

Source: the templates of MIMIC-III and MIMIC-IV-Note as their documentation and the published
section extractors describe them: a MIMIC-III section ends at a blank line that a heading follows,
a MIMIC-IV section at a line that holds one space.
"""

import datetime as dt
import random
from collections.abc import Mapping

from notetune.hospital.examination import vital_signs
from notetune.hospital.hospital_course import course_sections, disposition
from notetune.hospital.narrative import (
    admission_sections,
    home_medicines,
    words_for,
)
from notetune.hospital.patients import Presentation
from notetune.hospital.prose import (
    Author,
    Voice,
    fill,
    mimic3_marks,
    mimic4_marks,
    wrapped,
)
from notetune.hospital.stays import Stay

_MIMIC3_ORDER = (
    "Allergies", "Attending", "Chief Complaint", "Major Surgical or Invasive Procedure",
    "History of Present Illness", "Past Medical History", "Social History", "Family History",
    "Physical Exam", "Pertinent Results", "Brief Hospital Course", "Medications on Admission",
    "Discharge Medications", "Discharge Disposition", "Discharge Diagnosis",
    "Discharge Condition", "Discharge Instructions", "Followup Instructions",
)  # fmt: skip
_CAPITALS_ORDER = (
    "Chief Complaint", "History of Present Illness", "Past Medical History", "Allergies",
    "Medications on Admission", "Social History", "Family History", "Physical Exam",
    "Pertinent Results", "Brief Hospital Course", "Discharge Diagnosis", "Discharge Condition",
    "Discharge Medications", "Discharge Disposition", "Followup Instructions",
)  # fmt: skip
_CAPITALS_NAMES = {
    "Brief Hospital Course": "HOSPITAL COURSE",
    "Pertinent Results": "LABORATORY DATA",
}
_MIMIC4_ORDER = (
    "Allergies", "Attending", "Chief Complaint", "Major Surgical or Invasive Procedure",
    "History of Present Illness", "Past Medical History", "Social History", "Family History",
    "Physical Exam", "Pertinent Results", "Brief Hospital Course", "Medications on Admission",
    "Discharge Medications", "Discharge Disposition", "Discharge Diagnosis",
    "Discharge Condition", "Discharge Instructions", "Followup Instructions",
)  # fmt: skip
_CONDITION = (
    "Mental Status: {mental}.\nLevel of Consciousness: Alert and interactive.\n"
    "Activity Status: {activity}."
)
_AT_HOME = {"mental": "Clear and coherent", "activity": "Ambulatory - Independent"}
_IN_A_FACILITY = {
    "mental": "{Clear and coherent|Confused - sometimes}",
    "activity": "{Out of Bed with assistance|Bedbound|Ambulatory - requires assistance}",
}


def summary_sections(stay: Stay, author: Author, earlier: Presentation | None) -> dict[str, str]:
    """All sections of a discharge summary, with neutral marks and unwrapped lines."""
    voice = voice_for(stay, author, "summary")
    medicines = home_medicines(stay.presentation, voice)
    return {
        **admission_sections(stay.presentation, voice, medicines, earlier),
        **course_sections(stay, voice, medicines),
        "Attending": "<DOCTOR>",
    }


def voice_for(stay: Stay, author: Author, use: str) -> Voice:
    """The author's voice for one note; the same stay and use always give the same one."""
    presentation = stay.presentation
    seed = f"{presentation.patient.key}/{presentation.number}/{use}"
    return Voice(author, words_for(presentation, author), random.Random(seed))


def mimic3_summary(stay: Stay, author: Author, sections: Mapping[str, str]) -> str:
    """The discharge summary in the layout of MIMIC-III.

    Every section of the admission part is followed by a blank line and a heading.
    """
    patient = stay.presentation.patient
    rng = random.Random(f"{patient.key}/{stay.presentation.number}/marks")
    is_capitals = author.layout == "capitals"
    born = date_of_birth(stay.presentation)
    header = (
        f"Admission Date:  <DATE {stay.admitted.date()}>     "
        f"Discharge Date:  <DATE {stay.discharged.date()}>\n\n"
        f"Date of Birth:  <DATE {born}>     Sex:  {patient.sex}\n\n"
        f"Service: {stay.presentation.problems[0].condition.service}"
    )
    order = _CAPITALS_ORDER if is_capitals else _MIMIC3_ORDER
    blocks = [_mimic3_block(name, sections[name], is_capitals=is_capitals) for name in order]
    footer = "Completed by:[**Initials (NamePattern4) **]" if is_capitals else ""
    text = mimic3_marks(stay.admitted.year, rng)("\n\n".join([header, *blocks]))
    return wrapped(text, author.width) + "\n\n" + footer


def _mimic3_block(name: str, body: str, *, is_capitals: bool) -> str:
    if not is_capitals:
        return f"{name}:\n{body}"
    heading = _CAPITALS_NAMES.get(name, name.upper())
    return f"{heading}:{'  ' if chr(10) not in body else chr(10)}{body}"


def mimic4_summary(stay: Stay, author: Author, sections: Mapping[str, str]) -> str:
    """The discharge summary in the layout of MIMIC-IV-Note."""
    patient = stay.presentation.patient
    voice = voice_for(stay, author, "discharge exam")
    header = (
        " \nName:  ___                     Unit No:   ___\n \n"
        "Admission Date:  ___              Discharge Date:   ___\n \n"
        f"Date of Birth:  ___             Sex:   {patient.sex}\n \n"
        f"Service: {stay.presentation.problems[0].condition.service}\n \n"
    )
    own = {**sections, "Social History": "___", "Attending": "___."}
    own["Physical Exam"] = _both_exams(stay, voice, sections["Physical Exam"])
    own["Medications on Admission"] = (
        f"The Preadmission Medication list is accurate.\n{sections['Medications on Admission']}"
    )
    if not stay.outcome.died:
        words = _AT_HOME if disposition(stay) == "Home" else _IN_A_FACILITY
        own["Discharge Condition"] = fill(_CONDITION, words, voice.rng)
        own["Discharge Instructions"] = (
            f"Dear {voice.words['name']},\n" + (sections["Discharge Instructions"])
        )
    own["Followup Instructions"] = "___"
    blocks = [f"{name}:\n{own[name]}\n \n" for name in _MIMIC4_ORDER]
    text = header + "".join(blocks)
    # In MIMIC-IV no empty line parts Social History from Family History.
    text = text.replace("Social History:\n___\n \n", "Social History:\n___\n")
    return wrapped(mimic4_marks(text), author.width)


def _both_exams(stay: Stay, voice: Voice, on_admission: str) -> str:
    if stay.outcome.died:
        last = "Absent heart and breath sounds, pupils fixed. Patient expired."
    else:
        vitals = vital_signs(stay.presentation, voice, is_recovered=True)
        last = f"VS: {vitals}\nGen: comfortable, no distress"
    return f"ADMISSION PHYSICAL EXAM:\n{on_admission}\nDISCHARGE PHYSICAL EXAM:\n{last}"


def date_of_birth(presentation: Presentation) -> dt.date:
    """The day of birth; patients over 89 are moved 300 years back, as MIMIC-III does."""
    patient = presentation.patient
    shift = 300 if patient.age > 89 else patient.age
    day = patient.first_admission.date() - dt.timedelta(days=97)
    return day.replace(year=day.year - shift, day=min(day.day, 28))
