"""Notes to a prepared folder: cleaned notes, patient splits, labels and tokens."""

import functools
from pathlib import Path
from typing import Any

from notetune import claims, manifest, runs
from notetune.errors import ConfigError, DataError
from notetune.model.backbone_folder import resolve_backbone
from notetune.prepare.assemble import assemble
from notetune.prepare.checks import HeldOut
from notetune.prepare.intake import take_in
from notetune.prepare.prepared import Prepared, inputs, open_prepared
from notetune.prepare.settings import Preparation
from notetune.prepare.shards import usable_cores, write_shards
from notetune.sources.cohort import without_tasks
from notetune.sources.joined import joined
from notetune.sources.mimic import published
from notetune.sources.paths import files_of


def prepare(spec: Preparation, like: Prepared | None = None) -> Prepared:
    """Build the prepared folder of a recipe, or open it if it was built from the same inputs.

    Notes pass in chunks, so memory does not grow with their number, but for their ids. A run that
    was killed goes on: at most the shards that were being written are encoded again.

    Args:
        spec: What to do.
        like: Notes of the tasks, for a corpus of step 1 alone: it is read like them, has no tasks,
            and must not hold their validation and test notes.

    Raises:
        DataError: If the source is faulty, a task cannot be taught, or a leak blocks.
        ConfigError: If the recipe names a task that the source lacks, or what is read lies in the
            folder that is written.
        RunError: If that folder is not ours to replace.
    """
    folder, depends_on = spec.folder, inputs(spec, like)
    read = [*files_of(spec.source), *files_of(spec.split)]
    for path in (*read, resolve_backbone(spec.backbone)):
        if path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"prepared: {path} lies in {folder} and is read; name another folder for what is "
                "prepared."
            )
    with claims.one_at_a_time(folder):
        if not manifest.is_finished(folder, depends_on):
            with runs.work_folder(folder, depends_on) as work:
                _make(spec, depends_on, work, like)
    return open_prepared(folder)


def _make(spec: Preparation, depends_on: dict[str, Any], work: Path, like: Prepared | None) -> None:
    stream, store = spec.source.open(), None
    held_out: HeldOut = None
    if like is not None:
        stream, store = without_tasks(stream), like.store
    if spec.config.join == "by time":
        drops_late = spec.config.late_notes == "drop"
        stream = joined(stream, spec.tasks, drops_late=drops_late)
    workers = spec.config.workers or usable_cores()
    shards = write_shards(stream.chunks, work, workers)
    with runs.new_folder(spec.folder, depends_on) as temporary:
        finished = stream.finish()
        if spec.is_of_step_1:
            held_out = like.folder if like else "own"
        encode = functools.partial(take_in, spec, shards, workers, store)
        assemble(spec, shards, finished, temporary, encode, held_out)


def compare_with_published(prepared: Prepared) -> tuple[published.PublishedFigure, ...]:
    """The figures of a cohort beside the published ones.

    Raises:
        DataError: If no figures are published for its source.
    """
    if not prepared.counts:
        raise DataError(
            "no figures are published for this source; there are some for mimic3 and mimic4 "
            "sources. Leave --check out."
        )
    return published.compare(prepared.counts)
