"""Disks that are full or read-only, folders that are forbidden, and outputs that nobody reads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "prepared notes": "prepare recipe.yaml --json runs={}/runs",
    "scores": "predict words notes.csv -o {}/scores.csv",
    "scores in Parquet": "predict words notes.csv -o {}/scores.parquet",
    "a recipe": "init notes.csv -o {}/new.yaml",
}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def refused(worker, place, command, folder, said):
    before = sorted(folder.rglob("*"))
    done = worker.run(place, command.format(folder))
    assert done.faults() == []
    assert done.status == 2
    assert said in done.complaints[-1]
    assert "then run the same command again" in done.err
    assert [p for p in sorted(folder.rglob("*.csv")) + sorted(folder.rglob("*.yaml")) if p not in before] == []  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_file(worker, place, small_disk, what):
    with pytest.raises(OSError, match="No space"):
        (small_disk / "full").write_bytes(bytes(1 << 17))
    refused(worker, place, COMMANDS[what], small_disk, "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize("room", [8, 16, 24, 32, 40, 48])
def test_a_disk_that_fills_on_the_way_is_one_line(worker, place, small_disk, room):
    (small_disk / "other").write_bytes(bytes((64 - room) << 10))
    done = worker.run(place, f"prepare recipe.yaml --json runs={small_disk}/runs")
    assert done.faults() == []
    assert done.status == 2
    assert "make room" in done.complaints[-1]


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_a_read_only_disk_is_one_line(worker, place, small_disk, what):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused(worker, place, COMMANDS[what], small_disk, "Read-only file system")


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_a_forbidden_folder_is_one_line(worker, place, tmp_path, what):
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0o500)
    refused(worker, place, COMMANDS[what], folder, "Permission denied")


@pytest.mark.slow
@pytest.mark.parametrize("is_closed", [False, True], ids=["full", "closed"])
def test_a_full_output_is_one_line_and_a_closed_one_none(place, is_closed):
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb") if not is_closed else os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "notetune", "keys"],
            cwd=place,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    if is_closed:  # as with `| head`: its reader has what it wanted
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
        return
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line
