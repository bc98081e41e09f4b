"""A process that runs one command after another, each in its folder, and says what came of it.

It may map 4 GiB, libraries included, so that a runaway command ends without harm.
"""

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

_MOST_BYTES = 4 << 30
_LIBRARIES = ("torch", "transformers", "peft", "polars", "sklearn", "scipy", "notetune.study.run")


def main():
    """Answer requests, a line of JSON each, until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one handles it
    answers = os.fdopen(os.dup(1), "w")
    for library in _LIBRARIES:
        importlib.import_module(library)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_done(**json.loads(line))), file=answers, flush=True)


def _done(folder, arguments, most_file_bytes):
    os.chdir(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _written_to(out, err), _files_up_to(most_file_bytes):
            status = _status(arguments)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="backslashreplace"))
    status_lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status_lines if line.startswith("VmHWM"))
    return {"status": status, "texts": texts, "peak_mib": int(peak.split()[1]) >> 10}


def _status(arguments):
    from notetune.cli import main as notetune

    try:
        notetune(arguments)
    except SystemExit as end:
        return end.code or 0
    except BaseException:  # noqa: BLE001 (a panic is no Exception)
        traceback.print_exc()
    return 1


@contextmanager
def _written_to(out, err):
    """What is written to both standard streams goes to files, whoever writes it."""
    before = os.dup(1), os.dup(2)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout = sys.__stdout__  # which a command gives up that cannot write
        sys.stdout.flush()
        sys.stderr.flush()
        for number, handle in enumerate(before, start=1):
            os.dup2(handle, number)
            os.close(handle)


@contextmanager
def _files_up_to(most_bytes):
    if most_bytes is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


if __name__ == "__main__":
    main()
