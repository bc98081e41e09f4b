"""The part of a discharge summary that was known at admission, and wording that gives death away.

A section starts at its heading at the beginning of a line and ends at the next heading. What comes
after admission (hospital course, results, anything about discharge) always ends a section, even
without a blank line before it: losing a line is cheaper than leaking the outcome.
"""

import re
from collections.abc import Mapping
from typing import Final

from notetune.sources.mimic.summaries import AdmissionText

_ALIASES: Final = {
    "CHIEF COMPLAINT": "chief complaint|chief complaints|cc",
    "PRESENT ILLNESS": (
        "history of present illness|history of the present illness|history of presenting illness|"
        "present illness|hpi"
    ),
    "MEDICAL HISTORY": (
        "past medical history|medical history|past medical and surgical history|"
        "past medical/surgical history|pmh|pmhx"
    ),
    "MEDICATION ON ADMISSION": (
        "medications on admission|medication on admission|meds on admission|admission medications|"
        "medications prior to admission|home medications|medications at home"
    ),
    "ALLERGIES": "allergies|allergy|drug allergies|allergies/adverse reactions",
    "PHYSICAL EXAM": (
        "physical exam|physical examination|physical exam on admission|"
        "physical examination on admission|physical exam at admission|admission physical exam|"
        "admission physical examination|admission exam|exam on admission|pe"
    ),
    "FAMILY HISTORY": "family history|family medical history|fh|fhx",
    "SOCIAL HISTORY": "social history|sh|shx",
}
SECTION_LABELS: Final = tuple(_ALIASES)
"""In the order of the text given to a model. Source: van Aken et al. 2021 (CORe)."""

_LABEL_OF: Final = {
    alias: label for label, aliases in _ALIASES.items() for alias in aliases.split("|")
}
_CORE_LABELS: Final = ("CHIEF COMPLAINT", "PRESENT ILLNESS", "MEDICAL HISTORY")
_OTHERS: Final = (
    "admission date|date of birth|sex|service|attending|facility|code status|addendum|"
    "major surgical or invasive procedure|past surgical history|pertinent results|"
    "brief hospital course|hospital course|summary of hospital course|icu course|course|"
    "assessment|assessment and plan|impression|plan|disposition|final diagnosis|final diagnoses|"
    "followup instructions|follow-up instructions|follow up|followup"
)
_OTHER_HEADINGS: Final = frozenset(_OTHERS.split("|"))
_IN_PARENTHESES: Final = re.compile(r"\s*\([^()]*\)")
_AFTER_ADMISSION: Final = re.compile(
    r"\b(?:(?:hosp(?:ital(?:ization)?)?\.?|inpatient|floor|ward|\w*icu|ccu|csru|post-?op"
    r"(?:erative)?) course|course in (?:the )?(?:hospital|\w*icu|ccu)"
    r"|course by (?:issue|problem|system)|summary of (?:hospital )?stay"
    r"|discharge[ds]?|discharging|(?:on|at|upon|prior to|day of|time of) d/?c"
    r"|d/?c (?:condition|date|diagnos[ei]s|disposition|exam\w*|instructions|labs?|medications?"
    r"|meds|pe|physical|plan|summary|vitals|vs|weight|wt)"
    r"|(?:medications?|meds|exam\w*|pe|physical) (?:on|at|upon) transfer"
    r"|transfer (?:medications?|meds|exam\w*)"
    r"|(?:transitional|active|acute) issues|pertinent results|expired|(?<!\w )death(?! \w)"
    r"|(?:cause|time|date) of death|death (?:summary|note|exam\w*))\b"
)
_MAY_BE_AFTER: Final = re.compile(
    r"discharg|d/?c\b|course|issues|transfer|summary|results|expired|death", re.IGNORECASE
)
_OF_THE_BODY: Final = re.compile(
    r"\b(?:vaginal|nasal|penile|urethral|nipple|ear|eye|ocular|wound|drain|purulent|bloody) "
    r"discharge\b"
)
_OF_ANOTHER_STAY: Final = re.compile(
    r"\b(?:osh|outside hospital|discharged (?:home )?from)\b"
    r"|\b(?:no|see|per|since|until|last|recent|recently) (?:\w+ ){0,2}"
    r"(?:discharge|hospital course|(?:active|acute) issues)"
)
_IN_A_SENTENCE: Final = re.compile(
    r"\b(?:is|are|was|were|be|been|has|had|have|he|she|they|who|which|discharged|expired|death|"
    r"(?:after|following) (?:\w+ ){0,2}discharge)\b|[.;?!]\s"
)
_ALONE: Final = re.compile(
    r"(?:[\w/]+ ){0,3}"
    r"(?:course|issues|(?:on|at|upon|prior to|day of|time of) (?:discharge|d/?c)"
    r"|(?:discharge|d/?c) (?:physical )?(?:condition|diagnos[ei]s|exam\w*|labs?|medications?|meds"
    r"|pe|physical|vitals))"
)
"""A heading without a colon, in small letters too."""
_WITH_VITALS: Final = re.compile(
    r"\W*(?:\w+ ){0,3}(?i:discharge|d/?c)(?i: exam| pe| vitals)?\W+"
    r"(?:VS|AVSS|AFVSS|T[mc]?|BP|HR)[\d.]*(?:\W|$)"
)
_DATE_OR_HOUR: Final = re.compile(r"\[\*\*.*?\*\*\]|\b\d{1,2}:\d\d\b")
_END_OF_TITLE: Final = re.compile(r":|\s[-\u2013\u2014]{1,3}\s")
_MARKS_AROUND: Final = re.compile(r"^[\W\d_]+|[\W_]+$")
_FRAMED: Final = re.compile(r"[^\w\s].*[^\w\s.,;:?!%'\"]|_.*_")
_MOST_CHARS: Final = 100
_MOST_CHARS_SEEN: Final = 300
"""Of a line, with dates before its title."""

_DIED = r"(?:(?:had|has|is|was)\s+)?(?:expired|died|passed\s+away|deceased)\b"
_DEATH_IN_EXAM: Final = re.compile(rf"\b(?:(?:the\s+)?(?:patient|pt)\.?\s+)?{_DIED}", re.IGNORECASE)
# "the expired", which the published pattern also hits, is a ventilator phrase.
_STATES_DEATH: Final = re.compile(
    rf"\b(?:patient|pt)\.?\s+{_DIED}|\b(?:he|she)\s+(?:had\s+|has\s+)?expired\b"
    r"|\bpronounced\s+(?:expired|dead|deceased)\b|\btime\s+of\s+death\b",
    re.IGNORECASE,
)


def admission_note(joined: str) -> AdmissionText | None:
    """The admission note of cleaned, joined summaries; None without complaint, illness, history."""
    sections = admission_sections(joined)
    if not has_core_sections(sections):
        return None
    text = admission_text(sections)
    return AdmissionText(text, None if states_death(text) else text)


def admission_sections(text: str) -> dict[str, str]:
    r"""The eight admission sections of a discharge summary, each on one line; "" where absent.

    Args:
        text: A note after `clean_text` (one kind of line break, no space at line ends).

    Returns:
        Section label to body, in the order of `SECTION_LABELS`. Only the first heading of a label
        counts, so that a second physical exam (at discharge, in an addendum) is never taken. A
        heading that only repeats the one just above it ("Physical Exam:", "ADMISSION PHYSICAL
        EXAM:", as MIMIC-IV writes it) goes on with the section.

    Example:
        >>> note = "Chief Complaint:\nchest pain\n\nBrief Hospital Course:\nbypass"
        >>> admission_sections(note)["CHIEF COMPLAINT"]
        'chest pain'
    """
    bodies: dict[str, list[str]] = {}
    current: list[str] | None = None
    after_blank = True
    for line in text.split("\n"):
        heading, label, rest = _heading(line, after_blank=after_blank)
        if label is not None and (label not in bodies or _only_repeats(bodies[label], current)):
            current = bodies[label] = [rest]
        elif heading:
            current = None
        elif current is not None:
            current.append(line)
        after_blank = not line
    return {label: " ".join(" ".join(bodies.get(label, ())).split()) for label in SECTION_LABELS}


def has_core_sections(sections: Mapping[str, str]) -> bool:
    """Whether chief complaint, present illness or medical history says anything."""
    return any(sections[label] for label in _CORE_LABELS)


def admission_text(sections: Mapping[str, str]) -> str:
    """The model input: one "LABEL: body" block per section, every label present.

    Death wording is removed from the physical exam and the medications, where it is a remark added
    after the fact.

    Source:
        Data specification, sections 2.3 and 2.4 a; here every mention goes, not only the first.
    """
    blocks = []
    for label in SECTION_LABELS:
        body = sections[label]
        if label in ("PHYSICAL EXAM", "MEDICATION ON ADMISSION"):
            body = " ".join(_DEATH_IN_EXAM.sub(" ", body).split())
        blocks.append(f"{label}: {body}".rstrip())
    return "\n\n".join(blocks)


def states_death(text: str) -> bool:
    """Whether the text says that the patient died: such a note answers the mortality task.

    Source:
        Data specification, section 2.4 b and c, on whole words.

    Example:
        >>> states_death("Pt expired on day 3."), states_death("Her father died of a stroke.")
        (True, False)
    """
    return _STATES_DEATH.search(text) is not None


def _heading(line: str, *, after_blank: bool) -> tuple[bool, str | None, str]:
    """Whether the line is a heading, the label if it is one of ours, and the text after it."""
    if _is_after_admission(line, after_blank=after_blank):
        return True, None, ""
    title, colon, rest = line.strip().partition(":")
    if not title or len(title) > 60:
        return False, None, ""
    if not (title[0].isupper() or after_blank):  # a wrapped sentence may start like a heading
        return False, None, ""
    name = " ".join(_IN_PARENTHESES.sub("", title).casefold().split())
    if colon and name in _LABEL_OF:
        return True, _LABEL_OF[name], rest
    if name in _OTHER_HEADINGS and (colon or after_blank):
        return True, None, ""
    stands_alone = not rest.strip() or (title.isupper() and " " in title)
    is_heading = colon and after_blank and _is_short(title) and stands_alone and _is_title(title)
    return bool(is_heading), None, ""


def _is_after_admission(line: str, *, after_blank: bool) -> bool:
    """Whether the line is a heading of what came after admission, or has vital signs at discharge.

    Marks around it and a number, date or hour before it do not matter. A line that goes on with a
    sentence is none, nor one of another stay.
    """
    head = line[:_MOST_CHARS_SEEN]
    if not _MAY_BE_AFTER.search(head):
        return False
    text = _DATE_OR_HOUR.sub(" ", head).strip()
    if _WITH_VITALS.match(text):
        return True
    title, *after = _END_OF_TITLE.split(text, maxsplit=1)
    title = _MARKS_AROUND.sub("", _IN_PARENTHESES.sub("", title) or title)
    name = _OF_THE_BODY.sub("", " ".join(title.casefold().split()))
    if len(title) > _MOST_CHARS or not _AFTER_ADMISSION.search(name):
        return False
    if not title.isupper() and _OF_ANOTHER_STAY.search(name):
        return False
    starts = title[0].isupper() or after_blank
    is_told = _IN_A_SENTENCE.search(name) is not None
    if after or _FRAMED.fullmatch(text):
        return title.isupper() or (starts and _is_short(title)) or not is_told
    if _is_short(title) and _is_title(title):
        return True
    return starts and not is_told and text[-1] not in ".,;" and _ALONE.fullmatch(name) is not None


def _only_repeats(body: list[str], current: list[str] | None) -> bool:
    """Whether the section is the open one and says nothing yet ("====" is nothing)."""
    return body is current and not any(mark.isalnum() for line in body for mark in line)


def _is_short(title: str) -> bool:
    return len(title) <= 60 and len(title.split()) <= 8 and "," not in title


def _is_title(title: str) -> bool:
    """Capitals at the start of every word that is longer than a preposition."""
    words = [word.lstrip("(") for word in title.replace("/", " ").split()]
    return all(not word[:1].islower() for word in words if len(word) > 3) and title[0].isupper()
