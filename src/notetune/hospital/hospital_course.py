"""The part of a discharge summary that is written at the end: it knows the outcome."""

from collections.abc import Sequence

from notetune.hospital.codes import DIAGNOSIS_TITLES, PROCEDURE_TITLES
from notetune.hospital.examination import FEBRILE
from notetune.hospital.outcome_model import MINUTES_PER_DAY
from notetune.hospital.prose import Voice, fill
from notetune.hospital.stays import Stay
from notetune.hospital.texts import PHRASES

_SAYS = PHRASES["hospital_course"]
_SURGICAL_FROM, _SURGICAL_TO = "0", "87"  # ICD-9 chapters of operations, as text


def course_sections(stay: Stay, voice: Voice, medicines: Sequence[str]) -> dict[str, str]:
    """The sections after the admission part, keyed by their modern heading.

    Most of the `medicines` that the patient took at home go on.
    """
    died = stay.outcome.died
    term = voice.pick(stay.presentation.reason.terms)
    instructions = voice.pick(_SAYS["instructions"]).replace("{term}", term)
    diagnoses = [DIAGNOSIS_TITLES[code] for code in stay.outcome.diagnoses[:3]]
    return {
        "Major Surgical or Invasive Procedure": _procedures(stay, voice),
        "Pertinent Results": _results(stay, voice),
        "Brief Hospital Course": _course(stay, voice),
        "Discharge Medications": _medicines(stay, voice, medicines),
        "Discharge Disposition": disposition(stay),
        "Discharge Diagnosis": voice.listed(diagnoses) if diagnoses else "Observation",
        "Discharge Condition": "Expired" if died else voice.pick(("Stable", "Good", "Fair")),
        "Discharge Instructions": "N/A" if died else voice.sentence(instructions),
        "Followup Instructions": "N/A" if died else voice.sentence(_SAYS["follow_up"]),
    }


def disposition(stay: Stay) -> str:
    """Where the patient went, in the words of the discharge summary."""
    if stay.outcome.died:
        return "Expired"
    days = stay.outcome.minutes / MINUTES_PER_DAY
    is_frail = stay.presentation.age > 78 or days > 11 or stay.presentation.worst_grade == 2
    return "Extended Care" if is_frail else "Home"


def _procedures(stay: Stay, voice: Voice) -> str:
    every = stay.outcome.procedures
    done = [code for code in every if _SURGICAL_FROM <= code[:2] < _SURGICAL_TO] or every
    return voice.listed([PROCEDURE_TITLES[code] for code in done[:3]]) if done else "None"


def _results(stay: Stay, voice: Voice) -> str:
    grade = stay.presentation.worst_grade
    draw = voice.rng.uniform
    is_infected = any(problem.condition.name in FEBRILE for problem in stay.presentation.problems)
    words = {
        "a": f"{draw(11, 18 + 6 * grade) if is_infected else draw(4.5, 12.5):.1f}",
        "b": f"{draw(10, 26 + 22 * grade):.0f}",
        "c": f"{draw(0.6, 1.3 + 1.1 * grade):.1f}",
        "d": f"{draw(0.9, 1.3 + 0.4 * grade):.1f}",
        "e": f"{draw(0.8, 2.0 + 2.6 * grade):.1f}",
    }
    day = f"<DATE {stay.admitted.date().isoformat()}>"
    labs = [*_SAYS["labs"][:2], *voice.some(_SAYS["labs"][2:], voice.pick((0, 1, 2)))]
    lines = [f"{day} BLOOD {fill(lab, words, voice.rng)}" for lab in labs]
    study, finding, impression = voice.pick(stay.presentation.reason.imaging)
    lines.append(f"{study}: {voice.sentence(finding)} {voice.sentence(impression)}")
    return "\n".join(lines)


def _course(stay: Stay, voice: Voice) -> str:
    told = []
    for problem in stay.presentation.problems:
        title = voice.pick(problem.condition.terms)
        text = voice.tell(problem.condition.treatment)
        told.append(f"# {title}: {text}" if voice.chance(0.5) else text)
    told += [voice.tell(row.follows) for row in voice.some(stay.presentation.chronic, 1)]
    days, died = stay.outcome.ventilated_minutes / MINUTES_PER_DAY, stay.outcome.died
    if days and died:
        told.append(voice.sentence("{He} was intubated and remained on the ventilator"))
    elif days:
        span = f"{max(1, round(days))} day{'s' if days >= 1.5 else ''}"
        told.append(voice.sentence(f"{{He}} was {{intubated|mechanically ventilated}} for {span}"))
    kind = "deaths" if died else "home" if disposition(stay) == "Home" else "facility"
    ending = voice.pick(_SAYS[kind]).replace("{day}", stay.discharged.date().isoformat())
    return "\n".join([*told, voice.sentence(ending)])


def _medicines(stay: Stay, voice: Voice, medicines: Sequence[str]) -> str:
    if stay.outcome.died:
        return voice.pick(("None", "N/A", "Not applicable"))
    started = voice.several(_SAYS["started"], (0, 1, 2))
    kept = [item for item in medicines if voice.chance(0.85) and item != "None"]
    return voice.listed([*kept, *started] or ["None"])
