"""What a study does: jobs, each of which says what it makes, where, and of what."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from notetune import manifest
from notetune.model.device import DeviceName, Recompute
from notetune.prepare import prepared
from notetune.prepare.prepared import open_prepared
from notetune.prepare.settings import Preparation
from notetune.recipe.models import Model
from notetune.study.specs import KINDS, Spec, Stage

OF_NOTES: tuple[Stage, ...] = ("prepare", "prepare the corpus")
"""Stages that every other one needs."""
TRAINING = "training.json"
"""How a job of step 1 or step 2 was trained."""
WINNER = "winner.json"
"""What a search found."""
SpecT = TypeVar("SpecT", bound=Spec | Preparation)


@dataclass(frozen=True)
class Place:
    """Where a job runs and what it is allowed; nothing here changes what a model learns.

    Attributes:
        backbone: Folder of the backbone, or of the encoder; `key` of the recipe names it.
        features: Folder of features that are kept.
        of_source: What a card says of the notes' source: `note_columns`, `missing` and `day_first`
            of a table, `source` of another one, and `drops_late` of both.
        brought: Folder of the adapter that step 1 starts from.
    """

    backbone: str
    key: str
    device: DeviceName
    recompute: Recompute
    keep_hidden_states: bool
    checkpoint_minutes: float
    features: Path
    general_text: Path
    allow_leaks: bool
    of_source: dict[str, Any]
    brought: Path | None = None


@dataclass(frozen=True)
class Job:
    """One thing to make.

    Two jobs are the same if they make the same folder.

    Attributes:
        label: How progress, status and errors name it.
        needs: Jobs whose results it reads.
        backbone: The backbone of the study whose run folder holds it; "" in a study of one.
        method: Of step 1: its name; None for perplexity without any.
        is_domain: Whether step 2 builds on that method.
        model: Of step 2, as `task`.
    """

    folder: Path
    stage: Stage = field(compare=False)
    label: str = field(compare=False)
    spec: Spec | Preparation = field(compare=False)
    place: Place = field(compare=False)
    needs: tuple["Job", ...] = field(default=(), compare=False)
    backbone: str = field(default="", compare=False)
    method: str | None = field(default=None, compare=False)
    is_domain: bool = field(default=False, compare=False)
    model: Model | None = field(default=None, compare=False)
    task: str = field(default="", compare=False)
    seed: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Its label in a study of several backbones."""
        return f"{self.backbone} · {self.label}" if self.backbone else self.label

    def spec_as(self, kind: type[SpecT]) -> SpecT:
        """Its spec, which is of this kind."""
        assert isinstance(self.spec, kind)
        return self.spec

    def needed(self, stage: Stage) -> "Job":
        """The job of a stage whose result it reads."""
        return next(job for job in self.needs if job.stage == stage)

    @property
    def parts(self) -> tuple["Job", ...]:
        """What a hybrid joins."""
        return tuple(job for job in self.needs if job.stage in ("baseline", "model"))

    @property
    def inputs(self) -> dict[str, Any]:
        """What it depends on, down to the bits of what it needs.

        Raises:
            RunError: If something that it needs is not made.
        """
        if isinstance(self.spec, Preparation):
            like = [open_prepared(job.folder) for job in self.needs]
            return prepared.inputs(self.spec, *like)
        read = [job.folder for job in self.needs if job.stage not in OF_NOTES]
        return {
            "stage": self.stage,
            "format": KINDS[self.stage].format,
            "spec": self.spec,
            "needs": [manifest.files_of(folder) for folder in read],
        }

    def is_made(self, *, is_checked: bool = False) -> bool:
        """Whether it was made as it says, of what stands there now; `is_checked`: file by file."""
        if not all(job.is_made() for job in self.needs if job.stage not in OF_NOTES):
            return False
        if not all((job.folder / manifest.MANIFEST).is_file() for job in self.needs):
            return False
        check = manifest.is_finished if is_checked else manifest.was_made_from
        return check(self.folder, self.inputs)
