"""What every benchmark writes: one CSV row per measurement."""

import csv
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from notetune import manifest

_COLUMNS = ("question", "variant", "x", "p20", "p50", "p80", "unit", "repeats")


class Rows:
    """Measurements, one CSV row each."""

    def __init__(self, path: Path, device: str = "") -> None:
        self._path = path
        self._about = about_this_run(device)

    def add(
        self, question: str, variant: str, x: object, values: Sequence[float], unit: str
    ) -> None:
        """Append the percentiles of repeated measurements, and show them."""
        p20, p50, p80 = (f"{value:.4g}" for value in np.percentile(values, [20, 50, 80]))
        row = (question, variant, str(x), p20, p50, p80, unit, str(len(values)))
        print(" | ".join(row), flush=True)
        record = {**dict(zip(_COLUMNS, row, strict=True)), **self._about}
        is_new = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(record), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(record)


def about_this_run(device: str = "") -> dict[str, str]:
    """Where, with what and when something was measured."""
    return {
        "device": device or f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": "; ".join(f"{name} {v}" for name, v in manifest.provenance().items()),
        "git revision": _git_revision(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the work returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    root = Path(__file__).parent
    return subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()
