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


def _reports(stay: Stay, author: Author) -> Iterator[tuple[dt.datetime, dict[str, str]]]:
    """Yield time and words of the radiology reports: one per problem, then films of the chest.

    Words are with neutral marks and without line breaks; `layout` is that of MIMIC-IV.
    """
    voice = voice_for(stay, author, "radiology")
    studies = [
        (voice.pick(problem.condition.imaging), voice.pick(problem.condition.terms))
        for problem in stay.presentation.problems
    ]
    if stay.ventilation or voice.chance(0.3):
        finding, impression = voice.pick(_SAYS["chest_films"][0 if stay.ventilation else 2 :])
        studies.append((("CHEST (PORTABLE AP)", finding, impression), studies[0][1]))
    for number, ((study, finding, impression), term) in enumerate(studies):
        admitted = stay.admitted.date().isoformat()
        written = _moment(stay, voice.rng, 0.1 + 0.3 * number)
        yield (
            written,
            {
                "day": str(written.date()),
                "time": f"{written:%I:%M %p}",
                "study": study,
                "question": voice.say(voice.pick(_SAYS["questions"]).replace("{term}", term)),
                "terms": voice.say("{age} {year old|y/o} {man} with " + term),
                "technique": voice.say(_SAYS["techniques"][_modality(study)]),
                "comparison": voice.pick(_SAYS["comparisons"]).replace("{day}", admitted),
                "finding": _findings(study, finding, voice),
                "impression": voice.sentence(impression),
                "layout": "film_mimic4_older" if voice.chance(0.3) else "film_mimic4",
            },
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
    return " ".join(map(voice.sentence, told))


def mimic3_radiology(stay: Stay, author: Author) -> Iterator[Note]:
    """Yield the radiology notes as MIMIC-III lays them out."""
    rng = stay.presentation.rng("film marks")
    mark = mimic3_marks(stay.admitted.year, rng)
    for written, words in _reports(stay, author):
        clip = f"[**Clip Number (Radiology) {rng.randint(10, 99999)}**]"
        text = mark(_SAYS["film_mimic3"].format(clip=clip, **words))
        yield Note("Radiology", words["study"], written, wrapped(text, author.width))


def mimic4_radiology(stay: Stay, author: Author) -> Iterator[Note]:
    """Yield the radiology notes as MIMIC-IV-Note lays them out."""
    for written, words in _reports(stay, author):
        text = mimic4_marks(_SAYS[words["layout"]].format(**words))
        yield Note("RR", words["study"], written, wrapped(text, author.width))


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
            lines.append(f"{system}: {' '.join(map(voice.say, templates))}")
    return "\n".join(lines)


def _moment(stay: Stay, rng: random.Random, share: float) -> dt.datetime:
    """A whole minute of the stay, at `share` of its length or somewhat later."""
    minutes = int(stay.outcome.minutes * min(0.95, share + 0.2 * rng.random()))
    return stay.admitted + dt.timedelta(minutes=minutes)
