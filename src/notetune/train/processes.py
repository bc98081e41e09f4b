"""A stage in several processes that `torchrun` started: all train, the first one writes."""

import datetime
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from notetune import runs
from notetune.errors import ConfigError
from notetune.model.backbone import Backbone
from notetune.model.sharded import shard
from notetune.train.parallel import this_world

T = TypeVar("T")

_LONGEST_WAIT = datetime.timedelta(hours=12)  # for the first process to measure or to save


@contextmanager
def joined() -> Iterator[None]:
    """Work with the other processes if `torchrun` started this one."""
    if not dist.is_torchelastic_launched():
        yield
        return
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(dist.get_node_local_rank())
    dist.init_process_group("nccl" if has_cuda else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def refuse_alone() -> None:
    """Refuse to spread layers over several processes where there is one, by a ConfigError."""
    if this_world().size == 1:
        raise ConfigError(
            "pretrain.sharded needs several processes; run `torchrun --nproc-per-node=N -m "
            "notetune pretrain RECIPE`, or leave the key out."
        )


def spread(backbone: Backbone) -> None:
    """Spread the layers of a backbone, adapters in them included; refuses as `refuse_alone`.

    Each pass gathers the layers from all processes, so all must make as many: one a row.

    Raises:
        ConfigError: Also if the documents of the backbone cannot share rows.
    """
    refuse_alone()
    if not backbone.reach.packs_to:
        raise ConfigError(
            f"pretrain.sharded: backbone {backbone.name} computes each document alone, and the "
            "processes would not make equally many passes; leave the key out."
        )
    shard(backbone.body, list(backbone.body.layers))


def is_first() -> bool:
    """Whether this process reports and writes; always, if it is alone."""
    return this_world().rank == 0


def are_several() -> bool:
    """Whether `torchrun` started this process with others."""
    return this_world().size > 1


def told(value: T | None) -> T | None:
    """What the first process says, in all of them."""
    if not are_several():
        return value
    message = [value if is_first() else None]
    dist.broadcast_object_list(message)
    return message[0]


@contextmanager
def stage_folders(folder: Path, inputs: Any) -> Iterator[tuple[Path, Path]]:
    """The work folder of a stage, and the new folder that takes its place when the block ends.

    What other processes than the first write into the new folder is thrown away. They read the
    first one's work folder.
    """
    several = are_several()
    with ExitStack() as stack:
        if is_first():
            work = stack.enter_context(runs.work_folder(folder, inputs))
            temporary = stack.enter_context(runs.new_folder(folder, inputs))
            told(str(work))
        else:
            work = Path(str(told(None)))
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield work, temporary
        if several:
            dist.barrier()  # all have read what they need from the work folder
    if several:
        dist.barrier()  # the folder is in place
