"""The admission part of a discharge summary: what is known on arrival, and nothing later.

Every function reads a `Presentation` only, never an outcome, so the text cannot tell more about
the labels than the latent conditions do.
"""

import random
from collections.abc import Sequence

from notetune.hospital.condition import Acute, Condition
from notetune.hospital.conditions import ACUTE, LASTING
from notetune.hospital.examination import examination, vital_signs
from notetune.hospital.patients import Presentation, Problem
from notetune.hospital.prose import Author, Voice, deidentified_age
from notetune.hospital.texts import PHRASES

_PHRASES = PHRASES["narrative"]

_NO_HISTORY = ("no significant past medical history", "no known medical problems", "no major PMH")
_PLAIN_HISTORY: tuple[str, ...] = _PHRASES["plain_history"]
_PLAIN_MEDICINES: tuple[str, ...] = _PHRASES["plain_medicines"]
_ALLERGIES: tuple[str, ...] = _PHRASES["allergies"]
_OPENINGS: tuple[str, ...] = _PHRASES["openings"]
_OPENINGS_STORY_FIRST: tuple[str, ...] = _PHRASES["openings_story_first"]
_ELECTIVE_OPENINGS: tuple[str, ...] = _PHRASES["elective_openings"]
_SECOND: tuple[str, ...] = _PHRASES["second"]
_NEGATIVES: tuple[str, ...] = _PHRASES["negatives"]
_DOUBTS: tuple[str, ...] = _PHRASES["doubts"]
_EARLIER: tuple[str, ...] = _PHRASES["earlier"]
_SOCIAL: tuple[str, ...] = _PHRASES["social"]
_HOUSE = "Lives {alone|with {his} {spouse}|in assisted living|with {his} daughter}."
_NURSING_HOME = "{Lives in a nursing home|Long term care resident}, {walks with help|bedbound}."
_KIN = ("Father", "Mother", "Brother", "Sister", "Grandfather")
_RUNS_IN_FAMILIES = (
    *LASTING.values(),
    ACUTE["stemi"],
    ACUTE["ischemic_stroke"],
    ACUTE["subarachnoid_hemorrhage"],
    ACUTE["pulmonary_embolism"],
)


def words_for(presentation: Presentation, author: Author) -> dict[str, str]:
    """What the named slots of the templates stand for."""
    is_woman = presentation.patient.sex == "F"
    he, his, him = ("she", "her", "her") if is_woman else ("he", "his", "him")
    of_admission = random.Random(f"{presentation.patient.key}/{presentation.number}/words")
    side = of_admission.choice(("left", "right"))
    subject = {
        "he": he.capitalize(),
        "the patient": "{The patient|" + he.capitalize() + "}",
        "name": "{" + he.capitalize() + "|{name}}",
    }[author.calls]
    return {
        "he": he,
        "his": his,
        "him": him,
        "He": subject,
        "His": his.capitalize(),
        "man": "{woman|female}" if is_woman else "{man|male|gentleman}",
        "name": ("Ms. " if is_woman else "Mr. ") + "<LASTNAME>",
        "spouse": "husband" if is_woman else "wife",
        "age": deidentified_age(presentation.age),
        "side": side,
        "Side": side.capitalize(),
    }


def admission_sections(
    presentation: Presentation,
    voice: Voice,
    medicines: Sequence[str],
    earlier: Presentation | None,
) -> dict[str, str]:
    """The eight sections that the outcome tasks read, keyed by their modern heading.

    Args:
        presentation: The admission on arrival.
        voice: Its author.
        medicines: What the patient takes at home.
        earlier: The patient's previous admission, whose story may be copied forward.
    """
    opening = [row for row in presentation.chronic if voice.chance(0.8)]
    return {
        "Chief Complaint": _capital(voice.say(voice.pick(_first(presentation).complaints))),
        "History of Present Illness": _present_illness(presentation, voice, opening, earlier),
        "Past Medical History": _medical_history(presentation, voice, opening),
        "Social History": _social_history(presentation, voice),
        "Family History": _family_history(presentation, voice),
        "Physical Exam": examination(presentation, voice),
        "Medications on Admission": voice.listed(medicines),
        "Allergies": voice.say(voice.pick(_ALLERGIES)),
    }


def home_medicines(presentation: Presentation, voice: Voice) -> list[str]:
    """What the patient takes at home."""
    taken = [
        voice.say(medicine)
        for row in presentation.chronic
        for medicine in row.medicines
        if voice.chance(0.7)
    ]
    taken += [voice.say(item) for item in voice.some(_PLAIN_MEDICINES, voice.pick((0, 1, 2, 3)))]
    voice.rng.shuffle(taken)
    return taken or ["None"]


def absent_conditions(presentation: Presentation) -> list[Condition]:
    """Conditions that this patient does not have."""
    present = {condition.name for condition in presentation.conditions}
    return [row for row in (*ACUTE.values(), *LASTING.values()) if row.name not in present]


def _first(presentation: Presentation) -> Acute:
    return presentation.problems[0].condition


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
        body.append(voice.sentence(voice.pick(_SECOND).replace("{term}", term)))
        body += _problem_story(problem, voice, 1)
    if voice.chance(0.35) and not first.condition.elective:
        vitals = vital_signs(presentation, voice)
        body.insert(
            1, f"{voice.pick(('In the ED vitals were', 'ED VS were', 'On arrival'))} {vitals}."
        )
    if earlier and voice.chance(0.7):
        body.insert(voice.rng.randrange(len(body) + 1), _copied_forward(earlier, voice))
    closing = _distractors(presentation, voice)
    start = _opening(presentation, voice, opening)
    # A paragraph may not open with a heading-like run, or older readers end the section there.
    joint = "\n\n" if closing and voice.chance(0.4) else " "
    return " ".join([start, *body]) + (joint + " ".join(closing) if closing else "")


def _opening(presentation: Presentation, voice: Voice, opening: Sequence[Condition]) -> str:
    terms = [voice.pick(row.terms) for row in opening]
    history = _joined(terms) if terms else voice.pick(_NO_HISTORY)
    if not voice.author.story_first and terms and voice.chance(0.5):
        history = voice.pick(("a history of ", "PMH of ", "past medical history of ")) + history
    first = _first(presentation)
    shapes = _OPENINGS_STORY_FIRST if voice.author.story_first else _OPENINGS
    shape = voice.pick(_ELECTIVE_OPENINGS if first.elective else shapes)
    if not terms:
        shape = shape.partition(" {His}")[0]
    onset = voice.pick(first.onsets)
    return voice.sentence(shape.replace("{history}", history).replace("{onset}", onset))


def _problem_story(problem: Problem, voice: Voice, sentences: int) -> list[str]:
    row = problem.condition
    told = [voice.sentence(template) for template in voice.some(row.story, sentences)]
    grade = voice.sentence(voice.pick(row.grades[problem.grade]))
    told.insert(len(told) if voice.chance(0.7) else 1, grade)
    return told


def _copied_forward(earlier: Presentation, voice: Voice) -> str:
    problem = earlier.problems[0]
    template = voice.pick(_EARLIER)
    return voice.sentence(
        template.replace("{day}", earlier.admitted.date().isoformat())
        .replace("{onset}", voice.pick(problem.condition.onsets))
        .replace("{grade}", voice.pick(problem.condition.grades[problem.grade]))
    )


def _distractors(presentation: Presentation, voice: Voice) -> list[str]:
    """Conditions that the patient does not have: denied, excluded or only suspected."""
    absent = absent_conditions(presentation)
    told = []
    if voice.chance(0.5):
        told.append(voice.sentence(voice.pick(_excluding(absent, voice))))
    if voice.chance(0.2):
        suspects = [row for row in absent if isinstance(row, Acute) and row.complicates]
        term = voice.pick(voice.pick(suspects).terms)
        told.append(voice.sentence(voice.pick(_DOUBTS).replace("{term}", term)))
    if voice.chance(voice.author.lists_negatives):
        own = {symptom for row in presentation.conditions for symptom in row.symptoms}
        asked = [symptom for row in absent for symptom in row.symptoms if symptom not in own]
        chosen = voice.some(sorted(set(asked)), voice.pick((2, 3, 4, 5)))
        told.append(voice.sentence(voice.pick(_NEGATIVES).replace("{list}", _joined(chosen, "or"))))
    return told


def _excluding(absent: Sequence[Condition], voice: Voice) -> tuple[str, ...]:
    return voice.pick([row.excluded for row in absent if row.excluded])


def _medical_history(presentation: Presentation, voice: Voice, opening: Sequence[Condition]) -> str:
    items = [
        voice.say(voice.pick(row.history))
        for row in presentation.chronic
        if row not in opening or voice.chance(0.9)
    ]
    items += [voice.say(item) for item in voice.some(_PLAIN_HISTORY, voice.pick((0, 1, 2, 3)))]
    absent = absent_conditions(presentation)
    if voice.chance(0.35):
        past = voice.pick([row for row in absent if isinstance(row, Acute) and not row.elective])
        items.append(f"{voice.say('{history of|h/o|prior}')} {voice.pick(past.terms)} in <YEAR>")
    if voice.chance(0.25):
        never = voice.pick([row for row in absent if not isinstance(row, Acute)])
        items.append(f"no {voice.say('{history of|known|h/o}')} {voice.pick(never.terms)}")
    voice.rng.shuffle(items)
    return voice.listed(items or [_capital(voice.pick(_NO_HISTORY))])


def _social_history(presentation: Presentation, voice: Voice) -> str:
    has_dementia = any(row.name == "dementia" for row in presentation.chronic)
    told = [_NURSING_HOME if has_dementia else _HOUSE] if voice.chance(0.7) else []
    told += voice.some(_SOCIAL, voice.pick((1, 2, 3)))
    return " ".join(voice.sentence(template) for template in told)


def _family_history(presentation: Presentation, voice: Voice) -> str:
    if voice.chance(0.35):
        return voice.pick(("Noncontributory.", "Non-contributory", "NC", "Unknown."))
    told = []
    for kin in voice.some(_KIN, voice.pick((1, 2))):
        row = voice.pick(_RUNS_IN_FAMILIES)
        told.append(f"{kin} with {voice.pick(row.terms)} at {voice.rng.randint(45, 88)}.")
    if voice.chance(0.3):
        told.append(f"No family history of {voice.pick(voice.pick(list(LASTING.values())).terms)}.")
    return " ".join(told)


def _joined(items: Sequence[str], last: str = "and") -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
