"""Workers of one study as tasks of a Ray cluster.

Ray places and restarts them; leases decide who makes what, as among any workers. Nothing but
paths, recipe keys and exit codes goes through the cluster.
"""

import contextlib
import os
import platform
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notetune import runs
from notetune.cli import terminal, terminal_tables
from notetune.cli.workers import logs_of
from notetune.errors import ConfigError, RunError

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe
    from notetune.study.status import Progress

_BASE_GIB = 2.0
"""Of Python, its libraries and the notes; a CPU holds the tensors of a step beside it."""
_RETRIES = 10
_SECONDS_BETWEEN_LOOKS = 10.0
_SECONDS_TO_ANSWER = 5.0
_BY_SIGNAL = 128  # exit codes above it


def work_on_cluster(recipe: "Recipe", command: Sequence[str], address: str) -> None:
    """Let a Ray cluster make what is not made of a study; all its machines see the same files.

    `command` are the arguments of `notetune` that make a worker; `address` is as `ray.init` takes
    it, and `local` starts a cluster of this machine.

    Raises:
        ConfigError: If Ray is not installed or open to everyone, or no cluster answers.
        RunError: If workers ended before all jobs were made.
    """
    from notetune.study.status import progress

    with _joined(address) as ray:
        ends = _ends_of_workers(ray, recipe, command)
    found = progress(recipe, is_checked=False)
    left = [job for job in found.jobs if job.state != "done"]
    if left:
        raise RunError(
            f"{len(left)} of {len(found.jobs)} jobs are not made; workers on {address} ended with "
            f"{', '.join(sorted(ends))}. `notetune study status` and the logs in "
            f"{logs_of(recipe)} say why; the same command goes on."
        )


def take_turn(command: list[str], folder: str, logs: str) -> int:
    """Be a worker until nothing is left for it, as a task of a cluster.

    Paths of the recipe begin in `folder`; its log, named by its machine and process, is in `logs`.

    Returns:
        Its exit code, so that no text of an error leaves the machine.
    """
    from notetune.cli import main

    runs.make_files_private()
    os.chdir(folder)
    log = Path(logs) / f"ray-{platform.node()}-{os.getpid()}.log"
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            main(command)
        except SystemExit as end:
            code = int(end.code or 0)
    if code > _BY_SIGNAL:
        raise SystemExit(code)  # Ray starts the task again
    return code


def _ends_of_workers(ray: Any, recipe: "Recipe", command: Sequence[str]) -> set[str]:
    """How workers ended: they run until the first finds nothing more to do."""
    from notetune.study.status import progress

    needs = _needs(recipe, ray.cluster_resources())
    task = ray.remote(
        num_cpus=needs["CPU"],
        num_gpus=needs["GPU"],
        memory=needs["memory"],
        max_retries=_RETRIES,
    )(take_turn)
    arguments = [*command], str(Path.cwd()), str(logs_of(recipe))
    running: list[Any] = []
    ends: set[str] = set()
    line = ""
    while running or not ends:
        found = progress(recipe, is_checked=False)
        room = _room(needs, ray.cluster_resources())
        if not ends:
            more = _workers_for(found, room) - len(running)
            running += [task.remote(*arguments) for _ in range(more)]
        before, line = line, f"{terminal_tables.standing(found)}; room for {room} workers"
        if line != before:
            terminal.say(line)
        ended, running = ray.wait(running, timeout=_SECONDS_BETWEEN_LOOKS)
        ends.update(_end_of(ray, one) for one in ended)
    return ends


def _workers_for(found: "Progress", room: int) -> int:
    """One more than there is room for, so that a cluster that can grow does."""
    return max(1, min(found.places, room + 1))


def _needs(recipe: "Recipe", cluster: Mapping[str, float]) -> dict[str, float]:
    """What a worker takes of a cluster."""
    takes_gpu = recipe.device == "cuda" or (recipe.device == "auto" and cluster.get("GPU", 0) > 0)
    memory = _BASE_GIB + (0.0 if takes_gpu else _largest_step(recipe))
    return {"CPU": 1, "GPU": int(takes_gpu), "memory": int(memory * 2**30)}


def _largest_step(recipe: "Recipe") -> float:
    """GiB of all tensors at the worst moment of a training, by the cost model."""
    from notetune.study.costs import costs_of_a_million

    counted = (costs_of_a_million(one).trainings for one in recipe.studies.values())
    return max((cost.memory_gib for costs in counted for cost in costs), default=0.0)


def _room(needs: Mapping[str, float], cluster: Mapping[str, float]) -> int:
    """How many workers a cluster has room for."""
    return int(min(cluster.get(name, 0) // need for name, need in needs.items() if need))


def _end_of(ray: Any, task: Any) -> str:
    try:
        return f"exit code {ray.get(task)}"
    except ray.exceptions.RayError as error:
        return type(error).__name__  # its text could quote a note


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster until the block ends."""
    _refuse_open_door()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray: Ray is not installed; install notetune[scale].") from None
    _refuse_silence(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except Exception as error:  # noqa: BLE001 (whatever Ray raises)
        raise ConfigError(
            f"--ray {address}: no cluster could be joined ({type(error).__name__}); give HOST:PORT "
            "of a cluster that has the same token, on one of its machines, or `local`."
        ) from None
    try:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own
        yield ray
    finally:
        ray.shutdown()


def _refuse_open_door() -> None:
    """Refuse Ray where it asks for no token, or others can read it."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode != "token":
        raise ConfigError(
            f"--ray: RAY_AUTH_MODE is {mode or 'not set'}, and without a token whoever reaches the "
            "ports of a cluster runs code on it; run `ray get-auth-token --generate`, chmod 600 "
            "the file, and set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on all machines."
        )
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    if path.is_file() and path.stat().st_mode & 0o077:
        raise ConfigError(f"--ray: others can read the token in {path}; chmod 600 it.")


def _refuse_silence(address: str) -> None:
    """Refuse an address where nothing listens; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray {address}: nothing answers there ({type(error).__name__}); give HOST:PORT as "
            "`ray start --head` says it, or `local`."
        ) from None
