"""What a step does when memory does not hold its rows: it begins again with each of them halved."""

from collections.abc import Sequence

import torch

from notetune.errors import StepError, TrainingMemoryError
from notetune.train.parallel import Batch, BatchT, World


def halved(rows: Sequence[BatchT], times: int) -> Sequence[BatchT]:
    """The parts of rows that were halved so many times; a document is never cut."""
    for _ in range(times):
        rows = [part for row in rows for part in row.halves()]
    return rows


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory did not hold something, on a GPU or a CPU."""
    on_cpu = "DefaultCPUAllocator: can't allocate memory"
    return isinstance(error, torch.OutOfMemoryError) or on_cpu in str(error)


def was_too_large(number: int, part: Batch | None, world: World) -> bool:
    """Whether memory did not hold a part of a step: `part` in this process, or one in another.

    Raises:
        StepError: If one document alone was too large.
    """
    is_single = part is not None and len(part.documents_D) == 1
    failures, single_failures = world.sums(part is not None, is_single)
    if single_failures:
        raise StepError(
            f"step {number}: one document alone does not fit into memory. Lower "
            "prepare.max_tokens, take a smaller backbone, or free memory.",
            part.documents_D.tolist() if part is not None and is_single else (),
            TrainingMemoryError,
        )
    return failures > 0
