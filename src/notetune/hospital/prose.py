"""Wording: a template grammar, the habits of authors, shorthand, slips of the pen, hard wrap.

Marks for what de-identification removed stand in the text as `<NAME value>` until `mimic3_marks` or
`mimic4_marks` gives them the form of one hospital, so that both hospitals can tell the same story.
"""

import datetime as dt
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from notetune.hospital.texts import PHRASES

AUTHORS = 48
_Item = TypeVar("_Item")

_SLOT = re.compile(r"\{([^{}]*)\}")
_WHOLE_RANGE = re.compile(r"(\d+)-(\d+)$")
_DECIMAL_RANGE = re.compile(r"(\d+\.\d+)-(\d+\.\d+)$")
_MARK = re.compile(r"<([A-Z]+)(?: ([^<>]*))?>")
_ONE_OF_MANY = re.compile(r"(?<![\d.,/-])1 (day|week|month|hour|liter|unit|cycle|admission)s\b")
_LONG_WORD = re.compile(r"(?<![<\w])[a-z]{6,}(?![\w>])")
_ARTICLE = re.compile(r"\b(?:the|a|an) (?=[a-z])")

SHORTHAND: Mapping[str, str] = PHRASES["prose"]["shorthand"]
_LONG_FORM = re.compile(
    r"\b(" + "|".join(re.escape(key) for key in sorted(SHORTHAND, key=len, reverse=True)) + r")\b"
)


@dataclass(frozen=True)
class Author:
    """One clinician's habits.

    Attributes:
        layout: Headings on their own line, or the older upper-case headings with text behind.
        slips: Probability of a misspelling in a long word.
        bullet: Prefix of list items; "{n}" is their number, "," makes a running list.
        calls: How the patient is named at the start of a sentence.
        width: Column of the hard wrap, 70 to 80.
        story_first: Whether the present illness opens with the complaint or with the history.
        lists_negatives: Probability that pertinent negatives are written down.
    """

    layout: Literal["lines", "capitals"]
    shorthand: float
    drops_articles: bool
    slips: float
    bullet: str
    calls: Literal["he", "the patient", "name"]
    width: int
    story_first: bool
    lists_negatives: float


def author(seed: int, number: int) -> Author:
    """The clinician with this number; `number` counts modulo `AUTHORS`."""
    rng = random.Random(f"{seed}/author/{number % AUTHORS}")
    is_terse = rng.random() < 0.45
    is_older = not is_terse and rng.random() < 0.4
    return Author(
        layout="capitals" if is_older else "lines",
        shorthand=rng.uniform(0.55, 0.95) if is_terse else rng.choice((0.0, 0.05, 0.2)),
        drops_articles=is_terse and rng.random() < 0.7,
        slips=rng.choice((0.0, 0.002, 0.006, 0.015)),
        bullet="{n}. " if is_older else rng.choice(("- ", "{n}. ", "# ", "", ",", "{n}) ", "* ")),
        calls=rng.choice(("he", "the patient", "name")),
        width=rng.randint(70, 80),
        story_first=rng.random() < 0.4,
        lists_negatives=rng.uniform(0.5, 1.0),
    )


@dataclass
class Voice:
    """An author writing about one patient: fills templates and adds the author's habits."""

    author: Author
    words: Mapping[str, str]
    rng: random.Random

    def pick(self, items: Sequence[_Item]) -> _Item:
        """One of the items."""
        return items[int(self.rng.random() * len(items))]

    def some(self, items: Sequence[_Item], count: int) -> list[_Item]:
        """Up to `count` different items in random order."""
        return self.rng.sample(items, min(count, len(items)))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def say(self, template: str) -> str:
        """Fill a template and write it as the author would."""
        text = fill(template, self.words, self.rng)
        if self.author.shorthand:
            text = _LONG_FORM.sub(self._maybe_short, text)
        if self.author.drops_articles:
            text = _ARTICLE.sub("", text)
        if self.author.slips:
            text = _LONG_WORD.sub(self._maybe_slip, text)
        return text

    def sentence(self, template: str) -> str:
        """Like `say`, with a capital at the start and a full stop at the end."""
        text = self.say(template).strip()
        text = text[:1].upper() + text[1:]
        return text if text.endswith((".", "?", "!", ":")) else text + "."

    def tell(self, templates: Sequence[str], **known: str) -> str:
        """One of the templates as a sentence; the slots in `known` hold text or templates."""
        template = self.pick(templates)
        for name, value in known.items():
            template = template.replace(f"{{{name}}}", value)
        return self.sentence(template)

    def several(self, templates: Sequence[str], counts: Sequence[int]) -> list[str]:
        """As many different templates as one of the counts, each said."""
        return [self.say(template) for template in self.some(templates, self.pick(counts))]

    def listed(self, items: Sequence[str]) -> str:
        """The items as the author lists things: one per line, or running on."""
        bullet = self.author.bullet
        if bullet == ",":
            return ", ".join(items)
        return "\n".join(bullet.format(n=n) + item for n, item in enumerate(items, start=1))

    def _maybe_short(self, match: re.Match[str]) -> str:
        return SHORTHAND[match[0]] if self.chance(self.author.shorthand) else match[0]

    def _maybe_slip(self, match: re.Match[str]) -> str:
        word = match[0]
        if not self.chance(self.author.slips):
            return word
        at = self.rng.randrange(1, len(word) - 1)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return self.pick((word[:at] + word[at + 1 :], swapped, word[:at] + word[at] + word[at:]))


def fill(template: str, words: Mapping[str, str], rng: random.Random) -> str:
    """Resolve the slots of a template, innermost first.

    They are `{a|b}` (one alternative), `{3-5}` and `{1.2-2.4}` (a number of the range, both ends
    included) and `{he}` (a key of `words`).

    Example:
        >>> fill("{he} felt {3-3} {pains}", {"he": "she", "pains": "pains"}, random.Random(0))
        'she felt 3 pains'
    """
    while "{" in template:
        template = _SLOT.sub(lambda match: _resolved(match[1], words, rng), template)
    return _ONE_OF_MANY.sub(r"1 \1", template)


def _resolved(slot: str, words: Mapping[str, str], rng: random.Random) -> str:
    if "|" in slot:
        return rng.choice(slot.split("|"))
    if whole := _WHOLE_RANGE.match(slot):
        return str(rng.randint(int(whole[1]), int(whole[2])))
    if decimal := _DECIMAL_RANGE.match(slot):
        return f"{rng.uniform(float(decimal[1]), float(decimal[2])):.1f}"
    return words[slot]


def wrapped(text: str, width: int) -> str:
    """Break lines at spaces so that none is longer than `width`, unless one word is."""
    lines = []
    for line in text.split("\n"):
        while len(line) > width and " " in line:
            at = line.rfind(" ", 0, width + 1)
            at = line.index(" ") if at < 0 else at
            lines.append(line[:at])
            line = line[at + 1 :]
        lines.append(line)
    return "\n".join(lines)


def mimic3_marks(year: int, rng: random.Random) -> Callable[[str], str]:
    """How MIMIC-III writes what was removed: `[**2151-7-16**]`, `[**Hospital1 18**]`."""
    surname = f"[**Known lastname {rng.randint(100, 99999)}**]"

    def mark(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name == "DATE":
            day = dt.date.fromisoformat(value)
            return f"[**{day.year}-{day.month}-{day.day}**]"
        marks = {"LASTNAME": surname, "YEAR": f"[**{year - rng.randint(1, 14)}**]"}
        # All are drawn for each mark, whichever it is.
        marks |= {kind: fill(form, {}, rng) for kind, form in PHRASES["prose"]["marks"].items()}
        return marks[name]

    return lambda text: _MARK.sub(mark, text)


def mimic4_marks(text: str) -> str:
    """MIMIC-IV writes three underscores for everything that was removed."""
    return _MARK.sub("___", text)
