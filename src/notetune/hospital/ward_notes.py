"""Notes written during a stay: radiology reports, nursing and other ward notes."""

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass

from notetune.hospital.examination import vital_signs
from notetune.hospital.layout import voice_for
from notetune.hospital.prose import Author, Voice, mimic3_marks, mimic4_marks, wrapped
from notetune.hospital.stays import Stay
from notetune.hospital.texts import PHRASES

_SAYS = PHRASES["ward_notes"]
_RULE = "_" * 78


@dataclass
class Note:
    """One note; `note_id` is set when it is written."""

    category: str
    description: str
    written: dt.datetime
    text: str
    has_time: bool = True
    has_admission: bool = True
    note_id: str = ""


@dataclass(frozen=True)
class Report:
    """A radiology report before it is laid out: neutral marks, no wrap."""

    written: dt.datetime
    study: str
    question: str
    terms: str
    technique: str
    comparison: str
    finding: str
    impression: str
    is_older_style: bool


def reports(stay: Stay, author: Author) -> Iterator[Report]:
    """Yield the radiology reports of a stay: one per problem, then films of the chest."""
    voice = voice_for(stay, author, "radiology")
    studies = [
        (voice.pick(problem.condition.imaging), voice.pick(problem.condition.terms))
        for problem in stay.presentation.problems
    ]
    if stay.ventilation or voice.chance(0.3):
        finding, impression = voice.pick(_SAYS["chest_films"][0 if stay.ventilation else 2 :])
        studies.append((("CHEST (PORTABLE AP)", finding, impression), studies[0][1]))
    for number, ((study, finding, impression), term) in enumerate(studies):
        day = stay.admitted.date().isoformat()
        yield Report(
            written=_moment(stay, voice.rng, 0.1 + 0.3 * number),
            study=study,
            question=voice.say(voice.pick(_SAYS["questions"]).replace("{term}", term)),
            terms=voice.say("{age} {year old|y/o} {man} with " + term),
            technique=voice.say(_SAYS["techniques"][_modality(study)]),
            comparison=voice.pick(_SAYS["comparisons"]).replace("{day}", day),
            finding=_findings(study, finding, voice),
            impression=voice.sentence(impression),
            is_older_style=voice.chance(0.3),
        )


def _modality(study: str) -> str:
    if "HEAD" in study:
        return "head"
    if study.startswith("CT"):
        return "body"
    return "ultrasound" if "U.S." in study or study.endswith("US") else "film"


def _findings(study: str, finding: str, voice: Voice) -> str:
    """The finding of the condition among what every report mentions."""
    usual = [] if study.startswith("HIP") else list(_SAYS["incidental"][_modality(study)])
    told = [finding, *voice.some(usual, voice.pick((1, 2, 3)))]
    voice.rng.shuffle(told)
    return " ".join(voice.sentence(template) for template in told)


def mimic3_radiology(stay: Stay, author: Author) -> Iterator[Note]:
    """Yield the radiology notes as MIMIC-III lays them out."""
    rng = stay.presentation.rng("film marks")
    mark = mimic3_marks(stay.admitted.year, rng)
    for report in reports(stay, author):
        clip = f"[**Clip Number (Radiology) {rng.randint(10, 99999)}**]"
        text = (
            f"<DATE {report.written.date()}> {report.written:%I:%M %p}\n {report.study}"
            f"                Clip # {clip}\n Reason: {report.question}\n{_RULE}\n"
            f" <HOSPITAL> MEDICAL CONDITION:\n  {report.terms}\n"
            f" REASON FOR THIS EXAMINATION:\n  {report.question}\n{_RULE}\n"
            f"{'FINAL REPORT':>46}\n INDICATION:  {report.terms}.\n\n"
            f" COMPARISON:  {report.comparison}\n\n FINDINGS:  {report.finding}\n\n"
            f" IMPRESSION:  {report.impression}\n"
        )
        yield Note("Radiology", report.study, report.written, wrapped(mark(text), author.width))


def mimic4_radiology(stay: Stay, author: Author) -> Iterator[Note]:
    """Yield the radiology notes as MIMIC-IV-Note lays them out."""
    for report in reports(stay, author):
        if report.is_older_style:
            text = (
                f"WET READ: ___ ___ ___ {report.written:%I:%M %p}\n  {report.impression}\n{_RULE}\n"
                f"{'FINAL REPORT':>46}\nHISTORY:  {report.terms}.\n\n"
                f"COMPARISON:  {report.comparison}\n\nFINDINGS:  {report.finding}\n\n"
                f"IMPRESSION:  {report.impression}\n"
            )
        else:
            text = (
                f"EXAMINATION:  {report.study}\n\nINDICATION:  {report.terms}  // "
                f"{report.question}\n\nTECHNIQUE:  {report.technique}\n\n"
                f"COMPARISON:  {report.comparison}\n\nFINDINGS: \n\n{report.finding}\n\n"
                f"IMPRESSION: \n\n{report.impression}\n"
            )
        yield Note("RR", report.study, report.written, wrapped(mimic4_marks(text), author.width))


def ward_notes(stay: Stay, author: Author) -> Iterator[Note]:
    """Yield nursing and other notes of a MIMIC-III stay."""
    voice = voice_for(stay, author, "ward")
    mark = mimic3_marks(stay.admitted.year, voice.rng)
    term = voice.pick(stay.presentation.reason.terms)
    voice.words = {**voice.words, "term": term}
    for _ in range(voice.pick((1, 1, 2))):
        kind = voice.pick((("Nursing/other", "Report"), ("Nursing", "Nursing Progress Note")))
        text = wrapped(mark(_nursing(stay, voice)), author.width)
        yield Note(*kind, _moment(stay, voice.rng, 0.2), text)
    for other in _SAYS["others"]:
        if voice.chance(other["share"]):
            yield _ward_note(stay, voice, other["kind"], other["says"])
    if stay.ventilation and voice.chance(0.5):
        kind = ("Respiratory ", "Respiratory Care Shift Note")
        yield _ward_note(stay, voice, kind, _SAYS["respiratory"])


def _ward_note(stay: Stay, voice: Voice, kind: tuple[str, str], templates: tuple[str, ...]) -> Note:
    mark = mimic3_marks(stay.admitted.year, voice.rng)
    text = "\n".join(voice.sentence(template) for template in templates)
    written = _moment(stay, voice.rng, 0.3)
    return Note(*kind, written, wrapped(mark(text), voice.author.width), has_time=kind[0] != "Echo")


def _nursing(stay: Stay, voice: Voice) -> str:
    unit = voice.pick(("CCU", "MICU", "NSG", "Nursing"))
    shift = voice.pick(("0700-1900", "1900-0700"))
    lines = [f"{unit} Progress Note {shift}:", vital_signs(stay.presentation, voice)]
    for system, templates in _SAYS["nursing"].items():
        if voice.chance(0.8):
            said = " ".join(voice.say(template) for template in templates)
            lines.append(f"{system}: {said}")
    return "\n".join(lines)


def _moment(stay: Stay, rng: random.Random, share: float) -> dt.datetime:
    """A whole minute of the stay, at `share` of its length or somewhat later."""
    minutes = int(stay.outcome.minutes * min(0.95, share + 0.2 * rng.random()))
    return stay.admitted + dt.timedelta(minutes=minutes)
