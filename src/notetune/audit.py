"""What is counted while notes are prepared, and shown in every report."""

from dataclasses import dataclass, field
from typing import Final, Literal

from notetune.errors import DataError

IN_ALL: Final = "in all"
"""The key of `FlowCount.changed` for notes with a change of any kind."""

CORPUS: Final = "corpus of step 1"
Check = Literal[
    "same patient",
    "same text",
    "near-duplicate text",
    "outcome words",
    "later than the prediction time",
    "no prediction time",
]


@dataclass(frozen=True)
class FlowCount:
    """One stage of the cohort flow: rows read = rows kept + rows rejected, each with a reason.

    Attributes:
        changed: Kept notes with changed characters, `IN_ALL` and by kind of change (`notes.clean`).
        notice: A sentence that every reader of the scores must see; "" if there is none.
    """

    stage: str
    read: int
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    notice: str = ""

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.rejected.values()):
            raise DataError(
                f"flow stage {self.stage}: {self.read} rows read, but {self.kept} kept and "
                f"{sum(self.rejected.values())} rejected. This is a fault in the source reader."
            )

    @property
    def changes(self) -> str:
        """How many notes had characters changed, in words; "" if none had."""
        if not self.changed:
            return ""
        kinds = "; ".join(f"{kind}: {n:,}" for kind, n in self.changed.items() if kind != IN_ALL)
        share = f"{self.changed[IN_ALL]:,} of {self.kept:,}"
        return f"{self.stage}: characters changed in {share} ({kinds})"


@dataclass(frozen=True)
class Finding:
    """The result of one check; a count of zero says that it was made and found nothing."""

    check: Check
    split_a: str
    """What the notes are compared with: another split, a corpus, or a task."""
    split_b: str
    """The notes that are looked at."""
    count: int
    """Patients or notes of `split_b` that are also in `split_a`; for words and times, notes that
    tell about the task."""
    share: float
    """`count` over all patients or notes of `split_b` (0.0 where there are none)."""
    blocks: bool
    """Whether training must stop, unless the user overrides it and the report says so."""
    is_judged: bool = True
    """False where nothing could be judged, so that a count of zero says nothing."""
    not_judged: str = ""
    """What the check did not see, and why: "no patient ids", "3 notes without a time"."""

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        a, b = self.split_a, self.split_b
        if not self.is_judged:
            return f"{self.check} ({a}, {b}): not judged, {self.not_judged}"
        found = {
            "same patient": f"{self.count} patients of {b} are also in {a}",
            "same text": f"{self.check}: {self.count} notes of {b} in {a}",
            "near-duplicate text": f"{self.check}: {self.count} notes of {b} in {a}",
            "outcome words": f"{self.count} notes of {b} hold words that tell {a}",
            "later than the prediction time": (
                f"{self.count} notes of {b} were written after the prediction time of {a}"
            ),
            "no prediction time": f"{self.count} of {b} lack the prediction time of {a}",
        }[self.check]
        return f"{found} ({self.not_judged})" if self.not_judged else found
