"""What was made with one backbone."""

from dataclasses import dataclass
from functools import cached_property

from notetune.workflows.cell import Cell
from notetune.workflows.downstream import cells, trained_cells
from notetune.workflows.prepare import Prepared
from notetune.workflows.pretrain import Pretrained
from notetune.workflows.recipe import Recipe


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
