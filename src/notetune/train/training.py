"""One training of a workflow: its steps, and what is kept of them."""

import math
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from notetune import storage
from notetune.errors import StepError, Stopped
from notetune.metrics.learning import CurvePoint, Evaluation
from notetune.progress import Track
from notetune.tokens.store import TokenStore
from notetune.train.checkpoints import Checkpoints, Position
from notetune.train.early_stopping import Choice
from notetune.train.loop import Step, train
from notetune.train.parallel import BatchT, World, this_world
from notetune.train.path import PathPoint
from notetune.train.schedule import OptimConfig

_MOST_POINTS = 200


@dataclass(frozen=True)
class Kept:
    """Which state of a training was kept: after how many updates, and why.

    `evaluations` are all on the validation notes; there are none where they could not choose.
    """

    steps: int
    why: str
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class HeadRecord:
    """Facts about a head that was solved.

    Attributes:
        penalty: L2 penalty per training note; `path` are those that were tried, `why` it is this.
        constant: Classes with one value among the training notes, which get their prior.
        seconds: Wall time.
    """

    penalty: float
    why: str
    path: tuple[PathPoint, ...]
    constant: int
    seconds: float


@dataclass(frozen=True)
class TrainingRecord:
    """Facts about a finished training run.

    Attributes:
        steps: Optimizer updates; `seconds` is their wall time.
        trainable_parameters: Parameters that trained, the head included.
        total_parameters: All parameters of the model.
        tokens: Tokens that the updates computed, without padding; 0 for a head that was solved.
        peak_memory_mib: Largest memory of the process, or of the GPU where one was used.
        curve: At most 200 steps, evenly spread.
        kept: Which state was kept; None where it is always the last.
        head: The head that was solved, or that adapters started from; None in step 1.
        recomputed: Whether activations were computed again in the backward pass.
        processes: How many trained together at last; None where that was not recorded.
    """

    steps: int
    trainable_parameters: int
    total_parameters: int
    seconds: float
    tokens: int
    peak_memory_mib: float
    curve: tuple[CurvePoint, ...]
    kept: Kept | None = None
    head: HeadRecord | None = None
    processes: int | None = None
    recomputed: bool = False

    @property
    def kept_steps(self) -> int:
        """Updates that made the state that was kept."""
        return self.kept.steps if self.kept else self.steps

    @property
    def all_seconds(self) -> float:
        """Wall time of the updates, and of solving the head."""
        return self.seconds + (self.head.seconds if self.head else 0.0)


@dataclass(frozen=True)
class Training(Generic[BatchT]):
    """One training, as `fit` runs it.

    Attributes:
        label: How progress names it, and `unit` what a target is.
        inputs: What it depends on; a checkpoint of other inputs is not used.
        store: Where its documents are.
        parameters: All that trains, by name; `optimizer` is over it, as `optim` says.
        rows: The rows of each step, from a step on; `summed_loss` sums over the targets of one.
        step_count: Steps of the whole training.
        seed: Decides dropout.
        tokens_per_target: Tokens that a target takes, for the record.
        total_parameters: Of the whole model, for the record.
        choice: What keeps its best state; without it, the last state is the result.
        is_sharded: Whether the layers of its model are spread over the processes.
    """

    label: str
    inputs: Any
    store: TokenStore
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    optim: OptimConfig
    rows: Callable[[int], Iterable[Sequence[BatchT]]]
    summed_loss: Callable[[BatchT], Tensor]
    step_count: int
    seed: int
    unit: Literal["tokens", "notes"]
    tokens_per_target: float
    total_parameters: int
    choice: Choice | None = None
    is_sharded: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it stops before its last step."""
        return self.choice is not None and self.choice.is_over

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """What was found on the validation notes so far."""
        return self.choice.evaluations if self.choice else ()

    def describe(self, step: Step) -> str:
        """A few figures of one step, and of the evaluation before it."""
        speed = step.targets / step.seconds
        figures = f"loss {step.loss:.3f} · {speed:,.0f} {self.unit}/s"
        if self.evaluations:
            last = self.evaluations[-1]
            auroc = "n/a" if last.auroc is None else f"{last.auroc:.3f}"
            figures += f" · validation loss {last.loss:.3f}, AUROC {auroc}"
        return figures


def fit(
    training: Training[BatchT], work: Path, checkpoint_minutes: float, track: Track
) -> TrainingRecord:
    """Train, going on from the last checkpoint in `work` if there is one, to the best state.

    The last step is saved too, so that what follows can be stopped without any loss.

    Returns:
        The facts of all steps, also of those of the processes before this one; only the first of
        several processes that train together has them.

    Raises:
        TrainingError: If a step fails; it names the notes.
        RunError: If no checkpoint is whole, or one cannot be written.
        Stopped: After Ctrl-C or SIGTERM, with a checkpoint of the last step.
    """
    restart_peak_memory()
    world, count = this_world(is_sharded=training.is_sharded), training.step_count
    checkpoints, position = _restored(training, work, world)
    if position.next_step < count and not training.is_over:
        steps, saved = _steps(training, position, world), time.monotonic()
        with _notes_named(training.store), _stop_requests() as asked:
            shown = (training.label, steps, count, training.describe, position.next_step)
            for step in track(*shown):
                checkpoints.log(step)
                if training.choice:
                    training.choice.see(step.number + 1)
                is_last = training.is_over or step.number + 1 == count
                is_time = is_last or time.monotonic() - saved >= 60 * checkpoint_minutes
                stops, saves = world.sums(bool(asked), is_time)
                if stops or saves:
                    done = Position(step.number + 1, step.halvings, training.evaluations)
                    checkpoints.save(done)
                    saved = time.monotonic()
                if stops or is_last:
                    break
        if any(world.sums(bool(asked))):  # again: one may come while the last step is saved
            raise Stopped(
                asked[0] if asked else signal.SIGTERM,  # another process may have been asked
                f"{training.label}: stopped after step {step.number}, which is saved.",
            )
    if training.choice:
        training.choice.restore_best()
    return _record(training, checkpoints.steps(), world)


def _restored(training: Training[BatchT], work: Path, world: World) -> tuple[Checkpoints, Position]:
    """Put a training where its last checkpoint is, or at its start."""
    choice = training.choice
    best = {f"best/{name}": tensor for name, tensor in choice.best.items()} if choice else {}
    tensors = {**training.parameters, **best}
    checkpoints = Checkpoints(work, training.inputs, tensors, training.optimizer, world)
    position = checkpoints.restore()
    if choice:
        choice.evaluations = position.evaluations
        if not position.next_step:
            choice.see(0)
    return checkpoints, position


def _steps(training: Training[BatchT], position: Position, world: World) -> Iterator[Step]:
    """The steps that are left."""
    count, first = training.step_count, position.next_step
    return train(
        training.rows(first),
        training.summed_loss,
        training.optimizer,
        lambda number: training.optim.schedule(number, count),
        step_count=count,
        max_grad_norm=training.optim.max_grad_norm,
        seed=training.seed,
        first_step=first,
        halvings=position.halvings,
        world=world,
    )


def _record(training: Training[BatchT], steps: Sequence[Step], world: World) -> TrainingRecord:
    points = [
        CurvePoint(step=step.number, loss=step.loss, learning_rate=step.learning_rate)
        for step in steps
    ]
    return TrainingRecord(
        steps=len(steps),
        trainable_parameters=sum(p.numel() for p in training.parameters.values()),
        total_parameters=training.total_parameters,
        seconds=sum(step.seconds for step in steps),
        tokens=sum(round(step.targets * training.tokens_per_target) for step in steps),
        peak_memory_mib=peak_memory_mib(),
        curve=tuple(points[:: max(1, math.ceil(len(points) / _MOST_POINTS))]),
        processes=world.size,
    )


@contextmanager
def _notes_named(store: TokenStore) -> Iterator[None]:
    """Let the error of a step name its notes, by their ids."""
    try:
        yield
    except StepError as error:
        notes = dict.fromkeys(store.note_ids[store.note_number_D[error.documents]].tolist())
        said = ", ".join(notes) or "another process names them"
        raise error.as_told(f"{error} Notes: {said}.") from None


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """The signals that have come, SIGINT or SIGTERM; still to be heeded after the block.

    Inside the block the first one does not end the process; Ctrl-C after it does, at once.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        if number == signal.SIGINT:  # unbuffered, as a handler may interrupt another write
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may handle signals
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_record(path: Path) -> TrainingRecord:
    """The record that is in a JSON file."""
    return TypeAdapter(TrainingRecord).validate_python(storage.read_json(path))


def restart_peak_memory() -> None:
    """Forget the memory peak so far, where the system allows it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not Linux, or not permitted: the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """Largest memory since `restart_peak_memory`: of the GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
