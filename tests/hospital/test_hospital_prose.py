"""Wording of the synthetic notes: the grammar and the habits of authors."""

import random
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from samples import EVERY_CONDITION, templates

from notetune.hospital.prose import AUTHORS, Voice, author, fill, wrapped

NAMED_SLOTS = {"he", "He", "his", "His", "him", "man", "name", "spouse", "age", "side", "Side"}


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
