"""Shards of notes: whole or not at all, whoever is killed, and gone on with."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from small_notes import (
    NOTES,
    PER_SHARD,
    bytes_below,
    hidden_in,
    recipe_in,
    small_notes,
)

from notetune import manifest, sources, storage
from notetune.errors import RunError, Stopped
from notetune.model.backbone_folder import resolve_backbone
from notetune.prepare import shards as prepare_shards
from notetune.prepare.build import inputs, prepare
from notetune.prepare.prepared import open_prepared
from notetune.recipe.recipe import Recipe
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.store import encode_notes


@pytest.fixture
def place(tmp_path, monkeypatch):
    return small_notes(tmp_path, monkeypatch)


def test_streamed_shards_make_the_store_of_all_notes_at_once(place):
    recipe = recipe_in(place)
    prepared = prepare(recipe.preparation)
    cohort = sources.read(recipe.preparation.source)
    assert cohort.notes.height == NOTES
    split_of = dict(zip(prepared.store.note_ids, prepared.store.split_N, strict=True))
    columns = {
        "note_ids": cohort.notes["note_id"].to_list(),
        "patient_ids": cohort.notes["patient_id"].to_list(),
        "source_N": cohort.notes["source"].to_list(),
        "split_N": [split_of[name] for name in cohort.notes["note_id"]],
    }
    encoder = load_encoder(resolve_backbone("tiny"))
    whole = replace(encode_notes(encoder, 32, cohort.notes["text"].to_list()), **columns)
    compared = 0
    for name, value in vars(whole).items():
        assert np.array_equal(value, getattr(prepared.store, name)), name
        compared += 1
    assert compared == 13
    asked = ["n050", "n003", "n089"]
    rows = dict(cohort.notes.select("note_id", "text").iter_rows())
    assert prepared.texts(asked) == [rows[name] for name in asked]
    assert len(bytes_below(prepared.folder / "texts")) == -(-NOTES // PER_SHARD)
    assert hidden_in(recipe.folder.root) == []


@pytest.fixture
def encoded_notes(monkeypatch):
    """The number of notes that were encoded in this process so far, in a list of one."""
    count = [0]
    documents = Encoder.documents

    def counted(self, texts, *rest):
        count[0] += len(texts)
        return documents(self, texts, *rest)

    monkeypatch.setattr(Encoder, "documents", counted)
    return count


def interrupt_after(recipe: Recipe, shards: int, monkeypatch) -> None:
    """Prepare, and interrupt when so many shards were written."""
    written = itertools.count(1)
    save = prepare_shards.save_documents

    def interrupted(*arguments):
        if next(written) > shards:
            raise KeyboardInterrupt
        save(*arguments)

    with monkeypatch.context() as context:
        context.setattr(prepare_shards, "save_documents", interrupted)
        with pytest.raises(Stopped, match=f"its work up to {shards - 1:06}-tokens is saved"):
            prepare(recipe.preparation)


def test_an_interrupted_run_goes_on_after_its_last_shard(place, monkeypatch, encoded_notes):
    uninterrupted = prepare(recipe_in(place, "name=whole").preparation)
    recipe = recipe_in(place)
    interrupt_after(recipe, 5, monkeypatch)
    assert not recipe.folder.prepared.exists()
    encoded_notes[0] = 0
    prepared = prepare(recipe.preparation)
    assert encoded_notes[0] == NOTES - 5 * PER_SHARD
    assert bytes_below(prepared.folder) == bytes_below(uninterrupted.folder)
    assert hidden_in(recipe.folder.root) == []


def test_a_damaged_shard_is_made_again(place, monkeypatch, encoded_notes):
    uninterrupted = prepare(recipe_in(place, "name=whole").preparation)
    recipe = recipe_in(place)
    interrupt_after(recipe, 5, monkeypatch)
    (ids,) = recipe.folder.root.glob(".prepared.*.work/000003-tokens/ids.npy")
    ids.write_bytes(ids.read_bytes()[:-1])
    encoded_notes[0] = 0
    prepared = prepare(recipe.preparation)
    assert encoded_notes[0] == NOTES - 4 * PER_SHARD
    assert bytes_below(prepared.folder) == bytes_below(uninterrupted.folder)


def test_work_on_other_notes_is_not_gone_on_with(place, monkeypatch, encoded_notes):
    recipe = recipe_in(place)
    interrupt_after(recipe, 5, monkeypatch)
    (old,) = recipe.folder.root.glob(".prepared.*.work")
    text = (place / "notes.csv").read_text()
    (place / "notes.csv").write_text(text.replace("chest", "CHEST"))
    encoded_notes[0] = 0
    interrupt_after(recipe, 2, monkeypatch)
    (new,) = recipe.folder.root.glob(".prepared.*.work")
    assert new != old
    prepare(recipe.preparation)
    assert encoded_notes[0] == NOTES + PER_SHARD  # the third shard twice


def test_work_left_by_a_run_killed_after_its_end_is_removed(place):
    recipe = recipe_in(place)
    prepare(recipe.preparation)
    name = f".prepared.{storage.fingerprint(inputs(recipe.preparation))}.work"
    left, other = recipe.folder.root / name, recipe.folder.root / ".prepared.00ff.work"
    for folder in (left, other):
        folder.mkdir()
        (folder / "shard").write_text("notes")
    prepare(recipe.preparation)
    assert hidden_in(recipe.folder.root) == [other.name]


# Kills: each run is forked from a server that has imported everything and computed nothing.
FORKS = get_context("forkserver")


def run_in_child(folder: Path, workers: int) -> None:
    os.umask(0o077)
    prepare_shards._NOTES_PER_SHARD = PER_SHARD
    prepare(recipe_in(folder, workers=workers).preparation)


def start(folder: Path, workers: int = 1):
    FORKS.set_forkserver_preload(["__main__", "notetune.prepare.build"])
    process = FORKS.Process(target=run_in_child, args=(folder, workers))
    process.start()
    return process


def finished_shards(root: Path) -> dict[str, int]:
    """Name and inode of every shard that is complete."""
    manifests = root.glob(".prepared.*.work/[0-9]*/manifest.json")
    return {path.parent.name: path.stat().st_ino for path in manifests}


def kill_many_times(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Prepare over and over, killed at random moments; every completed run must be the same."""
    rng, root = random.Random(seed), folder / "runs/small"
    start(folder).join()  # the server starts with the first
    started = time.monotonic()
    shutil.rmtree(root)
    process = start(folder)
    process.join()
    seconds = time.monotonic() - started
    assert process.exitcode == 0
    expected = bytes_below(root / "prepared")
    shutil.rmtree(root)
    counts = {"kills": 0, "completed": 0, "kills with shards": 0}
    before: dict[str, int] = {}
    while counts["kills"] < kills or not counts["completed"]:
        process = start(folder)
        process.join(rng.uniform(0, seconds) if counts["kills"] < kills else None)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode == 0:
            assert bytes_below(root / "prepared") == expected
            assert hidden_in(root) == []
            shutil.rmtree(root)
            counts["completed"], before = counts["completed"] + 1, {}
            continue
        assert process.exitcode == -signal.SIGKILL
        after = finished_shards(root)
        is_done = (root / "prepared" / manifest.MANIFEST).exists()  # killed while it tidied up
        assert is_done or not after or before.items() <= after.items()  # no shard was made again
        counts["kills"] += 1
        counts["kills with shards"] += bool(after)
        before = after
    return counts


def test_killed_runs_end_in_the_bytes_of_an_uninterrupted_one(place):
    counts = kill_many_times(place, 5, seed=1)
    assert counts["kills"] == 5


@pytest.mark.slow
def test_fifty_kills_end_in_the_bytes_of_an_uninterrupted_run(place):
    counts = kill_many_times(place, 50, seed=2)
    assert counts["kills"] == 50
    assert counts["completed"] >= 2
    assert counts["kills with shards"] >= 10


def children_of(process_id: int) -> list[int]:
    path = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the process list of Linux")
def test_workers_end_with_a_killed_run(place):
    process = start(place, workers=2)
    workers: list[int] = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 and process.is_alive() and time.monotonic() < deadline:
        workers = children_of(process.pid)
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(workers) >= 2
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert prepare(recipe_in(place).preparation).store.note_ids.size == NOTES


def test_a_worker_that_is_killed_is_told_in_one_line():
    with pytest.raises(RunError, match="a process that prepares notes was killed, perhaps for"):
        prepare_shards._shared_out(os._exit, [1, 2], 2)


def test_a_script_without_a_guard_is_run_once_whatever_the_workers(place):
    script = place / "script.py"
    script.write_text(
        "from small_notes import PER_SHARD, recipe_in\n"
        "from notetune.prepare import build, shards\n"
        "from pathlib import Path\n"
        "shards._NOTES_PER_SHARD = PER_SHARD\n"
        f"prepared = build.prepare(recipe_in(Path({str(place)!r}), workers=2).preparation)\n"
        "print(prepared.store.note_ids.size)\n"
    )
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=100
    )
    assert (ran.returncode, ran.stdout) == (0, f"{NOTES}\n"), ran.stderr


def test_a_finished_folder_is_opened_and_not_built_again(place, encoded_notes):
    recipe = recipe_in(place)
    first = prepare(recipe.preparation)
    assert encoded_notes[0] == NOTES
    again = prepare(recipe.preparation)
    assert encoded_notes[0] == NOTES
    assert again.corpus == first.corpus == open_prepared(recipe.folder.prepared).corpus
