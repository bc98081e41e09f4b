"""Several workers on one run folder: every job once, whoever dies, stands still or fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import pytest
from builders import random_encoder
from small_study import small_study

from notetune import config, lease, ownership, storage
from notetune.cli.terminal_tables import standing
from notetune.errors import BackboneError, DataError, RunError, RunWarning
from notetune.recipe.recipe import Recipe
from notetune.study import baselines, step2
from notetune.study import run as module
from notetune.study.evaluate import evaluate
from notetune.study.last_recipe import as_kept
from notetune.study.listing import jobs
from notetune.study.run import work
from notetune.study.status import progress

BEAT = 1


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = small_study(tmp_path_factory.mktemp("small"))
    path, few = place / "recipe.yaml", "variants: [head-only, domain-frozen+task-lora]"
    text = path.read_text().replace("downstream:\n", f"downstream:\n  tasks: [died]\n  {few}\n")
    path.write_text(text)
    return place


@pytest.fixture(scope="module")
def alone(place):
    """What one worker makes."""
    recipe = load(place)
    work(recipe)
    return evaluate(recipe)


def load(place, *overrides):
    return config.load(Recipe, place / "recipe.yaml", list(overrides))


def worker(place, runs_folder):
    """A worker whose leases beat fast, as a process."""
    code = f"""
        from notetune import lease
        from notetune.cli import main
        import sys
        lease.BEAT_SECONDS = {BEAT}
        sys.argv = ["notetune", "study", "work", "{place}/recipe.yaml", "runs={runs_folder}"]
        main()
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def made_in(root):
    """Which folder was made how often, as the workers wrote it down."""
    lines = (root / "jobs.jsonl").read_text().splitlines()[1:]
    events = [json.loads(line) for line in lines]
    return [event["job"] for event in events if event["event"] == "made"]


@pytest.mark.slow
def test_workers_that_die_or_stand_still_leave_every_job_once_and_the_same_tables(
    place, alone, tmp_path
):
    workers = [worker(place, tmp_path) for _ in range(4)]
    time.sleep(12)
    for number in (0, 1):
        workers[number].send_signal(signal.SIGKILL)
        workers[number].communicate()
        time.sleep(2)
    workers[2].send_signal(signal.SIGSTOP)
    assert workers[3].wait(300) == 0
    workers[2].send_signal(signal.SIGCONT)
    _, said = workers[2].communicate(timeout=300)
    assert workers[2].returncode == 0, said
    workers[3].communicate()
    recipe = load(place, f"runs={tmp_path}")
    listed = list(dict.fromkeys(jobs(recipe)))
    assert len(listed) > 10
    assert all(job.is_made(is_checked=True) for job in listed)
    assert evaluate(recipe).tasks == alone.tasks
    left = [path for path in tmp_path.rglob(".*") if path.suffix in (".part", ".work")]
    assert left == []


def test_two_workers_share_the_jobs_and_make_the_same(place, alone, tmp_path):
    workers = [worker(place, tmp_path) for _ in range(2)]
    for each in workers:
        _, said = each.communicate(timeout=300)
        assert each.returncode == 0, said
    recipe = load(place, f"runs={tmp_path}")
    made = made_in(recipe.folder.root)
    assert len(made) == len(set(made)) == len(set(jobs(recipe)))
    assert evaluate(recipe).tasks == alone.tasks
    assert not list(tmp_path.rglob(f"*{ownership.LEASE}"))


class TestStatus:
    def test_says_what_is_done_and_that_nobody_is_at_work(self, place, alone):
        found = progress(load(place))
        assert len(found.jobs) > 10
        assert {job.state for job in found.jobs} == {"done"}
        assert found.folder == place / "runs/small"
        assert (found.workers, found.untimed, found.seconds_left) == (0, 0, 0)

    def test_says_who_runs_a_job_and_how_long_like_ones_took(self, place, alone, tmp_path):
        recipe, job = self.with_an_open_job(place, tmp_path)
        held = lease.Lease(job.folder)
        assert held.take()
        found = progress(recipe)
        held.give_back()
        (running,) = [one for one in found.jobs if one.state == "running"]
        assert running.name == job.name
        assert running.detail.startswith(f"process {os.getpid()} on ")
        assert found.workers == 1

    def test_estimates_the_time_left_from_jobs_like_those_left(self, place, alone, tmp_path):
        recipe, job = self.with_an_open_job(place, tmp_path)
        assert progress(recipe).seconds_left > 0
        journal = recipe.folder.root / "jobs.jsonl"
        journal.unlink()
        found = progress(recipe)
        assert (found.seconds_left, found.untimed) == (None, 1)
        said = standing(found)
        assert "for 1 the time is known once one of their kind is made; `notetune" in said
        assert "left at this rate" not in said
        assert [one.state for one in found.jobs if one.name == job.name] == ["open"]

    def with_an_open_job(self, place, tmp_path):
        shutil.copytree(place / "runs", tmp_path / "runs")
        recipe = load(place, f"runs={tmp_path / 'runs'}")
        listed = jobs(recipe)
        joined = [part for job in listed if job.stage == "hybrid" for part in job.needs]
        job = [job for job in listed if job.stage == "model" and job not in joined][-1]
        shutil.rmtree(job.folder)
        return recipe, job


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("backbone={}/none", "backbone {}/none is not a folder"),
        ("encoders.models.small={}/none", "encoders.models.small: backbone {}/none is not"),
    ],
)
def test_a_missing_backbone_stops_before_the_notes_are_prepared(place, tmp_path, override, said):
    recipe = load(place, f"runs={tmp_path / 'runs'}", override.format(tmp_path))
    with pytest.raises(BackboneError) as error:
        work(recipe)
    assert said.format(tmp_path) in str(error.value)
    assert "`make backbones`" in str(error.value)
    assert ("`encoders.models={}`" in str(error.value)) == override.startswith("encoders")
    assert not (tmp_path / "runs").exists()


def test_a_job_that_fails_stops_only_what_needs_it(place, alone, tmp_path, monkeypatch):
    shutil.copytree(place / "runs", tmp_path / "runs")
    recipe = load(place, f"runs={tmp_path / 'runs'}")
    cells = [job for job in jobs(recipe) if job.stage in ("model", "hybrid")]
    for job in cells:
        shutil.rmtree(job.folder)
    (joined, *_) = [job for job in cells if job.stage == "hybrid"]
    run, failing = step2.train_model, joined.needs[-1]

    def fails(job, notes, track):
        if job == failing:
            raise DataError("the thing, its value and the way out")
        run(job, notes, track)

    monkeypatch.setattr(step2, "train_model", fails)
    with pytest.raises(DataError, match="the thing"):
        work(recipe)
    states = {job.name: job for job in progress(recipe).jobs}
    assert states[failing.name].state == "failed"
    assert states[failing.name].detail == "the thing, its value and the way out"
    needing = {job.name for job in cells if failing in job.needs}
    assert needing
    assert {n for n, one in states.items() if one.state == "open"} == needing
    monkeypatch.setattr(step2, "train_model", run)
    work(recipe)
    assert {job.state for job in progress(recipe).jobs} == {"done"}


def test_notes_that_change_while_they_are_prepared_are_said_and_not_prepared_for_ever(
    place, tmp_path, monkeypatch
):
    notes = tmp_path / "notes.csv"
    shutil.copy(place / "notes.csv", notes)
    recipe = load(place, f"runs={tmp_path}", f"prepare.source.path={notes}")
    prepare, count = module.prepare, [0]

    def changing(*arguments):
        count[0] += 1
        prepare(*arguments)
        notes.write_bytes(notes.read_bytes() + b"\n" * count[0])

    monkeypatch.setattr(module, "prepare", changing)
    with pytest.raises(RunError, match="prepared: what it is made from changed meanwhile"):
        work(recipe)
    assert count == [1]


def test_the_text_of_an_unexpected_error_is_not_kept(place, alone, tmp_path, monkeypatch):
    shutil.copytree(place / "runs", tmp_path / "runs")
    recipe = load(place, f"runs={tmp_path / 'runs'}")
    job = [job for job in jobs(recipe) if job.stage == "hybrid"][-1]
    shutil.rmtree(job.folder)

    def fails(*_):
        raise ValueError("a planted note text")

    monkeypatch.setattr(baselines, "join", fails)
    with pytest.raises(ValueError, match="planted"):
        work(recipe)
    assert "planted" not in (recipe.folder.root / "jobs.jsonl").read_text()
    assert "ValueError, a bug of notetune" in [one.detail for one in progress(recipe).jobs]


class TestOthersAtWork:
    @pytest.fixture
    def busy(self, place, alone, tmp_path):
        """A copy of the run folder with a live lease of another machine in it."""
        shutil.copytree(place / "runs", tmp_path / "runs")
        folder = tmp_path / "runs" / "small" / "elsewhere"
        values = vars(lease.this_process()) | {"host": "node7"}
        path = ownership.lease_of(folder)
        path.write_text(json.dumps(values))
        return path

    def test_the_same_recipe_may_join(self, place, busy, tmp_path):
        work(load(place, f"runs={tmp_path / 'runs'}", "checkpoint_minutes=3"))

    def test_another_recipe_may_not(self, place, busy, tmp_path):
        recipe = load(place, f"runs={tmp_path / 'runs'}", "pretrain.epochs=7")
        with pytest.raises(RunError, match=r"on node7 works on .* with another recipe"):
            work(recipe)

    def test_another_version_may_not(self, place, busy, tmp_path):
        busy.write_text(json.dumps(json.loads(busy.read_text()) | {"version": "0.0.9"}))
        with pytest.raises(RunError, match=r"with notetune 0\.0\.9, and this is"):
            work(load(place, f"runs={tmp_path / 'runs'}"))

    @pytest.mark.parametrize(
        ("file", "key"),
        [
            ("notes.csv", "prepare.source"),
            ("bert/tokenizer_config.json", "encoders.models.bert"),
            ("general.txt", "pretrain.general_text"),
        ],
    )
    def test_other_files_may_not(self, place, busy, tmp_path, file, key):
        shutil.copy(place / "notes.csv", tmp_path)
        random_encoder(tmp_path / "bert")
        (tmp_path / "general.txt").write_text("A text.")
        recipe = load(
            place,
            f"runs={tmp_path / 'runs'}",
            f"prepare.source.path={tmp_path / 'notes.csv'}",
            f"encoders.models={{bert: {tmp_path / 'bert'}}}",
            f"pretrain.general_text={tmp_path / 'general.txt'}",
        )
        storage.write_json(recipe.folder.root / "recipe.json", as_kept(recipe))
        with (tmp_path / file).open("a") as changed:
            changed.write(" ")
        with pytest.raises(RunError, match=f"on node7 works on .* with other files of {key} than"):
            work(recipe)

    def test_whoever_is_dead_does_not_count(self, place, busy, tmp_path):
        then = time.time() - 1000
        os.utime(busy, (then, then))
        with warnings.catch_warnings(action="ignore", category=RunWarning):
            work(load(place, f"runs={tmp_path / 'runs'}", "evaluate.draws=150"))
