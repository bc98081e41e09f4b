"""Commands that run in a worker, with their limits of time and memory, and what each must keep to."""

import json
import os
import re
import select
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from malformed.valid import CANARY

SECONDS, MIB = 20, 2048
"""Most of a command: of the processor, for others may share the machine; and of memory."""
_MOST_PATIENCE = 300
_PROGRESS = re.compile(r" \d+/\d+( ·|$)")
_MOST_CHARS_OF_A_LINE = 1000


@dataclass(frozen=True)
class Done:
    status: int | str
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    peak_mib: int = 0

    @property
    def complaints(self) -> list[str]:
        """The lines on standard error that are no progress."""
        return [line for line in self.err.strip().splitlines() if not _PROGRESS.search(line)]

    def faults(self) -> list[str]:
        """Which promises a command breaks that hold whatever it was given."""
        found = {
            f"exit {self.status}": self.status not in (0, 2),
            f"{self.seconds:.0f} s": self.seconds > SECONDS,
            f"{self.peak_mib} MiB": self.peak_mib > MIB,
            "shows the text of a note": CANARY.lower() in (self.out + self.err).lower(),
        }
        if self.status == 2:
            lines = self.complaints
            errors = [line for line in lines if line.startswith("error: ")]
            found["not one line of an error"] = len(errors) != 1 or errors != lines[-1:]
            found["a very long line"] = len(lines[-1:] or [""][0]) > _MOST_CHARS_OF_A_LINE
            found["lines of another kind"] = any(
                not line.startswith("warning: ") for line in lines[:-1]
            )
            found["moves the cursor"] = any(not line.isprintable() for line in lines)
        return [fault for fault, is_so in found.items() if is_so]


class Worker:
    """Runs commands in one process, which it replaces when that hangs or dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        folder: Path,
        command: str,
        most_file_bytes: int | None = None,
        most_seconds: float = SECONDS,
    ) -> Done:
        process = self._started()
        request = {"folder": str(folder), "arguments": shlex.split(command)}
        before = _processor_seconds(process.pid)
        print(
            json.dumps({**request, "most_file_bytes": most_file_bytes}),
            file=process.stdin,
            flush=True,
        )
        answer = self._answer(before + most_seconds)
        if answer is None:
            time.sleep(0.1)
            ended = process.poll()
            self.end()
            return Done("hangs" if ended is None else f"dies ({ended})")
        seconds = _processor_seconds(process.pid) - before
        return Done(answer["status"], *answer["texts"], seconds, answer["peak_mib"])

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            paths = [str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
            kept = {name: value for name, value in os.environ.items() if name != "NOTETUNE_DATA"}
            settings = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**kept, **settings, "PYTHONUTF8": "1"},
                text=True,
            )
            assert self._answer(_MOST_PATIENCE) == {}, "the worker did not start"
        return self._process

    def _answer(self, most_seconds: float) -> dict | None:
        """What the process answers, unless it has used so much of the processor before."""
        assert self._process is not None
        assert self._process.stdout is not None
        patience = time.monotonic() + _MOST_PATIENCE
        while not select.select([self._process.stdout], [], [], 1)[0]:
            if _processor_seconds(self._process.pid) > most_seconds or time.monotonic() > patience:
                return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
