"""More processes for one study: on this machine, or as tasks of a Slurm array."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from notetune import storage
from notetune.errors import ConfigError

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe

_SECONDS_TO_SAVE = 600


@contextlib.contextmanager
def beside(recipe: "Recipe", command: Sequence[str], workers: int) -> Iterator[None]:
    """Let other processes work beside this one until the block ends, each with a log.

    They share the cores; where there are several GPUs each sees one. `command` are the arguments of
    `notetune` that make a worker; this process is one of the `workers`, and if it is the only one
    nothing changes.
    """
    if workers == 1:
        yield
        return
    from notetune.model.device import gpu_count, use_threads

    logs, gpus = logs_of(recipe), gpu_count()
    os.environ.update(share(0, workers, gpus))
    use_threads(int(os.environ["OMP_NUM_THREADS"]))
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, workers):
            with (logs / f"{number}.log").open("ab") as log:
                arguments = [sys.executable, "-m", "notetune", *command]
                environment = os.environ | share(number, workers, gpus)
                started.append(
                    subprocess.Popen(
                        arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                )
        yield
        for worker in started:
            worker.wait()
    finally:
        for worker in started:
            if worker.poll() is None:
                worker.terminate()  # it saves its last step
        for worker in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_SECONDS_TO_SAVE)


def logs_of(recipe: "Recipe") -> Path:
    """The folder of the workers' logs, which is made."""
    logs = (recipe.folder.root / "workers").resolve()
    storage.make_folder(logs)
    return logs


def _quoted(path: Path) -> str:
    """A path as sbatch reads it, which expands what begins with a percent sign."""
    text = str(path).replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    return f'"{text}"'


def share(number: int, count: int, gpus: int) -> dict[str, str]:
    """Which part of this machine a worker, numbered from 0, may use: environment variables."""
    from notetune.prepare.shards import usable_cores

    threads = max(1, usable_cores() // count)
    of_gpu = {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus > 1 else {}
    return {"OMP_NUM_THREADS": str(threads), **of_gpu}


def slurm_script(
    recipe: "Recipe", command: Sequence[str], tasks: int, gpus: int, options: Sequence[str]
) -> str:
    """A script for `sbatch` whose tasks work on one study.

    A task that Slurm stops has time to save its last step; one that is preempted is queued again.
    `command` are the arguments of `notetune` that make a worker, each with so many `gpus`.

    Raises:
        ConfigError: If an option is none of sbatch's long ones, or spans lines.
    """
    for option in options:
        if not option.startswith("--") or not option.isprintable():
            raise ConfigError(f"--sbatch {option!r} is no option such as --partition=gpu.")
    logs = logs_of(recipe)
    given = [
        f"--job-name={recipe.name}",
        f"--array=0-{tasks - 1}",
        f"--output={_quoted(logs)}/slurm-%A-%a.log",
        "--ntasks=1",
        "--requeue",
        "--signal=TERM@120",
        *([f"--gpus-per-task={gpus}"] if gpus else []),
        *options,
    ]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in given),
        "umask 077",
        f"cd {shlex.quote(str(Path.cwd()))}",
        'export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"',
        f"exec srun {shlex.join([sys.executable, '-m', 'notetune', *command])}",
    ]
    return "\n".join(lines) + "\n"
