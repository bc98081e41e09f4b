"""Vital signs and the physical examination, as the conditions and their grades make them."""

from notetune.hospital.patients import Presentation
from notetune.hospital.prose import Voice

SYSTEMS = (
    "general", "heent", "neck", "heart", "lungs", "chest", "abdomen", "rectal", "extremities",
    "skin", "neuro",
)  # fmt: skip
"""The order in which systems are examined."""

_NAMES = (
    ("GEN", "HEENT", "NECK", "CV", "PULM", "CHEST", "ABD", "RECTAL", "EXT", "SKIN", "NEURO"),
    ("General", "HEENT", "Neck", "Cardiac", "Lungs", "Chest", "Abdomen", "Rectal", "Extremities",
     "Skin", "Neuro"),
    ("Gen", "HEENT", "Neck", "Heart", "Resp", "Chest wall", "Abd", "Rectal", "Extr", "Skin",
     "Neurologic"),
)  # fmt: skip
"""What three schools of authors call the systems."""

_NORMAL = {
    "heent": (
        "{NCAT|atraumatic}, {PERRL|pupils equal and reactive}, {MMM|OP clear}",
        "sclerae anicteric, oropharynx clear",
    ),
    "neck": ("supple, no LAD", "{JVP not elevated|JVP flat}, no carotid bruits"),
    "heart": (
        "{RRR|regular}, normal S1 S2, {no m/r/g|no murmurs}",
        "RR, {nl|normal} S1/S2, no rubs or gallops",
    ),
    "lungs": (
        "{CTAB|CTA bilaterally}, no {wheezes|rales}",
        "{clear|clear anteriorly}, {good air movement|no crackles}",
    ),
    "abdomen": (
        "soft, {NT/ND|nontender, nondistended}, {+BS|bowel sounds present}",
        "{benign|obese, soft, nontender}",
    ),
    "extremities": (
        "{WWP|warm and well perfused}, no {edema|c/c/e}",
        "no edema, {2+|palpable} distal pulses",
    ),
    "neuro": (
        "{A&Ox3|alert and oriented x3}, CN II-XII {intact|grossly intact}",
        "{nonfocal|moving all extremities}, strength 5/5 throughout",
    ),
    "skin": ("no rashes", "warm and dry, no lesions"),
}

_IMPAIRED = (
    "{responds to voice|opens eyes to voice}, {follows simple commands|inconsistently follows}",
    "{lethargic|drowsy}, {withdraws to pain|moves all extremities}",
    "{limited by mental status|not cooperative with exam}",
)
_ONE_FINDING = {"heart", "lungs", "abdomen", "neuro"}
_GENERAL = (
    ("{NAD|no acute distress}", "{pleasant|comfortable}, {NAD|conversant}", "well appearing"),
    (
        "{fatigued|tired appearing}, {NAD|able to give history}",
        "{uncomfortable|anxious}, conversant",
    ),
    (
        "{critically|very} ill appearing",
        "{in extremis|in marked distress}",
        "{gray and clammy|unwell}",
    ),
)

FEBRILE = {"septic_shock", "urosepsis", "pneumonia", "aspiration", "meningitis"}
_BREATHLESS = {
    "pneumonia",
    "aspiration",
    "copd_exacerbation",
    "heart_failure_exacerbation",
    "pulmonary_embolism",
}
_HYPERTENSIVE = {
    "intracerebral_hemorrhage",
    "ischemic_stroke",
    "subarachnoid_hemorrhage",
    "alcohol_withdrawal",
}


def vital_signs(presentation: Presentation, voice: Voice, *, is_recovered: bool = False) -> str:
    """One line of vital signs; pulse, pressure, rate and saturation worsen with the grade."""
    is_well = is_recovered or presentation.problems[0].condition.elective
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
    shape = voice.pick(
        (
            "T {t} HR {p} BP {s}/{d} RR {r} SpO2 {o}% {on}",
            "{t} {p} {s}/{d} {r} {o}% on {on}",
            "T{t}, P{p}, BP {s}/{d}, R {r}, O2 sat {o}% {on}",
        )
    )
    values = {"p": pulse, "s": systolic, "d": diastolic, "r": rate, "o": saturation, "on": oxygen}
    return shape.format(t=f"{temperature:.1f}", **values)


def examination(presentation: Presentation, voice: Voice) -> str:
    """The physical exam: vital signs, then one line per examined system."""
    grade = _apparent_grade(presentation, voice)
    findings = {"general": [voice.say(voice.pick(_GENERAL[grade]))]}
    if grade == 2 and voice.chance(0.6):
        findings["neuro"] = [voice.say(voice.pick(_IMPAIRED))]
    for condition in presentation.conditions:
        for system, finding in condition.exam:
            if grade or system != "general":
                findings.setdefault(system, []).append(voice.say(finding))
    names = dict(zip(SYSTEMS, voice.pick(_NAMES), strict=True))
    prefix = voice.pick(("VS: ", "Vitals: ", "VITAL SIGNS: ", "", "VS "))
    lines = [prefix + vital_signs(presentation, voice)]
    for system in SYSTEMS:
        if system in findings:
            shown = findings[system][: 1 if system in _ONE_FINDING else 2]
            lines.append(f"{names[system]}: {', '.join(shown)}")
        elif system in _NORMAL and voice.chance(0.75):
            lines.append(f"{names[system]}: {voice.say(voice.pick(_NORMAL[system]))}")
    return "\n".join(lines)


def _apparent_grade(presentation: Presentation, voice: Voice) -> int:
    """The grade at first sight: one step off in one patient of three."""
    if presentation.problems[0].condition.elective:
        return 0
    grade: int = presentation.worst_grade
    return min(2, max(0, grade + voice.pick((-1, 1)))) if voice.chance(1 / 3) else grade
