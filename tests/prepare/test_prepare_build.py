"""A prepared folder has the same bytes whoever makes it."""

import pytest
from small_notes import bytes_below, recipe_in, small_notes

from notetune.prepare.build import inputs, prepare


@pytest.fixture
def place(tmp_path, monkeypatch):
    return small_notes(tmp_path, monkeypatch)


def test_the_same_bytes_come_from_any_number_of_workers(place):
    one, two = (recipe_in(place, f"name=w{n}", workers=n) for n in (1, 2))
    prepare(one.preparation)
    prepare(two.preparation)
    expected = bytes_below(one.folder.prepared)
    assert len(expected) >= 20
    assert bytes_below(two.folder.prepared) == expected
    assert inputs(one.preparation) == inputs(two.preparation)
