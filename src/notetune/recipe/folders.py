"""Where the parts of a study are on disk."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Names of the parts of a run folder."""

    root: Path
    prepared: Path
    """Notes, labels and tokens."""

    @property
    def corpus(self) -> Path:
        """Notes and tokens of step 1, where they are of another source than the tasks."""
        return self.prepared.with_name(f"{self.prepared.name}-corpus")

    @property
    def backbones(self) -> Path:
        """Run folders of the backbones, where there are several."""
        return self.root / "backbones"

    def domain(self, seed: int) -> Path:
        """The domain adapter of a run and how it was trained."""
        return self.root / "domain" / f"seed-{seed}"

    @property
    def perplexity_before(self) -> Path:
        """Perplexity of the backbone alone on the notes of step 1."""
        return self.root / "perplexity-before"

    @property
    def perplexity(self) -> Path:
        """Perplexity with the domain adapter of the first run."""
        return self.root / "perplexity"

    @property
    def compared(self) -> Path:
        """Run folders of the further methods of step 1."""
        return self.root / "compared"

    @property
    def report(self) -> Path:
        """The report in three formats."""
        return self.root / "report"

    @property
    def features(self) -> Path:
        """Features that no training changes, in a folder per model; they may be deleted."""
        return self.root / "features"

    @property
    def search_of_step_1(self) -> Path:
        """What a search for the settings of step 1 found; its trials are beside it."""
        return self.root / "search-pretrain" / "winner"

    def search_of_step_2(self, task: str, model: str) -> Path:
        """What a search for the settings of a model of one task found."""
        return self.root / "search" / task / model / "winner"

    def encoder_tokens(self, name: str) -> Path:
        """The notes in the tokens of another encoder."""
        return self.prepared / "encoders" / name

    def deletion_test(self, task: str, model: str) -> Path:
        """What leaving out sentences does to the scores of a model of the first run."""
        return self.root / "deletion" / task / model

    def cell(self, task: str, model: str, seed: int) -> Path:
        """One model of one task: its bundle and its scores."""
        return self.root / "cells" / task / model / f"seed-{seed}"
