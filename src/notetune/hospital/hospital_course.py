"""The part of a discharge summary that is written at the end: it knows the outcome."""

from collections.abc import Sequence

from notetune.hospital.codes import DIAGNOSIS_TITLES, PROCEDURE_TITLES
from notetune.hospital.examination import FEBRILE
from notetune.hospital.prose import Voice, fill
from notetune.hospital.stays import Stay

_SURGICAL_FROM, _SURGICAL_TO = "0", "87"  # ICD-9 chapters of operations, as text
_DEATHS = (
    "{He} was made comfort measures only after a family meeting and expired on <DATE {day}>.",
    "Despite maximal support {he} became asystolic and was pronounced dead at {1-12}:{10-59} "
    "{am|pm}. The family was at the bedside.",
    "Time of death was {1-12}:{10-59} {am|pm} on <DATE {day}>. The medical examiner declined.",
    "The patient passed away on <DATE {day}> with family present.",
)
_HOME = (
    "{He} was discharged {home|home with VNA|home with services} in {stable|good} condition.",
    "{He} was tolerating a regular diet and ambulating at the time of discharge.",
)
_FACILITY = (
    "{He} was deconditioned and PT recommended rehab.",
    "{He} was discharged to {rehab|a skilled nursing facility} once a bed was available.",
)
_INSTRUCTIONS = (
    "Please take your medications as prescribed. Call your doctor for fever, {chest pain|worsening "
    "breathing|bleeding} or any other concern.",
    "You were admitted with {term}. Weigh yourself every morning and keep your appointments.",
    "You were cared for at <HOSPITAL> for {term}. Return to the ED if your symptoms come back.",
)
_STARTED = (
    "oxycodone {5|10} mg q4h prn", "senna 1 tab BID", "pantoprazole 40 mg daily",
    "levofloxacin {500|750} mg daily for {3|5} days", "prednisone {20|40} mg daily, taper",
    "metoprolol succinate {25|50} mg daily", "enoxaparin 40 mg daily",
)  # fmt: skip
_LABS = (
    "WBC-{a} RBC-{3.1-4.8} Hgb-{8.1-14.2} Hct-{25.0-42.0} MCV-{82-98} Plt Ct-{88-390}",
    "Glucose-{82-260} UreaN-{b} Creat-{c} Na-{128-146} K-{3.2-5.4} Cl-{94-112} HCO3-{16-29}",
    "ALT-{12-80} AST-{14-90} AlkPhos-{44-160} TotBili-{0.2-1.6}",
    "PT-{11.2-16.8} PTT-{24.0-41.0} INR(PT)-{d}",
    "Lactate-{e}",
)


def course_sections(stay: Stay, voice: Voice, medicines: Sequence[str]) -> dict[str, str]:
    """The sections after the admission part, keyed by their modern heading.

    Args:
        stay: The admission and its outcome.
        voice: The author.
        medicines: What the patient took at home; most of it goes on.
    """
    died = stay.outcome.died
    first = stay.presentation.problems[0].condition
    term = voice.pick(first.terms)
    instructions = voice.pick(_INSTRUCTIONS).replace("{term}", term)
    return {
        "Major Surgical or Invasive Procedure": _procedures(stay, voice),
        "Pertinent Results": _results(stay, voice),
        "Brief Hospital Course": _course(stay, voice),
        "Discharge Medications": _discharge_medicines(stay, voice, medicines),
        "Discharge Disposition": disposition(stay),
        "Discharge Diagnosis": _diagnoses(stay, voice),
        "Discharge Condition": "Expired" if died else voice.pick(("Stable", "Good", "Fair")),
        "Discharge Instructions": "N/A" if died else voice.sentence(instructions),
        "Followup Instructions": "N/A"
        if died
        else voice.sentence("Follow up with Dr. <DOCTOR> in {2-4} weeks, <PHONE>"),
    }


def disposition(stay: Stay) -> str:
    """Where the patient went, in the words of the discharge summary."""
    if stay.outcome.died:
        return "Expired"
    days = stay.outcome.minutes / (24 * 60)
    is_frail = stay.presentation.age > 78 or days > 11 or stay.presentation.worst_grade == 2
    return "Extended Care" if is_frail else "Home"


def _procedures(stay: Stay, voice: Voice) -> str:
    done = [
        code for code in stay.outcome.procedures if _SURGICAL_FROM <= code[:2] < _SURGICAL_TO
    ] or list(stay.outcome.procedures)
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
    labs = [*_LABS[:2], *voice.some(_LABS[2:], voice.pick((0, 1, 2)))]
    lines = [f"{day} BLOOD {fill(lab, words, voice.rng)}" for lab in labs]
    study, finding, impression = voice.pick(stay.presentation.problems[0].condition.imaging)
    lines.append(f"{study}: {voice.sentence(finding)} {voice.sentence(impression)}")
    return "\n".join(lines)


def _course(stay: Stay, voice: Voice) -> str:
    told = []
    for problem in stay.presentation.problems:
        title = voice.pick(problem.condition.terms)
        text = voice.sentence(voice.pick(problem.condition.treatment))
        told.append(f"# {title}: {text}" if voice.chance(0.5) else text)
    told += [
        voice.sentence(voice.pick(row.follows)) for row in voice.some(stay.presentation.chronic, 1)
    ]
    told += _breathing(stay, voice)
    day = stay.discharged.date().isoformat()
    if stay.outcome.died:
        ending = voice.pick(_DEATHS).replace("{day}", day)
    else:
        ending = voice.pick(_HOME if disposition(stay) == "Home" else _FACILITY)
    return "\n".join([*told, voice.sentence(ending)])


def _breathing(stay: Stay, voice: Voice) -> Sequence[str]:
    days = stay.outcome.ventilated_minutes / (24 * 60)
    if not days:
        return ()
    if stay.outcome.died:
        return [voice.sentence("{He} was intubated and remained on the ventilator")]
    span = f"{max(1, round(days))} day{'s' if days >= 1.5 else ''}"
    return [voice.sentence(f"{{He}} was {{intubated|mechanically ventilated}} for {span}")]


def _discharge_medicines(stay: Stay, voice: Voice, medicines: Sequence[str]) -> str:
    if stay.outcome.died:
        return voice.pick(("None", "N/A", "Not applicable"))
    started = [voice.say(item) for item in voice.some(_STARTED, voice.pick((0, 1, 2)))]
    kept = [item for item in medicines if voice.chance(0.85) and item != "None"]
    return voice.listed([*kept, *started] or ["None"])


def _diagnoses(stay: Stay, voice: Voice) -> str:
    names = [DIAGNOSIS_TITLES[code] for code in stay.outcome.diagnoses[:3]]
    return voice.listed(names) if names else "Observation"
