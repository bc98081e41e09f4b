"""What a note tells: conditions and their absence before the outcome, a death only after it."""

import re
from collections import Counter

from samples import EVERY_CONDITION, stays, templates

from notetune.hospital.conditions import Acute
from notetune.hospital.layout import summary_sections
from notetune.hospital.prose import AUTHORS, author


def distinctive_words():
    """Condition name -> words of its row that at most one other condition uses."""
    used = {}
    for row in EVERY_CONDITION:
        names = ("terms", "history", "story", "grades", "onsets")
        text = " ".join(templates(tuple(getattr(row, name, ()) for name in names)))
        used[row.name] = set(re.findall(r"[a-z]{3,}", text.lower()))
    counts = Counter(word for words in used.values() for word in words)
    return {name: {w for w in words if counts[w] <= 2} for name, words in used.items()}


def test_every_condition_is_told_in_the_admission_part():
    own = distinctive_words()
    plain = next(a for n in range(AUTHORS) if not (a := author(0, n)).slips and not a.shorthand)
    seen = Counter()
    for stay, earlier in stays(150):
        sections = summary_sections(stay, plain, earlier)
        story = sections["History of Present Illness"] + " " + sections["Past Medical History"]
        said = set(re.findall(r"[a-z]{3,}", story.lower()))
        for row in stay.presentation.conditions:
            kind = "acute" if isinstance(row, Acute) else "chronic"
            named = any(term in story for term in row.terms)
            assert named or len(said & own[row.name]) >= (2 if kind == "acute" else 1), row.name
            seen[kind] += 1
    assert min(seen.values()) > 200


def test_absent_conditions_appear_under_negation_and_in_the_family():
    negated = family = copied = total = 0
    for stay, earlier in stays(300):
        sections = summary_sections(stay, author(0, 7), earlier)
        story = sections["History of Present Illness"]
        negated += bool(
            re.search(r"(?i)\b(denies|negative for|neg for|no evidence|ruled|no )\b", story)
        )
        family += " with " in sections["Family History"]
        copied += "<DATE" in story
        total += 1
    assert total > 300
    assert negated / total > 0.6
    assert family / total > 0.5
    assert copied > 30


def test_the_same_words_are_said_of_patients_who_have_a_condition_and_who_have_not():
    """A reader of single words cannot tell them apart."""
    found = Counter()
    for stay, earlier in stays(400):
        text = summary_sections(stay, author(0, 0), earlier)["History of Present Illness"].lower()
        has = any(row.name == "pneumonia" for row in stay.presentation.conditions)
        if re.search(r"pneumonia|pna", text):
            found[has] += 1
    assert found[True] > 20
    assert found[False] > 20


def test_a_death_is_told_after_the_admission_part_only():
    seen = 0
    for stay, earlier in stays(300):
        if stay.outcome.died:
            sections = summary_sections(stay, author(0, 0), earlier)
            assert sections["Discharge Disposition"] == "Expired"
            assert re.search(
                r"(?i)expired|pronounced|death|passed away", sections["Brief Hospital Course"]
            )
            seen += 1
    assert seen > 20
