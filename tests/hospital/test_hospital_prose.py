"""Wording of the synthetic notes: the grammar, the habits of authors, negation and marks."""

import itertools
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.hospital import SyntheticConfig, codes, write_hospital
from notetune.hospital.conditions import ACUTE, LASTING, Acute
from notetune.hospital.layout import mimic3_summary, mimic4_summary, summary_sections
from notetune.hospital.oracle import auroc
from notetune.hospital.outcome_model import OutcomeModel
from notetune.hospital.patients import presentations, sample_patient
from notetune.hospital.prose import AUTHORS, Voice, author, fill, wrapped
from notetune.hospital.stays import stays_of

EVERY_CONDITION = (*ACUTE.values(), *LASTING.values())
NAMED_SLOTS = {"he", "He", "his", "His", "him", "man", "name", "spouse", "age", "side", "Side"}


def templates(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from templates(item)


def stays(patients, key="0/prose"):
    model = OutcomeModel(1.0)
    for index in range(patients):
        earlier = None
        for stay in stays_of(sample_patient(f"{key}/{index}"), model):
            yield stay, earlier
            earlier = stay.presentation


def test_every_template_has_balanced_braces_and_known_slots():
    seen = 0
    for row in EVERY_CONDITION:
        fields = [getattr(row, name) for name in row.__dataclass_fields__ if name != "effects"]
        for template in templates(tuple(fields)):
            for inner in re.findall(r"\{([^{}|]*)\}", template):
                is_number = re.fullmatch(r"\d+(\.\d+)?-\d+(\.\d+)?", inner)
                assert is_number or inner in NAMED_SLOTS, (row.name, template)
            text = fill(template, dict.fromkeys(NAMED_SLOTS, "x"), random.Random(0))
            assert not set("{}|") & set(text), (row.name, template)
            seen += 1
    assert seen > 900


def test_every_code_of_a_condition_is_in_the_dictionary():
    known = {"diagnoses": set(codes.DIAGNOSIS_TITLES), "procedures": set(codes.PROCEDURE_TITLES)}
    assert len(EVERY_CONDITION) == len(ACUTE) + len(LASTING) == 37
    for row in EVERY_CONDITION:
        for kind, names in known.items():
            assert {code for code, _ in getattr(row, kind)} <= names
        if isinstance(row, Acute):
            assert all(row.grades)
            assert {*row.boosts, *row.leaves, *row.spares} <= set(LASTING)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 2**32))
def test_a_range_gives_a_number_between_its_ends(a, b, seed):
    low, high = min(a, b), max(a, b)
    assert low <= int(fill(f"{{{low}-{high}}}", {}, random.Random(seed))) <= high
    decimal = float(fill(f"{{{low}.0-{high}.0}}", {}, random.Random(seed)))
    assert low <= decimal <= high


@given(st.text(alphabet="ab \n", max_size=300), st.integers(5, 30))
def test_wrapping_changes_spaces_only_and_keeps_to_the_width(text, width):
    lines = wrapped(text, width)
    assert lines.replace("\n", " ") == text.replace("\n", " ")
    assert all(len(line) <= width or " " not in line.strip() for line in lines.split("\n"))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40),
)
def test_the_rank_formula_equals_counting_pairs(data):
    labels = np.array([label for label, _ in data])
    scores = np.array([float(score) for _, score in data])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert auroc(labels, scores) == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_authors_differ_in_layout_shorthand_and_lists():
    authors = [author(0, number) for number in range(AUTHORS)]
    assert Counter(a.layout for a in authors)["capitals"] >= 5
    assert sum(a.shorthand > 0.5 for a in authors) >= 10
    assert sum(a.slips > 0 for a in authors) >= 10
    assert len({a.bullet for a in authors}) >= 5
    assert all(70 <= a.width <= 80 for a in authors)


def test_a_terse_author_abbreviates_and_slips_where_a_careful_one_does_not():
    template = "The patient presented with shortness of breath secondary to pneumonia"
    careful = author(0, next(n for n in range(AUTHORS) if not author(0, n).shorthand))
    terse = author(0, next(n for n in range(AUTHORS) if author(0, n).shorthand > 0.8))
    voices = [Voice(who, {}, random.Random(1)) for who in (careful, terse)]
    said = [[voice.say(template) for _ in range(50)] for voice in voices]
    assert not any("SOB" in text or "2/2" in text for text in said[0])
    assert sum("SOB" in text for text in said[1]) > 25
    assert sum("p/w" in text for text in said[1]) > 25


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


def test_mimic3_notes_carry_its_marks_and_mimic4_notes_underscores_only():
    marks = Counter()
    for stay, earlier in stays(40):
        who = author(0, stay.presentation.number + len(marks))
        sections = summary_sections(stay, who, earlier)
        older, newer = mimic3_summary(stay, who, sections), mimic4_summary(stay, who, sections)
        assert "___" not in older
        assert "[**" not in newer
        assert not re.search(r"<[A-Z]+", older + newer)
        assert newer.startswith(" \nName:  ___                     Unit No:   ___\n \n")
        assert "\nSocial History:\n___\nFamily History:\n" in newer
        assert max(len(line) for line in older.split("\n")) <= 80
        marks.update(
            re.sub(r"[\d*\[\]-]", "", mark).strip()
            for mark in re.findall(r"\[\*\*[^*]*\*\*\]", older)
        )
        assert 150 < len(older.split()) < 650
    assert marks[""] > 80
    assert {"Known lastname", "Hospital", "Last Name (STitle)", "Doctor Last Name"} <= set(marks)


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


def test_lasting_conditions_stay_and_a_death_ends_the_series():
    several = 0
    for index in range(200):
        patient = sample_patient(f"0/series/{index}")
        visits = list(presentations(patient, 3))
        for before, after in itertools.pairwise(visits):
            assert (after.admitted - before.admitted).days >= 130
            assert len(after.chronic) >= len(before.chronic)
            assert after.age >= before.age
        real = list(stays_of(patient, OutcomeModel(1.0)))
        assert not any(stay.outcome.died for stay in real[:-1])
        several += len(real) > 1
    assert several > 30


def test_times_lie_within_each_other():
    ventilated = 0
    for stay, _ in stays(300):
        assert stay.admitted < stay.icu[0] < stay.icu[1] <= stay.discharged
        moments = [time for episode in stay.ventilation for time in episode]
        assert moments == sorted(moments)
        if moments:
            ventilated += 1
            assert stay.icu[0] <= moments[0]
            assert moments[-1] <= stay.icu[1]
    assert ventilated > 60


def test_a_hospital_of_one_patient_is_complete(tmp_path):
    truth = write_hospital(tmp_path / "h", SyntheticConfig(patients=1, mimic4_patients=1))
    assert {row.hospital for row in truth.admissions} == {"mimic3", "mimic4"}
    assert len(list((tmp_path / "h").rglob("*.csv*"))) == 9 + 12 + 3
