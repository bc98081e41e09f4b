"""One training alone and by two processes, data parallel and sharded; prints both as JSON.

`python parallel_runs.py FOLDER` imports torch and transformers once and forks the processes, which
talk over gloo.
"""

import json
import os
import sys
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from builders import random_batch, random_llama

from notetune.errors import StepError
from notetune.model.adapters.specs import Full, LoRA
from notetune.model.backbone import load_backbone
from notetune.model.sharded import shard, whole
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.train.checkpoints import Checkpoints, Position
from notetune.train.loop import train
from notetune.train.optim import adamw
from notetune.train.parallel import ALONE, World, this_world
from notetune.train.schedule import OptimConfig

# Fewer rows than processes, one document for both, and an odd number: nobody may wait for long.
STEPS = [
    [[9, 4], [7], [5, 5, 5]],
    [[12, 8, 3]],
    [[6]],
    [[20, 3], [4, 4], [11], [2, 30], [5]],
]
ROWS = [
    [random_batch(lengths, seed=10 * n + m) for m, lengths in enumerate(step)]
    for n, step in enumerate(STEPS)
]


LORA = LoRA(rank=2)


def run(folder: Path, world: World, spoil=lambda _loss, _calls: _loss, *, spec=LORA, saves=None):
    """Losses and final tensors of a training; `saves` are the steps of a part of it, by number."""
    backbone = load_backbone(str(folder / "backbone"))
    model = stack(backbone, [Layer(DOMAIN, spec, is_trained=True)], seed=1)
    if world.is_sharded:
        body = backbone.model.get_decoder()
        shard(body, list(body.layers))
    model.train_mode()
    parameters = model.parameters_by_name()
    optim = OptimConfig(peak_lr=1e-2)
    calls = []

    def summed_loss(batch):
        calls.append(len(batch.lengths_D))
        return spoil(model.summed_token_loss(batch), len(calls))

    optimizer = adamw(optim, (parameters.values(), optim.peak_lr))
    checkpoints = Checkpoints(folder / "work", "inputs", parameters, optimizer, world)
    position = checkpoints.restore() if saves else Position(0)
    steps = []
    for step in train(
        ROWS[position.next_step :],
        summed_loss,
        optimizer,
        lambda number: optim.schedule(number, len(ROWS)),
        step_count=len(ROWS),
        max_grad_norm=0.5,
        seed=0,
        first_step=position.next_step,
        world=world,
    ):
        steps.append(step)
        if saves:
            checkpoints.log(step)
            checkpoints.save(Position(step.number + 1))
            if step.number + 1 == saves.stop:
                dist.barrier()  # the first process has written
                break
    return {
        "losses": [step.loss for step in steps],
        "norms": [step.grad_norm for step in steps],
        "targets": [step.targets for step in steps],
        "halvings": [step.halvings for step in steps],
        "order": [step.order for step in steps],
        "parts": len(calls),
        "changed": model.effect(DOMAIN, ROWS[0][0]),
        "saved": {name: t.flatten().tolist() for name, t in model.tensors(DOMAIN).items()},
        "whole": count_held(model) / sum(p.numel() for p in backbone.model.parameters()),
        "tensors": {name: whole(p).flatten().tolist() for name, p in parameters.items()},
    }


def count_held(model: Stack) -> int:
    """Parameters that this process holds."""
    parameters = model.backbone.model.parameters()
    return sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in parameters)


def fail_on_rank(rank: int, change):
    return lambda loss, calls: change(loss) if dist.get_rank() == rank and calls == 3 else loss


def out_of_memory(_loss):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def not_finite(folder: Path, world: World) -> tuple[str, list[int]]:
    try:
        run(folder, world, fail_on_rank(1, lambda loss: loss * float("nan")))
    except StepError as error:
        return str(error), error.documents
    return "no error", []


def work(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    (folder / "work").mkdir(exist_ok=True)
    sharded = this_world(is_sharded=True)
    report = {
        "sharded, all weights": run(folder, sharded, spec=Full()),
        "sharded, begun": run(folder, sharded, saves=range(2)),
        "sharded, resumed": run(folder, sharded, saves=range(2, 4)),
        "data parallel": run(folder, this_world()),
        "out of memory": run(folder, this_world(), fail_on_rank(1, out_of_memory)),
        "sharded": run(folder, this_world(is_sharded=True)),
        "not finite": not_finite(folder, this_world()),
    }
    (folder / f"rank-{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


def fork(work, *arguments) -> int:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work(*arguments)
            code = 0
        finally:
            if code:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(code)
    return child


def alone(folder: Path) -> None:
    torch.set_num_threads(1)
    random_llama(folder / "backbone")
    (folder / "alone.json").write_text(json.dumps(run(folder, ALONE)))
    (folder / "alone-full.json").write_text(json.dumps(run(folder, ALONE, spec=Full())))


def main(folder: Path) -> None:
    wait_for(fork(alone, folder))
    wait_for(*[fork(work, folder, rank) for rank in (0, 1)])


def wait_for(*children: int) -> None:
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
