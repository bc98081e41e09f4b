"""Where the parts of a study are on disk that more than the list of its jobs names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Names of the parts of a run folder."""

    root: Path
    prepared: Path
    """Notes, labels and tokens."""

    def domain(self, seed: int) -> Path:
        """The domain adapter of a run and how it was trained."""
        return self.root / "domain" / f"seed-{seed}"

    @property
    def report(self) -> Path:
        """The report in three formats."""
        return self.root / "report"

    @property
    def features(self) -> Path:
        """Features that no training changes, in a folder per model; they may be deleted."""
        return self.root / "features"

    def cell(self, task: str, model: str, seed: int) -> Path:
        """One model of one task: its bundle and its scores."""
        return self.root / "cells" / task / model / f"seed-{seed}"
