"""Notes written during a stay: radiology reports, nursing and other ward notes."""

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass

from notetune.hospital.charts import Note
from notetune.hospital.examination import vital_signs
from notetune.hospital.layout import voice_for
from notetune.hospital.prose import Author, Voice, mimic3_marks, mimic4_marks, wrapped
from notetune.hospital.stays import Stay
from notetune.hospital.texts import PHRASES

_PHRASES = PHRASES["ward_notes"]

_RULE = "_" * 78
_QUESTIONS = ("? acute process", "interval change", "r/o {term}", "please evaluate", "{term}?")
_FILM, _ULTRASOUND, _HEAD, _BODY = "film", "ultrasound", "head", "body"
_TECHNIQUES: dict[str, str] = _PHRASES["techniques"]
_INCIDENTAL: dict[str, tuple[str, ...]] = _PHRASES["incidental"]
_COMPARISONS = ("None.", "<DATE {day}>.", "Prior study from <YEAR>.")
_CHEST_FILMS: tuple[tuple[str, ...], ...] = _PHRASES["chest_films"]
_NURSING: dict[str, tuple[str, ...]] = _PHRASES["nursing"]
_OTHERS = {
    ("Physician ", "Physician Resident Progress Note"): (
        "24 hour events: {none|spiked to {101.0-103.0}|line changed|transfused {1-2} units}.",
        "{He} reports feeling {better|about the same|tired}, {no new complaints|slept poorly}.",
        "Exam: {unchanged|less edema|lungs clearer}. I/O {1.2-3.8}L/{0.9-3.9}L.",
        "A/P: {term}. {Continue current therapy|Wean as tolerated|Follow cultures}.",
        "FEN: {NPO|regular diet|tube feeds}. Ppx: {SQH|pneumoboots}, {PPI|H2 blocker}.",
    ),
    ("ECG", "Report"): (
        "Sinus {rhythm|tachycardia}{, rate {60-120}|}. {Non-specific ST-T wave changes|Left axis "
        "deviation|Normal tracing}. Compared to the previous tracing {no significant change|the "
        "rate is faster}.",
    ),
    ("Echo", "Report"): (
        "Indication: {term}. LVEF {20-70}%. {No|Mild|Moderate} mitral regurgitation. No effusion.",
    ),
    ("Nutrition", "Clinical Nutrition Note"): (
        "{Tube feeding at {30-70} ml/hr|Diet as tolerated}, goal {1400-2200} kcal.",
        "Weight {48-112} kg. {Monitor phos and mag|Check residuals q4h|Add supplements}.",
    ),
    ("Social Work", "Social Work Progress Note"): (
        "Met with {spouse} to offer support and discuss {coping|the hospital stay}.",
        "{Family meeting planned|Will remain available|Resources were given}.",
    ),
    ("Case Management", "Case Management Initial Assessment"): (
        "Insurance {verified|pending}. Screened for {rehab|VNA services|home oxygen}.",
        "Patient lives {alone|with family} and was {independent|using a walker} before.",
    ),
    ("Rehab Services", "Bedside Swallow Evaluation"): (
        "{Thin liquids tolerated|Signs of aspiration with thin liquids}; recommend {soft|pureed} "
        "solids.",
    ),
    ("General", "Generic Note"): (
        "Family meeting held with {spouse} and the team.",
        "Discussed {term} and the {plan of care|goals of care|next steps}.",
    ),
    ("Pharmacy", "Pharmacy Note"): ("Vancomycin trough {8-24}, dose {adjusted|unchanged}.",),
    ("Consult", "Consult Note"): (
        "Asked to see {him} for {term}.",
        "{Agree with current care|Would add an echo|Suggest trending labs}, will follow.",
    ),
}
_OTHER_SHARES = (0.25, 0.3, 0.15, 0.06, 0.04, 0.03, 0.05, 0.03, 0.01, 0.01)
_RESPIRATORY: tuple[str, ...] = _PHRASES["respiratory"]


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
        finding, impression = voice.pick(_CHEST_FILMS[0 if stay.ventilation else 2 :])
        studies.append((("CHEST (PORTABLE AP)", finding, impression), studies[0][1]))
    for number, ((study, finding, impression), term) in enumerate(studies):
        day = stay.admitted.date().isoformat()
        yield Report(
            written=_moment(stay, voice.rng, 0.1 + 0.3 * number),
            study=study,
            question=voice.say(voice.pick(_QUESTIONS).replace("{term}", term)),
            terms=voice.say("{age} {year old|y/o} {man} with " + term),
            technique=voice.say(_TECHNIQUES[_modality(study)]),
            comparison=voice.pick(_COMPARISONS).replace("{day}", day),
            finding=_findings(study, finding, voice),
            impression=voice.sentence(impression),
            is_older_style=voice.chance(0.3),
        )


def _modality(study: str) -> str:
    if "HEAD" in study:
        return _HEAD
    if study.startswith("CT"):
        return _BODY
    return _ULTRASOUND if "U.S." in study or study.endswith("US") else _FILM


def _findings(study: str, finding: str, voice: Voice) -> str:
    """The finding of the condition among what every report mentions."""
    usual = [] if study.startswith("HIP") else list(_INCIDENTAL[_modality(study)])
    told = [finding, *voice.some(usual, voice.pick((1, 2, 3)))]
    voice.rng.shuffle(told)
    return " ".join(voice.sentence(template) for template in told)


def mimic3_radiology(stay: Stay, author: Author) -> Iterator[Note]:
    """Yield the radiology notes as MIMIC-III lays them out."""
    rng = random.Random(f"{stay.presentation.patient.key}/{stay.presentation.number}/film marks")
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
    term = voice.pick(stay.presentation.problems[0].condition.terms)
    voice.words = {**voice.words, "term": term}
    for _ in range(voice.pick((1, 1, 2))):
        category, description = voice.pick(
            (("Nursing/other", "Report"), ("Nursing", "Nursing Progress Note"))
        )
        text = wrapped(mark(_nursing(stay, voice)), author.width)
        yield Note(category, description, _moment(stay, voice.rng, 0.2), text)
    for (kind, templates), share in zip(_OTHERS.items(), _OTHER_SHARES, strict=True):
        if voice.chance(share):
            yield _ward_note(stay, voice, kind, templates)
    if stay.ventilation and voice.chance(0.5):
        kind = ("Respiratory ", "Respiratory Care Shift Note")
        yield _ward_note(stay, voice, kind, _RESPIRATORY)


def _ward_note(stay: Stay, voice: Voice, kind: tuple[str, str], templates: tuple[str, ...]) -> Note:
    mark = mimic3_marks(stay.admitted.year, voice.rng)
    text = "\n".join(voice.sentence(template) for template in templates)
    written = _moment(stay, voice.rng, 0.3)
    return Note(*kind, written, wrapped(mark(text), voice.author.width), has_time=kind[0] != "Echo")


def _nursing(stay: Stay, voice: Voice) -> str:
    unit = voice.pick(("CCU", "MICU", "NSG", "Nursing"))
    shift = voice.pick(("0700-1900", "1900-0700"))
    lines = [f"{unit} Progress Note {shift}:"]
    lines.append(vital_signs(stay.presentation, voice))
    for system, templates in _NURSING.items():
        if voice.chance(0.8):
            said = " ".join(voice.say(template) for template in templates)
            lines.append(f"{system}: {said}")
    return "\n".join(lines)


def _moment(stay: Stay, rng: random.Random, share: float) -> dt.datetime:
    """A whole minute of the stay, at `share` of its length or somewhat later."""
    span = stay.outcome.minutes
    minutes = int(span * min(0.95, share + 0.2 * rng.random()))
    return stay.admitted + dt.timedelta(minutes=minutes)
