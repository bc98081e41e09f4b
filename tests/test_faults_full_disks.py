"""Full disks, limits of file size, read-only and forbidden places: one line, nothing is lost."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors
from small_study import files_below, notetune, small_study

from notetune import claims, runs, storage
from notetune.cli import terminal
from notetune.errors import DataError, WriteError

KIB = 1024
MANY = np.random.default_rng(0).random(50_000)  # 391 KiB


@contextmanager
def largest_file(size):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.fixture
def disk(tmp_path):
    """A file system of 256 KiB, and a function that mounts it anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=256k", *options)), "none", folder]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = mount()
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder, mount
    subprocess.run(["umount", folder], check=True)


WRITERS = {
    "Python": lambda path: path.write_bytes(MANY.tobytes()),
    "numpy": lambda path: storage.write_array(path, MANY),
    "numpy, packed": lambda path: np.savez(path.with_suffix(".npz"), many=MANY),
    "polars": lambda path: pl.DataFrame({"many": MANY}).write_parquet(path),
    "polars, CSV": lambda path: pl.DataFrame({"many": MANY}).write_csv(path),
    "safetensors": lambda path: save_tensors({"many": torch.from_numpy(MANY)}, path),
    "safetensors, numpy": lambda path: save_arrays({"many": MANY}, path),
    "copy": lambda path: shutil.copyfile(Path("tree", "much"), path),
    "tree": lambda path: shutil.copytree("tree", path),
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder to copy, in the current one."""
    monkeypatch.chdir(tmp_path)
    Path("tree").mkdir()
    Path("tree", "much").write_bytes(MANY.tobytes())


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.usefixtures("tree")
def test_a_limit_of_file_size_is_told_alike_whichever_library_writes(tmp_path, write):
    made = tmp_path / "made"
    with (
        largest_file(100 * KIB),
        pytest.raises(WriteError) as told,
        runs.new_folder(made, "inputs") as folder,
    ):
        write(folder / "file")
    assert f"{made} cannot be written (File too large" in str(told.value)
    assert "`ulimit -f` lets a file have 100.0 KiB); raise that limit, then" in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.usefixtures("tree")
def test_no_library_loses_the_last_byte_without_an_error(tmp_path, write):
    whole, short = tmp_path / "whole", tmp_path / "short"
    write(whole)
    (size,) = {path.stat().st_size for path in files_below(tmp_path) if "whole" in str(path)}
    with largest_file(size - 1), pytest.raises(WriteError), storage.written(short):
        write(short)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.usefixtures("tree")
def test_a_full_disk_is_told_alike_whichever_library_writes(disk, write):
    made = disk[0] / "made"
    with pytest.raises(WriteError) as told, runs.new_folder(made, "inputs") as folder:
        write(folder / "file")
    assert f"{made} cannot be written (No space left on device" in str(told.value)
    assert "256.0 KiB are free); make room, then" in str(told.value)
    assert list(disk[0].iterdir()) == []


def test_what_a_text_takes_and_the_room_there_is_are_told(disk):
    with pytest.raises(WriteError, match=r"a\.txt .*it takes 1\.0 MiB; 0\.0 KiB are free"):
        storage.write_text(disk[0] / "a.txt", "x" * 2**20)
    assert list(disk[0].iterdir()) == []


def test_a_disk_without_room_for_another_file_says_so(disk):
    assert not disk[1]("remount", "nr_inodes=3").returncode
    for number in range(2):
        storage.write_text(disk[0] / f"{number}.txt", "x")
    with pytest.raises(WriteError, match="not one more file fits"):
        storage.write_text(disk[0] / "2.txt", "x")


def test_a_read_only_disk_is_named_before_any_work(disk, tmp_path):
    (tmp_path / "notes.csv").write_text("text\nwell\n")
    (tmp_path / "model.gguf").write_text("no model")
    assert not disk[1]("remount", "ro").returncode
    new = disk[0] / "new"
    commands = (
        ["predict", "no-bundle", tmp_path / "notes.csv", "-o", f"{new}.csv"],
        ["merge", "no-bundle", new],
        ["convert", tmp_path / "model.gguf", new],
        ["synthesize", new],
        ["recipes", "eicu", "-o", new],
        ["demo", "--folder", new / "demo"],
    )
    for command in commands:
        done = notetune(*command)
        assert (done.returncode, len(done.complaints)) == (2, 1)
        assert f"error: {new}" in done.stderr
        assert "cannot be written (Read-only file system); allow it, or name" in done.stderr
    with pytest.raises(WriteError, match="Read-only"), claims.claimed(disk[0] / "made"):
        pass


def test_a_forbidden_folder_is_named_before_any_work(tmp_path):
    if os.getuid():
        pytest.skip("only root may become a user who is not allowed to write")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from notetune import storage\n"
        "os.seteuid(65534)\n"
        "storage.refuse_unwritable(Path('/proc/new'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "WriteError: /proc/new cannot be written (Permission denied)" in done.stderr


def test_what_is_no_fault_of_writing_stays_as_it_is(tmp_path):
    unreadable = PermissionError(errno.EACCES, "no", str(tmp_path / "notes.csv"))
    for error in (ValueError("os error 28"), FileNotFoundError(errno.ENOENT, "no"), unreadable):
        with pytest.raises(type(error)), runs.new_folder(tmp_path / "made", "inputs"):
            raise error
    assert list(tmp_path.iterdir()) == []
    ours = PermissionError(errno.EACCES, "no", str(tmp_path / ".made.12345678.notetune.part" / "a"))
    with (
        pytest.raises(WriteError, match="made cannot be written"),
        storage.written(tmp_path / "made"),
    ):
        raise ours


def test_other_limits_of_the_machine_are_one_line_and_hold_no_text_of_others():
    faults = {
        OSError(errno.EMFILE, "zyxcanary", "/a/b.csv"): "/a/b.csv cannot be opened (Too many open",
        PermissionError(errno.EACCES, "zyxcanary"): "a file cannot be opened (Permission denied)",
        OSError(errno.ENOSPC, "zyxcanary"): "standard output or a file cannot be written (No space",
        FileNotFoundError(errno.ENOENT, "No usable temporary directory"): "name one in TMPDIR",
        OSError("zyxcanary"): "a file cannot be opened; mend the path",
        pl.exceptions.ComputeError("zyxcanary (os error 28)"): "cannot be written (No space",
    }
    for error, told in faults.items():
        assert told in str(storage.fault_of(error))
        assert "zyxcanary" not in str(storage.fault_of(error))
    for other in (KeyError("zyxcanary"), DataError("os error 28")):
        assert storage.fault_of(other) is None
    assert "a file cannot be opened" in storage.fault_of(OSError(errno.EBADF, "zyxcanary", 7))


def test_what_could_not_be_read_on_the_way_to_a_file_is_told_by_its_own_name(tmp_path):
    broken = OSError(errno.EIO, "no", str(tmp_path / "notes.csv"))
    with (
        pytest.raises(WriteError, match=r"notes\.csv cannot be read or written"),
        storage.written(tmp_path / "made"),
    ):
        raise broken
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file is not a folder"):
        storage.refuse_unwritable(tmp_path / "file" / "scores.csv")


def test_a_full_output_is_one_line_and_a_closed_one_none():
    command = [sys.executable, "-m", "notetune", "keys", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output or a file cannot be written (No space")
    assert len(done.stderr.splitlines()) == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_progress_that_cannot_be_shown_stops_nothing(monkeypatch):
    with Path("/dev/full").open("w", buffering=1) as full, monkeypatch.context() as patched:
        patched.setattr(terminal, "err", Console(file=full))
        terminal.say("a step")
        terminal.fail("an error")
        with pytest.raises(OSError, match="No space"):
            full.write("a line\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


SIZES = [0, 6 * KIB, 14 * KIB, 100 * KIB]


def test_a_study_that_could_not_write_goes_on_with_more_room_to_the_same_scores(tmp_path):
    small_study(tmp_path)
    task = "{name: died, kind: binary, column: died}"
    recipe = [
        *("study", "run", tmp_path / "recipe.yaml", "seeds=1", f"prepare.source.tasks=[{task}]"),
        *("downstream.variants=[domain-trainable+task-lora]", "pretrain.adapter.rank=32"),
    ]
    assert notetune(*recipe, "name=whole").returncode == 0
    folder, named = tmp_path / "runs" / "small", set()
    for size in SIZES:
        with largest_file(size):
            done = notetune(*recipe)
        assert done.returncode == 2
        (complaint,) = done.complaints[-1:]
        assert "File too large" in complaint
        assert "then run the same command again; what was finished is kept." in complaint
        named.add(complaint.split(" cannot be written")[0])
        left = [path.name for path in folder.rglob("*") if path.suffix in (".part", ".lease")]
        assert left == []
    assert len(named) >= 4, named
    events = (folder / "jobs.jsonl").read_text().splitlines()
    failed = [line for line in events if json.loads(line).get("event") == "failed"]
    assert 1 <= len(failed) <= len(SIZES)
    assert notetune(*recipe).returncode == 0
    whole = [
        path for path in files_below(tmp_path / "runs" / "whole") if path.name == "test.parquet"
    ]
    assert len(whole) >= 4
    for path in whole:
        other = folder / path.relative_to(tmp_path / "runs" / "whole")
        assert other.read_bytes() == path.read_bytes()
