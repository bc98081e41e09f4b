"""Workers on a Ray cluster: what is refused before any starts, and every job once, whoever dies."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest
from small_study import CANARY, files_below, notetune, small_study

from notetune import config, lease
from notetune.cli import load, ray_cluster
from notetune.errors import Stopped
from notetune.recipe.recipe import Recipe
from notetune.study.evaluate import evaluate
from notetune.study.listing import jobs
from notetune.study.run import prepare_notes, work

GIB = 2**30


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("small"))


@pytest.fixture
def token(tmp_path, monkeypatch):
    """A token that Ray would ask for."""
    path = tmp_path / "token"
    path.write_text("f00d" * 16)
    path.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


def refused(place, *options):
    """The one line that says why a study does not run."""
    done = notetune("study", "run", place / "recipe.yaml", *options)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert not (place / "runs").exists()
    return line


class TestRefusals:
    @pytest.mark.parametrize(("mode", "said"), [("", "not set"), ("disabled", "disabled")])
    def test_a_cluster_without_a_token(self, place, token, monkeypatch, mode, said):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        line = refused(place, "--ray", "local")
        assert f"RAY_AUTH_MODE is {said}" in line
        for way_out in ("RAY_AUTH_TOKEN_PATH", "ray get-auth-token --generate", "chmod 600"):
            assert way_out in line

    def test_a_token_that_others_can_read(self, place, token):
        token.chmod(0o640)
        assert f"others can read the token in {token}" in refused(place, "--ray", "local")

    def test_no_ray(self, place, token, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        assert "install notetune[scale]" in refused(place, "--ray", "local")

    @pytest.mark.parametrize("scheme", ["", "ray://"])
    def test_an_address_where_nothing_listens(self, place, token, monkeypatch, scheme):
        monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        line = refused(place, "--ray", address)
        assert f"--ray {address}: nothing answers there (ConnectionRefusedError)" in line
        assert time.monotonic() - began < 5

    def test_a_cluster_that_cannot_be_joined_without_what_ray_says_of_it(
        self, place, token, monkeypatch
    ):
        def init(**_):
            raise RuntimeError(CANARY)

        fake = types.ModuleType("ray")
        fake.init = init
        monkeypatch.setitem(sys.modules, "ray", fake)
        line = refused(place, "--ray", "auto")
        assert "no cluster could be joined (RuntimeError)" in line
        assert CANARY not in line

    def test_workers_of_two_kinds(self, place):
        assert "without --workers" in refused(place, "--ray", "local", "--workers", "2")


class TestPlaces:
    """How many workers, each with what."""

    @pytest.mark.parametrize(
        ("device", "cluster", "gpus", "room"),
        [
            ("auto", {"CPU": 8, "memory": 64 * GIB}, 0, 8),
            ("auto", {"CPU": 8, "memory": 7 * GIB}, 0, 3),
            ("auto", {"CPU": 8, "GPU": 2, "memory": 64 * GIB}, 1, 2),
            ("cpu", {"CPU": 8, "GPU": 2, "memory": 64 * GIB}, 0, 8),
            ("cuda", {"CPU": 8, "memory": 64 * GIB}, 1, 0),
            ("auto", {}, 0, 0),
        ],
    )
    def test_a_worker_takes_a_core_some_memory_and_a_gpu_where_it_computes_on_one(
        self, place, device, cluster, gpus, room
    ):
        changes = [f"device={device}", "downstream.variants=[head-only, task-lora]"]
        recipe = config.load(Recipe, place / "recipe.yaml", changes)
        needs = ray_cluster._needs(recipe, cluster)
        assert (needs["CPU"], needs["GPU"]) == (1, gpus)
        assert (needs["memory"] == 2 * GIB) is bool(gpus)
        assert ray_cluster._room(needs, cluster) == room
        changes.append("downstream.tokens_per_row=16384")
        larger = config.load(Recipe, place / "recipe.yaml", changes)
        assert (ray_cluster._needs(larger, cluster)["memory"] > needs["memory"]) is (not gpus)

    @pytest.mark.parametrize(
        ("places", "room", "workers"), [(9, 4, 5), (3, 4, 3), (3, 0, 1), (0, 4, 1)]
    )
    def test_one_more_than_there_is_room_for_and_no_more_than_have_work(
        self, places, room, workers
    ):
        found = types.SimpleNamespace(places=places)
        assert ray_cluster._workers_for(found, room) == workers


class FakeRay(types.ModuleType):
    """A cluster whose tasks have ended as soon as they are looked at.

    Args:
        ends: What each task ends with, in order: an exit code or an error.
        room: Cores.
    """

    def __init__(self, ends, room):
        super().__init__("ray")
        self.ends, self.room = iter(ends), room
        self.options, self.given = {}, []
        self.exceptions = types.SimpleNamespace(RayError=RuntimeError)
        self.init = self.shutdown = lambda **_: None

    def cluster_resources(self):
        return {"CPU": self.room, "memory": 64 * GIB}

    def remote(self, **options):
        self.options = options
        return lambda _: types.SimpleNamespace(remote=self.start)

    def start(self, *arguments):
        self.given.append(arguments)
        return next(self.ends)

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, end):
        if isinstance(end, Exception):
            raise end
        return end


def test_workers_that_end_before_all_is_made_are_an_error_without_what_ray_says(
    place, token, monkeypatch, tmp_path
):
    fake = FakeRay([RuntimeError(CANARY)], room=4)
    monkeypatch.setitem(sys.modules, "ray", fake)
    done = notetune(
        "study", "run", place / "recipe.yaml", f"runs={tmp_path / 'runs'}", "--ray", "local"
    )
    assert done.returncode == 2
    progress, error = done.stderr.strip().splitlines()
    assert "1 open; nobody at work" in progress
    assert "room for 4 workers" in progress
    assert "1 of 1 jobs are not made; workers on local ended with RuntimeError." in error
    assert CANARY not in done.stderr
    assert fake.options["max_retries"] > 1
    ((command, folder, logs),) = fake.given  # nothing is known yet but the notes
    assert command[:2] == ["study", "work"]
    assert folder == str(Path.cwd())
    assert logs == str(tmp_path / "runs/small/workers")


def test_no_worker_starts_after_one_has_ended(place, token, tmp_path):
    recipe = load_recipe(place, tmp_path)
    prepare_notes(recipe)
    fake = FakeRay([0, 2, 0, 0, 0], room=3)
    assert ray_cluster._ends_of_workers(fake, recipe, ["study", "work"]) == {
        "exit code 0",
        "exit code 2",
    }
    assert len(fake.given) == 4


class TestTurn:
    """A worker as the task of a cluster, in this process."""

    def test_leaves_its_words_in_a_log_and_gives_its_exit_code(self, tmp_path, capsys, umask):
        code = ray_cluster.take_turn(["study", "work", "no.yaml"], str(Path.cwd()), str(tmp_path))
        assert code == 2
        (log,) = tmp_path.iterdir()
        assert log.name.startswith("ray-")
        assert log.stat().st_mode & 0o077 == 0
        assert "no.yaml is not a file" in log.read_text()
        assert capsys.readouterr() == ("", "")

    def test_one_that_is_stopped_is_not_over(self, place, tmp_path, monkeypatch):
        def stop(*_):
            raise Stopped(signal.SIGTERM)

        monkeypatch.setattr(load, "study", stop)
        with pytest.raises(SystemExit, match="143"):
            ray_cluster.take_turn(["study", "work", "no.yaml"], str(Path.cwd()), str(tmp_path))


class Cluster:
    """Two nodes of two cores, both on this machine, that ask for a token."""

    def __init__(self, scratch):
        self.scratch = scratch
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.address, self.nodes = f"127.0.0.1:{port}", []
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={scratch}"]
        self.start(*head)
        self.start(f"--address={self.address}")

    def start(self, *options):
        room = ["--num-cpus=2", f"--memory={8 * GIB}", f"--object-store-memory={GIB // 8}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *room]
        node = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.nodes.append(node.pid)
        assert node.wait(180) == 0

    def runs(self, number, process):
        """Whether a process is a worker of a node; its parent is in the node's group."""
        command = ["ps", "-o", "ppid=", "-p", str(process)]
        parent = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return bool(parent.strip()) and os.getpgid(int(parent)) == self.nodes[number]

    def kill(self, number):
        """Kill the processes of a node at once; its workers end with them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.nodes[number], signal.SIGKILL)


@pytest.fixture
def cluster(token, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed (extra `scale`)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as path:
        found = Cluster(Path(path))
        yield found
        for number in range(2):
            found.kill(number)


def maker(root, is_wanted, seconds=300):
    """A process that makes something, once there is one that is wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):  # a folder was renamed, or a process ended, meanwhile
            for holder in lease.holders_below(root):
                if is_wanted(holder.process):
                    return holder.process
        time.sleep(0.05)
    raise TimeoutError("no such worker")


@pytest.mark.slow
def test_workers_and_a_node_that_die_leave_every_job_once_and_the_same_tables(
    place, cluster, tmp_path
):
    recipe = load_recipe(place, tmp_path)
    root = recipe.folder.root
    options = [place / "recipe.yaml", f"runs={tmp_path / 'runs'}", "--ray", cluster.address]
    driver = subprocess.Popen(
        [sys.executable, "-m", "notetune", "study", "run", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = []
    for _ in range(2):
        killed.append(maker(root, lambda one: one not in killed and cluster.runs(0, one)))
        os.kill(killed[-1], signal.SIGKILL)
    killed.append(maker(root, lambda one: cluster.runs(1, one)))
    cluster.kill(1)
    _, said = driver.communicate(timeout=900)
    assert driver.returncode == 0, said
    assert len({*killed, driver.pid}) == 4

    listed = list(dict.fromkeys(jobs(recipe)))
    assert len(listed) > 15
    assert all(job.is_made(is_checked=True) for job in listed)
    events = [json.loads(line) for line in (root / "jobs.jsonl").read_text().splitlines()[1:]]
    made = [event["job"] for event in events if event["event"] == "made"]
    assert len(made) == len(set(made)) == len(listed)
    assert len({event["by"] for event in events}) > 1  # the killed ones may have made nothing
    alone = load_recipe(place, tmp_path / "alone")
    work(alone)
    assert evaluate(recipe).tasks == evaluate(alone).tasks
    left = [path for path in root.rglob(".*") if path.suffix in (".part", ".work")]
    assert left == []
    said_by_ray = [path.read_bytes() for path in files_below(cluster.scratch)]
    said_by_workers = [path.read_bytes() for path in (root / "workers").iterdir()]
    assert len(said_by_ray) > 10
    assert len(said_by_workers) > 2
    assert not any(CANARY.encode() in text for text in [*said_by_ray, *said_by_workers])


def load_recipe(place, folder):
    return config.load(Recipe, place / "recipe.yaml", [f"runs={folder / 'runs'}"])
