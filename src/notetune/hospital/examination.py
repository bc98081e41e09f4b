"""Vital signs and the physical examination, as the conditions and their grades make them."""

from notetune.hospital.patients import Presentation
from notetune.hospital.prose import Voice
from notetune.hospital.texts import PHRASES

_SAYS = PHRASES["examination"]
FEBRILE, _BREATHLESS, _HYPERTENSIVE = (
    frozenset(_SAYS[name]) for name in ("febrile", "breathless", "hypertensive")
)
_ONE_FINDING = {"heart", "lungs", "abdomen", "neuro"}


def vital_signs(presentation: Presentation, voice: Voice, *, is_recovered: bool = False) -> str:
    """One line of vital signs; pulse, pressure, rate and saturation worsen with the grade."""
    is_well = is_recovered or presentation.reason.elective
    grade = 0 if is_well else presentation.worst_grade
    names = set() if is_well else {problem.condition.name for problem in presentation.problems}
    draw = voice.rng.gauss
    temperature = draw(*((100.9, 1.0) if names & FEBRILE else (98.2, 0.4)))
    pulse = round(draw(80 + 13 * grade, 10))
    systolic = round(draw((130, 117, 92)[grade] + 48 * bool(names & _HYPERTENSIVE), 12))
    diastolic = round(systolic * draw(0.58, 0.05))
    rate = round(draw(16 + 4 * grade + 3 * bool(names & _BREATHLESS), 2))
    saturation = min(100, round(draw(98 - (2 + grade) * bool(names & _BREATHLESS), 1.2)))
    oxygen = voice.pick((("RA", "2L NC"), ("2L", "4L NC"), ("NRB", "100% FM"))[grade])
    shape: str = voice.pick(_SAYS["vital_signs"])
    values = {"p": pulse, "s": systolic, "d": diastolic, "r": rate, "o": saturation, "on": oxygen}
    return shape.format(t=f"{temperature:.1f}", **values)


def examination(presentation: Presentation, voice: Voice) -> str:
    """The physical exam: vital signs, then one line per examined system."""
    grade: int = 0 if presentation.reason.elective else presentation.worst_grade
    if not presentation.reason.elective and voice.chance(1 / 3):
        grade = min(2, max(0, grade + voice.pick((-1, 1))))  # as it looks at first sight
    findings = {"general": [voice.say(voice.pick(_SAYS["general"][grade]))]}
    if grade == 2 and voice.chance(0.6):
        findings["neuro"] = [voice.say(voice.pick(_SAYS["impaired"]))]
    for condition in presentation.conditions:
        for system, finding in condition.exam:
            if grade or system != "general":
                findings.setdefault(system, []).append(voice.say(finding))
    names = dict(zip(_SAYS["systems"], voice.pick(_SAYS["names"]), strict=True))
    prefix = voice.pick(("VS: ", "Vitals: ", "VITAL SIGNS: ", "", "VS "))
    lines = [prefix + vital_signs(presentation, voice)]
    for system, name in names.items():
        if system in findings:
            shown = findings[system][: 1 if system in _ONE_FINDING else 2]
            lines.append(f"{name}: {', '.join(shown)}")
        elif system in _SAYS["normal"] and voice.chance(0.75):
            lines.append(f"{name}: {voice.say(voice.pick(_SAYS['normal'][system]))}")
    return "\n".join(lines)
