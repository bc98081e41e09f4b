"""One training of a workflow: its steps, and what is kept of them."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal

import torch
from torch import Tensor, nn

from notetune import runs
from notetune.errors import Stopped, TrainingError
from notetune.metrics.learning import CurvePoint, Evaluation
from notetune.progress import Track
from notetune.tokens.store import TokenStore
from notetune.train.checkpoints import Checkpoints, Position
from notetune.train.early_stopping import Choice
from notetune.train.loop import BatchT, Step, StepError, train
from notetune.train.parallel import World, this_world
from notetune.train.path import PathPoint
from notetune.train.schedule import OptimConfig

_MOST_POINTS = 200


@dataclass(frozen=True)
class Kept:
    """Which state of a training was kept.

    Attributes:
        steps: Updates that made it.
        why: What made it the one.
        evaluations: All evaluations on the validation notes; empty where none could choose.
    """

    steps: int
    why: str
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class HeadRecord:
    """Facts about a head that was solved.

    Attributes:
        penalty: L2 penalty per training note.
        why: What made it the one.
        path: The penalties that were tried on the validation notes.
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
        steps: Optimizer updates.
        trainable_parameters: Parameters that trained, the head included.
        total_parameters: All parameters of the model.
        seconds: Wall time of the updates.
        tokens: Tokens that the updates computed, without padding; 0 for a head on saved features.
        peak_memory_mib: Largest memory of the process, or of the GPU where one was used.
        curve: At most 200 steps, evenly spread.
        kept: Which state was kept; None where it is always the last.
        head: The head that was solved, or that adapters started from; None in step 1.
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

    @property
    def kept_steps(self) -> int:
        """Updates that made the state that was kept."""
        return self.kept.steps if self.kept else self.steps

    @property
    def all_seconds(self) -> float:
        """Wall time of the updates, and of solving the head."""
        return self.seconds + (self.head.seconds if self.head else 0.0)


class Watch:
    """Collects the record of a run while its steps go by."""

    def __init__(self, trainable_parameters: int, total_parameters: int) -> None:
        self._trainable = trainable_parameters
        self._total = total_parameters
        self._points: list[CurvePoint] = []
        self._seconds = 0.0
        self._tokens = 0
        restart_peak_memory()

    def see(self, step: Step, tokens_per_target: float) -> None:
        """Take note of a step."""
        point = CurvePoint(step=step.number, loss=step.loss, learning_rate=step.learning_rate)
        self._points.append(point)
        self._seconds += step.seconds
        self._tokens += round(step.targets * tokens_per_target)

    def record(self) -> TrainingRecord:
        """The record up to now."""
        stride = max(1, len(self._points) // _MOST_POINTS)
        return TrainingRecord(
            steps=len(self._points),
            trainable_parameters=self._trainable,
            total_parameters=self._total,
            seconds=self._seconds,
            tokens=self._tokens,
            peak_memory_mib=peak_memory_mib(),
            curve=tuple(self._points[::stride]),
            processes=this_world().size,
        )


@dataclass(frozen=True)
class Training(Generic[BatchT]):
    """One training, as `fit` runs it.

    Attributes:
        label: How progress names it.
        inputs: What it depends on; a checkpoint of other inputs is not used.
        store: Where its documents are.
        parameters: All that trains, by name.
        optimizer: Over these parameters.
        optim: Schedule and clipping.
        rows: The rows of each step, from a step on.
        summed_loss: Loss of a row, summed over its targets.
        step_count: Steps of the whole training.
        seed: Decides dropout.
        unit: What a target is, for progress.
        tokens_per_target: Tokens that a target takes, for the record.
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
    choice: Choice | None = None
    is_sharded: bool = False

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: all that trains, and its best state."""
        best = self.choice.best if self.choice else {}
        return {**self.parameters, **{f"best/{name}": tensor for name, tensor in best.items()}}

    @property
    def is_over(self) -> bool:
        """Whether it stops before its last step."""
        return self.choice is not None and self.choice.is_over

    def steps(self, position: Position, world: World) -> Iterator[Step]:
        """Its steps from a position on."""
        return train(
            self.rows(position.next_step),
            self.summed_loss,
            self.optimizer,
            lambda number: self.optim.schedule(number, self.step_count),
            step_count=self.step_count,
            max_grad_norm=self.optim.max_grad_norm,
            seed=self.seed,
            first_step=position.next_step,
            halvings=position.halvings,
            world=world,
        )

    def position_after(self, step: Step) -> Position:
        """Where it is after a step and what follows on it."""
        evaluations = self.choice.evaluations if self.choice else ()
        return Position(step.number + 1, step.halvings, evaluations)

    def describe(self, step: Step) -> str:
        """A few figures of one step, and of the evaluation before it."""
        speed = step.targets / step.seconds
        figures = f"loss {step.loss:.3f} · {speed:,.0f} {self.unit}/s"
        if self.choice and self.choice.evaluations:
            last = self.choice.evaluations[-1]
            auroc = "n/a" if last.auroc is None else f"{last.auroc:.3f}"
            figures += f" · validation loss {last.loss:.3f}, AUROC {auroc}"
        return figures


def fit(
    training: Training[BatchT], work: Path, checkpoint_minutes: float, watch: Watch, track: Track
) -> None:
    """Train, going on from the last checkpoint in `work` if there is one, to the best state.

    The last step is saved too, so that what follows can be stopped without any loss.

    Args:
        training: What to do.
        work: Folder of its checkpoints.
        checkpoint_minutes: Minutes of training between two checkpoints.
        watch: Sees every step, also those of the processes before this one.
        track: Shows progress.

    Raises:
        TrainingError: If a step fails; it names the notes.
        RunError: If no checkpoint is whole, or one cannot be written.
        Stopped: After Ctrl-C or SIGTERM, with a checkpoint of the last step.
    """
    world = this_world(is_sharded=training.is_sharded)
    checkpoints = Checkpoints(work, training.inputs, training.tensors, training.optimizer, world)
    position = checkpoints.restore()
    if training.choice:
        training.choice.evaluations = position.evaluations
        if not position.next_step:
            training.choice.see(0)
    for step in checkpoints.steps():
        watch.see(step, training.tokens_per_target)
    if position.next_step < training.step_count and not training.is_over:
        _go_on(training, checkpoints, position, checkpoint_minutes, watch, track, world)
    if training.choice:
        training.choice.restore_best()


def _go_on(
    training: Training[BatchT],
    checkpoints: Checkpoints,
    position: Position,
    checkpoint_minutes: float,
    watch: Watch,
    track: Track,
    world: World,
) -> None:
    steps = training.steps(position, world)
    saved = time.monotonic()
    with _notes_named(training.store), _stop_requests() as asked_to_stop:
        for step in track(
            training.label, steps, training.step_count, training.describe, position.next_step
        ):
            watch.see(step, training.tokens_per_target)
            checkpoints.log(step)
            if training.choice:
                training.choice.see(step.number + 1)
            is_last = training.is_over or step.number + 1 == training.step_count
            is_time = is_last or time.monotonic() - saved >= 60 * checkpoint_minutes
            stops, saves = world.sums(bool(asked_to_stop()), is_time)
            if stops or saves:
                checkpoints.save(training.position_after(step))
                saved = time.monotonic()
            if stops:
                raise Stopped(
                    asked_to_stop() or signal.SIGTERM,  # another process may have been asked
                    f"{training.label}: stopped after step {step.number}, which is saved.",
                )
            if is_last:
                break


@contextmanager
def _notes_named(store: TokenStore) -> Iterator[None]:
    """Let the error of a step name its notes, by their ids."""
    try:
        yield
    except StepError as error:
        notes = dict.fromkeys(store.note_ids[store.note_number_D[error.documents_D]].tolist())
        raise TrainingError(f"{error} Notes: {', '.join(notes)}.") from None


@contextmanager
def _stop_requests() -> Iterator[Callable[[], int]]:
    """Which signal has come, SIGINT or SIGTERM; 0 for none.

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
        yield lambda: 0  # only the main thread may handle signals
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_record(path: Path, record: TrainingRecord) -> None:
    """Write a record as JSON."""
    runs.write_json(path, asdict(record))


def read_record(path: Path) -> TrainingRecord:
    """Read what `write_record` wrote."""
    values = runs.read_json(path)
    curve = tuple(CurvePoint(**point) for point in values.pop("curve"))
    kept, head = values.pop("kept"), values.pop("head")
    if kept is not None:
        evaluations = tuple(Evaluation(**one) for one in kept.pop("evaluations"))
        kept = Kept(**kept, evaluations=evaluations)
    if head is not None:
        head = HeadRecord(**{**head, "path": tuple(PathPoint(**one) for one in head["path"])})
    return TrainingRecord(**values, curve=curve, kept=kept, head=head)


def restart_peak_memory() -> None:
    """Forget the memory peak so far, where the system allows it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clear = Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")
    except OSError:
        return  # not Linux, or not permitted: the peak is that of the whole process


def peak_memory_mib() -> float:
    """Largest memory since `restart_peak_memory`: of the GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 2**10
    import resource  # not on Windows, where memory is not reported

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
