"""Fixtures and settings that every test shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

IN_CI = os.environ.get("CI", "").lower() == "true"
REPOSITORY = Path(__file__).parents[1]

# The machine may be busy, so no deadlines; in CI the same examples every time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if IN_CI else "local")


@pytest.fixture(scope="session")
def open_data() -> Path:
    """The folder of open data: NOTETUNE_DATA, or `shared/data` beside the repository."""
    given = os.environ.get("NOTETUNE_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    reason = f"no open data at {folder}; set NOTETUNE_DATA to its folder"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def umask():
    """Give the process its own umask back after a test that changes it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def pytest_collection_modifyitems(items):
    """The longest files first, so that at the end no process waits for another."""
    items.sort(
        key=lambda item: (item.path.name != "test_readme.py", item.path.parent.name != "study")
    )
