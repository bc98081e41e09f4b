"""The worker that the tests of malformed inputs share, and the valid inputs."""

import shutil

import pytest

from malformed.commands import Worker
from malformed.valid import write_valid


@pytest.fixture(scope="session")
def worker():
    worker = Worker()
    yield worker
    worker.end()


@pytest.fixture(scope="session")
def valid(tmp_path_factory):
    """A folder with a valid input of every kind."""
    return write_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture
def place(valid, tmp_path):
    """A copy of it to spoil."""
    folder = tmp_path / "place"
    shutil.copytree(valid, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def finished(valid, worker, tmp_path_factory):
    """A copy of it in which a study is finished."""
    folder = tmp_path_factory.mktemp("finished") / "place"
    shutil.copytree(valid, folder)
    done = worker.run(folder, "study run study.yaml --json", most_seconds=600)
    assert done.status == 0, done.complaints
    return folder
