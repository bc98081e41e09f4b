"""What was made with one backbone, and what its parts are called in a study of several."""

from dataclasses import dataclass
from functools import cached_property

from notetune.workflows.downstream import Cell, cells, trained_cells
from notetune.workflows.prepare import Prepared
from notetune.workflows.pretrain import Pretrained
from notetune.workflows.recipe import Recipe
from notetune.workflows.variants import VARIANTS


@dataclass(frozen=True)
class Finished:
    """All that was made with one backbone.

    Attributes:
        recipe: That of the backbone.
        prepared: The notes of the tasks.
        corpus: The notes of step 1.
        methods: Step 1 by method; the first one made the domain adapter.
    """

    recipe: Recipe
    prepared: Prepared
    corpus: Prepared
    methods: dict[str, Pretrained]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of step 2 that were trained as the recipe says now."""
        return trained_cells(self.recipe, self.prepared)

    @property
    def missing(self) -> list[Cell]:
        """The other cells of the recipe."""
        return [cell for cell in cells(self.recipe, self.prepared) if cell not in self.cells]


def name_in_study(backbone: str, name: str) -> str:
    """What a thing is called in a study: after its backbone, where there are several."""
    return f"{backbone}/{name}" if backbone else name


def model_in_study(backbone: str, model: str) -> str:
    """What a model of step 2 is called; a baseline or an encoder has no backbone of the study."""
    return name_in_study(backbone, model) if model in {*VARIANTS, "hybrid"} else model
