"""Discharge summaries as the two hospitals lay them out, from the same sections.

Source: the templates of MIMIC-III and MIMIC-IV-Note as their documentation and the published
section extractors describe them: a MIMIC-III section ends at a blank line that a heading follows,
a MIMIC-IV section at a line that holds one space.
"""

import datetime as dt
from collections.abc import Mapping

from notetune.hospital.examination import vital_signs
from notetune.hospital.hospital_course import course_sections, disposition
from notetune.hospital.narrative import admission_sections, home_medicines, words_for
from notetune.hospital.patients import Presentation
from notetune.hospital.prose import Author, Voice, fill, mimic3_marks, mimic4_marks, wrapped
from notetune.hospital.stays import Stay
from notetune.hospital.texts import PHRASES

_SAYS = PHRASES["layout"]


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
    return Voice(author, words_for(presentation, author), presentation.rng(use))


def mimic3_summary(stay: Stay, author: Author, sections: Mapping[str, str]) -> str:
    """The discharge summary in the layout of MIMIC-III.

    Every section of the admission part is followed by a blank line and a heading.
    """
    presentation, is_capitals = stay.presentation, author.layout == "capitals"
    header = _SAYS["mimic3_header"].format(
        admitted=stay.admitted.date(),
        discharged=stay.discharged.date(),
        born=date_of_birth(presentation),
        sex=presentation.patient.sex,
        service=presentation.reason.service,
    )
    order = _SAYS["capitals_order" if is_capitals else "order"]
    blocks = []
    for name in order:
        heading = _SAYS["capitals_names"].get(name, name.upper()) if is_capitals else name
        gap = "  " if is_capitals and "\n" not in sections[name] else "\n"
        blocks.append(f"{heading}:{gap}{sections[name]}")
    footer = "Completed by:[**Initials (NamePattern4) **]" if is_capitals else ""
    mark = mimic3_marks(stay.admitted.year, presentation.rng("marks"))
    text = mark("\n\n".join([header.rstrip(), *blocks]))
    return wrapped(text, author.width) + "\n\n" + footer


def mimic4_summary(stay: Stay, author: Author, sections: Mapping[str, str]) -> str:
    """The discharge summary in the layout of MIMIC-IV-Note."""
    patient, service = stay.presentation.patient, stay.presentation.reason.service
    voice = voice_for(stay, author, "discharge exam")
    header = _SAYS["mimic4_header"].format(sex=patient.sex, service=service)
    medicines = sections["Medications on Admission"]
    own = {
        **sections,
        "Attending": "___.",
        "Followup Instructions": "___",
        "Medications on Admission": f"The Preadmission Medication list is accurate.\n{medicines}",
        "Physical Exam": _both_exams(stay, voice, sections["Physical Exam"]),
        "Social History": "___",
    }
    if not stay.outcome.died:
        condition = _SAYS["at_home" if disposition(stay) == "Home" else "in_a_facility"]
        own["Discharge Condition"] = fill(condition, {}, voice.rng)
        dear = f"Dear {voice.words['name']},\n"
        own["Discharge Instructions"] = dear + sections["Discharge Instructions"]
    text = header + "".join(f"{name}:\n{own[name]}\n \n" for name in _SAYS["order"])
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
    day = patient.first_admission.date() - dt.timedelta(days=97)
    years = 300 if patient.age > 89 else patient.age
    return day.replace(year=day.year - years, day=min(day.day, 28))
