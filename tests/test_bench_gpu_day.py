"""The day on a GPU goes on where it stopped, whatever stops it, and can be rehearsed on a CPU."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DAY, PIECES = ROOT / "bench/gpu_day.sh", ROOT / "bench/gpu_day_pieces.sh"
PARTS = ["tests", "ceiling", "step1", "step2"]
PARTS += ["study-mtsamples", "study-eicu", "study-codiesp", "step1-compiled", "step1-others"]
# Stands in for Python: says what it was asked for, writes a row, fails or hangs where told to.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$FAKE/calls"
[[ -n ${FAILS:-} && "$*" == *$FAILS* ]] && { echo "it broke"; exit 3; }
[[ -n ${HANGS:-} && "$*" == *$HANGS* ]] && exec sleep 60
[[ "$*" == *" convert "* ]] && mkdir "${!#}"
while [[ $# -gt 0 ]]; do [[ $1 == --output ]] && echo row >>"$2"; shift; done
exit 0
"""


class Machine:
    """A folder with a stand-in for Python, and the calls of a day on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.script("python", STAND_IN)
        (folder / "weights").mkdir()
        self.environment = {
            **os.environ,
            "PYTHON": str(folder / "python"),
            "FAKE": str(folder),
            "NOTETUNE_DAY": str(folder / "day"),
            "PIECES": str(folder / "pieces"),
            "SMOLLM2": str(folder / "weights"),
        }

    def script(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o700)

    def day(self, *arguments, **environment):
        command = [str(DAY), *arguments[:-1], str(self.out), *(arguments[-1:] or [[]])[0]]
        given = {**self.environment, **{name: str(value) for name, value in environment.items()}}
        return subprocess.run(command, env=given, capture_output=True, text=True, check=False)

    def calls(self):
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_day_runs_every_part_once_the_most_valuable_first(machine):
    done = machine.day()
    assert done.returncode == 0, done.stderr
    calls = machine.calls()
    assert len(calls) == len(PARTS)
    assert calls[0].startswith("-m pytest")
    assert calls[1].startswith("bench/ceiling.py --device cuda")
    assert all("--shape llama-7b" in call for call in [*calls[2:4], *calls[7:]])
    studies = [f"study run recipes/{name}.yaml" for name in ("mtsamples", "eicu", "codiesp")]
    assert all(study in call for study, call in zip(studies, calls[4:7], strict=True))
    assert (machine.out / "rows.csv").read_text() == "row\n" * 5
    assert len((machine.out / "done.txt").read_text().splitlines()) == len(PARTS)
    again = machine.day()
    assert (again.returncode, machine.calls()) == (0, [])


def test_rows_last_though_the_output_is_emptied_between_calls(machine):
    assert machine.day(["ceiling"]).returncode == 0
    (machine.out / "rows.csv").unlink()
    assert machine.day(["ceiling", "step2"]).returncode == 0
    assert len(machine.calls()) == 2
    assert (machine.out / "rows.csv").read_text() == "row\n" * 2


def test_a_part_that_fails_is_said_and_tried_again_after_all_others_are_done(machine):
    done = machine.day(FAILS="step2.py")
    assert done.returncode == 1
    assert "step2: failed (3)" in done.stdout
    assert "it broke" in done.stderr
    assert len(machine.calls()) == len(PARTS)
    assert machine.day().returncode == 0
    assert len(machine.calls()) == 1


def test_a_study_that_outlasts_its_part_goes_on_at_the_next_call(machine):
    hanging = machine.day(["study-eicu", "ceiling"], HANGS="eicu.yaml", PART_SECONDS=1)
    assert hanging.returncode == 75
    assert "study-eicu: goes on at the next call" in hanging.stdout
    assert "ceiling: done" in hanging.stdout
    assert machine.day(["study-eicu", "ceiling"]).returncode == 0
    assert len(machine.calls()) == 3


def test_a_benchmark_that_outlasts_a_whole_part_failed(machine):
    hanging = machine.day(["step2"], HANGS="step2.py", PART_SECONDS=1)
    assert hanging.returncode == 1
    assert "step2: failed (124)" in hanging.stdout


def test_nothing_is_begun_that_the_rest_of_a_call_cannot_hold(machine):
    assert machine.day(CALL_SECONDS=100).returncode == 75
    begun = " ".join(machine.calls())
    assert "pytest" in begun
    assert "eicu" in begun
    assert "bench/step" not in begun


def test_a_call_that_is_stopped_stops_its_part_and_keeps_what_there_is(machine):
    environment = {**machine.environment, "HANGS": "step2.py"}
    command = [str(DAY), str(machine.out), "ceiling", "step2"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        log = machine.out / "day.log"
        wait_for(lambda: log.exists() and "step2: begins" in log.read_text())
        wait_for(lambda: "step2.py" in (machine.folder / "calls").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert (machine.out / "rows.csv").read_text() == "row\n"
    machine.calls()
    assert machine.day(["ceiling", "step2"]).returncode == 0
    assert len(machine.calls()) == 1


def wait_for(is_there, seconds=60):
    end = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_on_a_new_machine_the_studies_go_on_from_what_came_back(machine):
    trained = machine.folder / "day/runs/eicu/backbones/smollm2/domain/adapter_model.safetensors"
    features = trained.parents[1] / "features/last.npy"
    for path in (trained, features):
        path.parent.mkdir(parents=True)
        path.write_text("numbers")
    assert machine.day(["ceiling"]).returncode == 0
    machine.out.rename(machine.folder / "pieces")
    (machine.folder / "day").rename(machine.folder / "old")
    assert machine.day(["ceiling"]).returncode == 0
    assert trained.read_text() == "numbers"
    assert not features.exists()


def test_a_part_whose_command_has_changed_is_run_again(machine):
    assert machine.day(["study-mtsamples"]).returncode == 0
    assert machine.day(["study-mtsamples"], SMOLLM2=machine.folder).returncode == 0
    assert len(machine.calls()) == 2


def test_an_unknown_part_is_refused_before_anything_runs(machine):
    done = machine.day(["ceiling", "step3"])
    assert done.returncode == 2
    assert "unknown part step3; there are: tests ceiling" in done.stderr
    assert machine.calls() == []


@pytest.fixture
def pieces(machine):
    """Pieces of 1 MiB, of wheels that a stand-in for pip wrote and of 2.5 MB of weights."""
    names = ("pydantic-1-py3.whl", "polars-1-py3.whl")
    writes = "".join(f'echo "{name}" >"$to/{name}"\n' for name in names)
    find = "while [[ $1 != -d ]]; do shift; done; to=$2\n"
    machine.script("pip", f"#!/usr/bin/env bash\n{find}{writes}")
    weights = machine.folder / "model.gguf"
    weights.write_bytes(os.urandom(2_500_000))
    for name in ("mtsamples", "eicu_demo", "codiesp"):
        (machine.folder / "data" / name).mkdir(parents=True)
        (machine.folder / "data" / name / "notes.csv").write_text(name)
    out = machine.folder / "cut"
    command = [PIECES, machine.folder / "pip", weights, machine.folder / "data", out]
    environment = {**os.environ, "PIECE_MIB": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return sorted(out.iterdir())


def test_the_weights_travel_in_pieces_and_are_converted_when_all_are_there(machine, pieces):
    assert [piece.name for piece in pieces] == [f"piece-{n}-of-4" for n in (1, 2, 3, 4)]
    assert all(piece.stat().st_size <= 2**20 for piece in pieces)
    with tarfile.open(pieces[0]) as first:
        assert "./data/eicu_demo/notes.csv" in first.getnames()
        assert "./wheels/pydantic-1-py3.whl" in first.getnames()
    arrived = machine.folder / "pieces"
    arrived.mkdir()
    given = {"SMOLLM2": machine.folder / "converted"}
    for number, piece in enumerate(pieces):
        piece.rename(arrived / piece.name)
        done = machine.day(["ceiling", "study-eicu"], **given)
        assert done.returncode == (0 if number == 3 else 75), done.stderr
        (arrived / piece.name).unlink()  # the next call carries another piece
    calls = machine.calls()
    kinds = ["pip install", "ceiling.py", "pip install", "notetune convert", "study run"]
    assert len(calls) == len(kinds)
    assert all(kind in call for kind, call in zip(kinds, calls, strict=True))
    joined = (machine.folder / "day/smollm2.gguf").read_bytes()
    expected = (machine.folder / "model.gguf").read_bytes()
    assert hashlib.sha256(joined).digest() == hashlib.sha256(expected).digest()


def test_pieces_that_do_not_join_are_refused(machine, pieces):
    pieces[2].write_bytes(b"x" * pieces[2].stat().st_size)
    done = machine.day(["ceiling"], PIECES=pieces[0].parent)
    assert done.returncode == 1
    assert "the pieces do not join" in done.stdout


@pytest.fixture
def rehearsal(machine):
    machine.environment |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return machine


def test_step_2_rehearsed_on_a_cpu_writes_its_rows(rehearsal):
    done = rehearsal.day("--rehearse", ["step2"])
    assert done.returncode == 0, done.stderr
    assert len(rows_of(rehearsal.out)) == 6


def rows_of(out):
    with (out / "rows.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_whole_day_rehearsed_on_a_cpu_goes_on_after_a_stop_amid_a_study(rehearsal):
    environment = {**rehearsal.environment, "CALL_SECONDS": "3000"}
    command = [str(DAY), "--rehearse", str(rehearsal.out), "study-rehearsal"]
    domain = rehearsal.folder / "day/runs/rehearsal/backbones/smollm2/domain"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: list(domain.glob(".seed-0.*.work/steps.jsonl")), 300)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert (rehearsal.out / "done.txt").read_text() == ""
    done = rehearsal.day("--rehearse", [], CALL_SECONDS=3000)
    assert done.returncode == 0, done.stderr
    asked = {row["question"].split(",")[0] for row in rows_of(rehearsal.out)}
    assert asked == {"matrix product", "step 1", "step 2"}
    assert len((rehearsal.out / "done.txt").read_text().splitlines()) == len(PARTS) - 2
    assert (rehearsal.out / "studies.tar.00").stat().st_size > 1000
    assert rehearsal.day("--rehearse", []).stdout.count("done before") == len(PARTS) - 2
