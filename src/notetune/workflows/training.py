"""What is kept of a training run: learning curve, speed, size and memory."""

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from notetune import runs
from notetune.train.loop import Step

_MOST_POINTS = 200


@dataclass(frozen=True)
class CurvePoint:
    """One step of a learning curve; `loss` is in nats per target."""

    step: int
    loss: float
    learning_rate: float


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
    """

    steps: int
    trainable_parameters: int
    total_parameters: int
    seconds: float
    tokens: int
    peak_memory_mib: float
    curve: tuple[CurvePoint, ...]


class Watch:
    """Collects the record of a run while its steps go by."""

    def __init__(self, trainable_parameters: int, total_parameters: int) -> None:
        self._trainable = trainable_parameters
        self._total = total_parameters
        self._points: list[CurvePoint] = []
        self._seconds = 0.0
        self._tokens = 0
        restart_peak_memory()

    def see(self, step: Step, *, tokens: int) -> None:
        """Take note of a step that read `tokens` tokens."""
        self._points.append(CurvePoint(step.number, step.loss, step.learning_rate))
        self._seconds += step.seconds
        self._tokens += tokens

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
        )


def write_record(path: Path, record: TrainingRecord) -> None:
    """Write a record as JSON."""
    runs.write_json(path, asdict(record))


def read_record(path: Path) -> TrainingRecord:
    """Read what `write_record` wrote."""
    values = runs.read_json(path)
    curve = tuple(CurvePoint(**point) for point in values.pop("curve"))
    return TrainingRecord(**values, curve=curve)


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
