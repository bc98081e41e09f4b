"""Rows that cannot be used: stop at the first one, or leave them out, count and list them."""

from collections import Counter
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from notetune import storage
from notetune.config import Config
from notetune.errors import DataError
from notetune.sources.cohort import REJECTIONS_SCHEMA
from notetune.strict_csv import csv_text


class ReadingPolicy(Config):
    """What to do with a row that cannot be used."""

    policy: Literal["strict", "quarantine"] = "strict"
    """strict: stop at the first such row. quarantine: leave it out, count it, and list it by file,
    line, note id and reason in the prepared folder."""
    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Quarantine stops above this share of the rows."""
    missing: tuple[str, ...] = (
        *("NULL", "null", r"\N", "None", "nan", "NaN", "NaT", "NA", "<NA>"),
        *("N/A", "n/a", "#N/A"),
    )
    """Cells of ids, labels, times, columns and texts that mean the same as an empty one, in tables;
    FHIR has a form of its own for what is not known."""
    day_first: bool | None = None
    """Whether 3/4/2150 in a table is the third of April; false takes it for the fourth of March.
    Left open, times with slashes are refused."""
    AS_BEFORE: ClassVar = {"day_first": None}


class Rejected(Exception):  # noqa: N818 (says what to do with a row; `Rejections` makes the error)
    """A row cannot be used, for a reason that shows no cell."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Rejections:
    """The rows of one reading: how many were read, and which were rejected.

    `policy` says what becomes of them. `rows_read` counts every row, also the rejected ones and
    those left out. `discharges` counts those of FHIR by what they say and whether that was taken
    for death.
    """

    def __init__(self, policy: ReadingPolicy) -> None:
        self.rows_read = 0
        self.discharges: Counter[tuple[str, bool]] = Counter()
        self.policy = policy
        self._left_out: Counter[str] = Counter()
        self._rows: list[tuple[str, int, str | None, str]] = []

    @property
    def is_strict(self) -> bool:
        """Whether the first bad row stops."""
        return self.policy.policy == "strict"

    def reject(self, file: Path, line: int, fault: Rejected, note_id: str | None = None) -> None:
        """Note a bad row; its note id, where it was read.

        Raises:
            DataError: With policy strict.
        """
        if self.is_strict:
            raise DataError(
                f"{place(file, line)}: {fault.reason}; {fault.remedy}, or set policy: quarantine "
                "(`predict --policy quarantine`) to leave such rows out and count them."
            ) from None
        self._rows.append((str(file), line, note_id, fault.reason))

    def leave_out(self, reason: str, rows: int = 1) -> None:
        """Count rows that are sound and not wanted: not bad ones, so no policy applies."""
        self._left_out[reason] += rows

    def counts(self) -> dict[str, int]:
        """Rows per reason, rejected ones first, each in order of first appearance."""
        return {**Counter(reason for *_, reason in self._rows), **self._left_out}

    def table(self) -> pl.DataFrame:
        """The rejected rows, as `REJECTIONS_SCHEMA`."""
        return pl.DataFrame(self._rows, schema=REJECTIONS_SCHEMA, orient="row")

    def check_share(self, origin: Path) -> None:
        """Stop where too many rows of `origin` were rejected.

        Raises:
            DataError: With the counts per reason and the place of the first such row.
        """
        judged = self.rows_read - self._left_out.total()
        share = len(self._rows) / judged if judged else 0.0
        if share <= (limit := self.policy.max_rejected_share):
            return
        counts = Counter(reason for *_, reason in self._rows).most_common(5)
        file, line, *_ = self._rows[0]
        raise DataError(
            f"{origin}: {len(self._rows)} of {judged} rows cannot be used "
            f"({', '.join(f'{count} {reason}' for reason, count in counts)}; the first is "
            f"{place(Path(file), line)}). That is {share:.2%} and at most {limit:.2%} may be: mend "
            "them, or raise prepare.source.max_rejected_share."
        )


def place(file: Path, line: int) -> str:
    """A row, in words."""
    unit = {".parquet": "row", ".json": "entry"}.get(file.suffix.lower(), "line")
    return f"{file}, {unit} {line}"


def write_rejections(rejections: pl.DataFrame, path: Path) -> None:
    """Write rejected rows to a CSV file that only the owner can read, in one step."""
    storage.write_text(path, csv_text(rejections))
