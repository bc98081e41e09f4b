"""What is counted while notes are prepared, and shown in every report."""

from dataclasses import dataclass, field
from typing import Literal, assert_never

from notetune.errors import DataError


@dataclass(frozen=True)
class FlowCount:
    """One stage of the cohort flow: rows read = rows kept + rows rejected, each with a reason."""

    stage: str
    read: int
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.rejected.values()):
            raise DataError(
                f"flow stage {self.stage}: {self.read} rows read, but {self.kept} kept and "
                f"{sum(self.rejected.values())} rejected. This is a fault in the source reader."
            )


@dataclass(frozen=True)
class Finding:
    """The result of one check; a count of zero says that it was made and found nothing.

    Attributes:
        check: What was looked for.
        split_a: What the notes are compared with: another split, a corpus, or a task.
        split_b: The notes that are looked at.
        count: Patients or notes of `split_b` that are also in `split_a`; for words and times, notes
            that tell about the task.
        share: `count` over all patients or notes of `split_b` (0.0 where there are none).
        blocks: Whether training must stop, unless the user overrides it and the report says so.
        is_judged: False where the notes do not say what was looked for, such as who the patients
            are: nothing is known then.
    """

    check: Literal[
        "same patient",
        "same text",
        "near-duplicate text",
        "outcome words",
        "later than the prediction time",
    ]
    split_a: str
    split_b: str
    count: int
    share: float
    blocks: bool
    is_judged: bool = True

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        match self.check:
            case "same patient" if not self.is_judged:
                return f"patients of {self.split_b} in {self.split_a}: not judged, without ids"
            case "same patient":
                return f"{self.count} patients of {self.split_b} are also in {self.split_a}"
            case "outcome words":
                words = f"words that tell {self.split_a}"
                return f"{self.count} notes of {self.split_b} hold {words}"
            case "later than the prediction time":
                moment = f"the prediction time of {self.split_a}"
                return f"{self.count} notes of {self.split_b} were written after {moment}"
            case "same text" | "near-duplicate text":
                return f"{self.check}: {self.count} notes of {self.split_b} in {self.split_a}"
            case _:
                assert_never(self.check)
