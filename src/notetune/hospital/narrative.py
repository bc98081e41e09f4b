"""The admission part of a discharge summary: what is known on arrival, and nothing later.

Every function reads a `Presentation` only, never an outcome, so the text cannot tell more about
the labels than the latent conditions do.
"""

from collections.abc import Sequence

from notetune.hospital.conditions import ACUTE, CONDITIONS, LASTING, Acute, Condition
from notetune.hospital.examination import examination, vital_signs
from notetune.hospital.patients import Presentation, Problem
from notetune.hospital.prose import Author, Voice
from notetune.hospital.texts import PHRASES

_SAYS = PHRASES["narrative"]
_RUNS_IN_FAMILIES = (*LASTING.values(), *(ACUTE[name] for name in _SAYS["acute_in_families"]))


def words_for(presentation: Presentation, author: Author) -> dict[str, str]:
    """What the named slots of the templates stand for."""
    words: dict[str, str] = _SAYS["words"][presentation.patient.sex]
    he, side = words["he"].capitalize(), presentation.rng("words").choice(("left", "right"))
    subject = {"he": he, "the patient": f"{{The patient|{he}}}", "name": f"{{{he}|{{name}}}}"}
    return {
        **words,
        "He": subject[author.calls],
        "His": words["his"].capitalize(),
        "age": "<AGE>" if presentation.age > 89 else str(presentation.age),
        "side": side,
        "Side": side.capitalize(),
    }


def admission_sections(
    presentation: Presentation, voice: Voice, medicines: Sequence[str], earlier: Presentation | None
) -> dict[str, str]:
    """The eight sections that the outcome tasks read, keyed by their modern heading.

    The story of the patient's previous admission, if there is an `earlier` one, may be copied.
    """
    opening = [row for row in presentation.chronic if voice.chance(0.8)]
    return {
        "Chief Complaint": _capital(voice.say(voice.pick(presentation.reason.complaints))),
        "History of Present Illness": _present_illness(presentation, voice, opening, earlier),
        "Past Medical History": _medical_history(presentation, voice, opening),
        "Social History": _social_history(presentation, voice),
        "Family History": _family_history(voice),
        "Physical Exam": examination(presentation, voice),
        "Medications on Admission": voice.listed(medicines),
        "Allergies": voice.say(voice.pick(_SAYS["allergies"])),
    }


def home_medicines(presentation: Presentation, voice: Voice) -> list[str]:
    """What the patient takes at home."""
    usual = (medicine for row in presentation.chronic for medicine in row.medicines)
    taken = [voice.say(medicine) for medicine in usual if voice.chance(0.7)]
    taken += voice.several(_SAYS["plain_medicines"], (0, 1, 2, 3))
    voice.rng.shuffle(taken)
    return taken or ["None"]


def _absent_conditions(presentation: Presentation) -> list[Condition]:
    present = {condition.name for condition in presentation.conditions}
    return [row for row in CONDITIONS if row.name not in present]


def _present_illness(
    presentation: Presentation,
    voice: Voice,
    opening: Sequence[Condition],
    earlier: Presentation | None,
) -> str:
    first, *others = presentation.problems
    body = _problem_story(first, voice, voice.pick((2, 2, 3)))
    for problem in others:
        term = voice.pick(problem.condition.terms)
        body.append(voice.tell(_SAYS["second"], term=term))
        body += _problem_story(problem, voice, 1)
    if voice.chance(0.35) and not first.condition.elective:
        vitals = vital_signs(presentation, voice)
        body.insert(1, f"{voice.pick(_SAYS['vitals'])} {vitals}.")
    if earlier and voice.chance(0.7):
        body.insert(voice.rng.randrange(len(body) + 1), _copied_forward(earlier, voice))
    closing = _distractors(presentation, voice)
    start = _opening(presentation, voice, opening)
    # A paragraph may not open with a heading-like run, or older readers end the section there.
    joint = "\n\n" if closing and voice.chance(0.4) else " "
    return " ".join([start, *body]) + (joint + " ".join(closing) if closing else "")


def _opening(presentation: Presentation, voice: Voice, opening: Sequence[Condition]) -> str:
    terms = [voice.pick(row.terms) for row in opening]
    history = _joined(terms) if terms else voice.pick(_SAYS["no_history"])
    if not voice.author.story_first and terms and voice.chance(0.5):
        history = voice.pick(_SAYS["history_of"]) + history
    first = presentation.reason
    kind = "openings_story_first" if voice.author.story_first else "openings"
    shape = voice.pick(_SAYS["elective_openings" if first.elective else kind])
    if not terms:
        shape = shape.partition(" {His}")[0]
    onset = voice.pick(first.onsets)
    return voice.sentence(shape.replace("{history}", history).replace("{onset}", onset))


def _problem_story(problem: Problem, voice: Voice, sentences: int) -> list[str]:
    row = problem.condition
    told = [voice.sentence(template) for template in voice.some(row.story, sentences)]
    grade = voice.tell(row.grades[problem.grade])
    told.insert(len(told) if voice.chance(0.7) else 1, grade)
    return told


def _copied_forward(earlier: Presentation, voice: Voice) -> str:
    row, grade = earlier.reason, earlier.problems[0].grade
    template = voice.pick(_SAYS["earlier"]).replace("{day}", earlier.admitted.date().isoformat())
    template = template.replace("{onset}", voice.pick(row.onsets))
    return voice.sentence(template.replace("{grade}", voice.pick(row.grades[grade])))


def _distractors(presentation: Presentation, voice: Voice) -> list[str]:
    """Conditions that the patient does not have: denied, excluded or only suspected."""
    absent, told = _absent_conditions(presentation), []
    if voice.chance(0.5):
        told.append(voice.tell(voice.pick([row.excluded for row in absent if row.excluded])))
    if voice.chance(0.2):
        suspects = [row for row in absent if isinstance(row, Acute) and row.complicates]
        term = voice.pick(voice.pick(suspects).terms)
        told.append(voice.tell(_SAYS["doubts"], term=term))
    if voice.chance(voice.author.lists_negatives):
        own = {symptom for row in presentation.conditions for symptom in row.symptoms}
        asked = [symptom for row in absent for symptom in row.symptoms if symptom not in own]
        chosen = voice.some(sorted(set(asked)), voice.pick((2, 3, 4, 5)))
        told.append(voice.tell(_SAYS["negatives"], list=_joined(chosen, "or")))
    return told


def _medical_history(presentation: Presentation, voice: Voice, opening: Sequence[Condition]) -> str:
    items = [
        voice.say(voice.pick(row.history))
        for row in presentation.chronic
        if row not in opening or voice.chance(0.9)
    ]
    items += voice.several(_SAYS["plain_history"], (0, 1, 2, 3))
    absent = _absent_conditions(presentation)
    if voice.chance(0.35):
        past = voice.pick([row for row in absent if isinstance(row, Acute) and not row.elective])
        items.append(f"{voice.say('{history of|h/o|prior}')} {voice.pick(past.terms)} in <YEAR>")
    if voice.chance(0.25):
        never = voice.pick([row for row in absent if not isinstance(row, Acute)])
        items.append(f"no {voice.say('{history of|known|h/o}')} {voice.pick(never.terms)}")
    voice.rng.shuffle(items)
    return voice.listed(items or [_capital(voice.pick(_SAYS["no_history"]))])


def _social_history(presentation: Presentation, voice: Voice) -> str:
    has_dementia = any(row.name == "dementia" for row in presentation.chronic)
    told = [_SAYS["nursing_home" if has_dementia else "house"]] if voice.chance(0.7) else []
    told += voice.some(_SAYS["social"], voice.pick((1, 2, 3)))
    return " ".join(map(voice.sentence, told))


def _family_history(voice: Voice) -> str:
    if voice.chance(0.35):
        return str(voice.pick(_SAYS["no_family_history"]))
    told = []
    for kin in voice.some(_SAYS["kin"], voice.pick((1, 2))):
        row = voice.pick(_RUNS_IN_FAMILIES)
        told.append(f"{kin} with {voice.pick(row.terms)} at {voice.rng.randint(45, 88)}.")
    if voice.chance(0.3):
        told.append(f"No family history of {voice.pick(voice.pick(list(LASTING.values())).terms)}.")
    return " ".join(told)


def _joined(items: Sequence[str], last: str = "and") -> str:
    *others, end = items or [""]
    return f"{', '.join(others)} {last} {end}" if others else end


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
