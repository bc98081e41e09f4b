"""What may take the place of what: only what is ours and holds nothing else."""

import os
import time
from pathlib import Path

import pytest

from notetune import claims, manifest, runs
from notetune.errors import RunError
from notetune.ownership import refuse_foreign, refuse_foreign_lease

CANARY = b"a user's\x00file"


def everything_in(folder):
    return set(folder.rglob("*"))


def test_a_foreign_file_in_a_folder_of_ours_keeps_it_from_being_replaced(tmp_path):
    def build(text):
        with runs.new_folder(tmp_path / "stage", text) as part:
            (part / "inner").mkdir()
            (part / "inner" / "weights").write_text(text)

    build("one")
    with runs.new_folder(tmp_path / "stage" / "later" / "stage", 1) as part:
        (part / "tokens").write_text("ours, in a stage folder inside the other")
    (tmp_path / "stage" / "inner" / "weights").write_text("damaged")
    (tmp_path / "stage" / ".later.lock").touch()
    build("two")
    mine = tmp_path / "stage" / "inner" / "mine.txt"
    for path in (mine, mine.with_name(".mine.lock")):
        path.write_bytes(CANARY)
        with pytest.raises(RunError, match=f"{path} in it was not made by notetune"):
            build("three")
        assert path.read_bytes() == CANARY
        path.unlink()
    link = tmp_path / "stage" / "inner" / "linked"
    link.symlink_to(tmp_path)
    with pytest.raises(RunError, match="linked in it was not made"):
        build("three")
    link.unlink()
    build("three")
    assert (tmp_path / "stage" / "inner" / "weights").read_text() == "three"


def test_what_comes_while_a_folder_is_built_stays(tmp_path):
    def build():
        with runs.new_folder(tmp_path / "stage", 1):
            (tmp_path / "stage").mkdir()
            (tmp_path / "stage" / "mine").write_bytes(CANARY)

    with pytest.raises(RunError, match="was not made by notetune"):
        build()
    assert (tmp_path / "stage" / "mine").read_bytes() == CANARY
    assert list(tmp_path.iterdir()) == [tmp_path / "stage"]


def test_taking_a_folder_clears_nothing_of_a_user(tmp_path):
    names = [".film.abcdefgh.part", ".a.part", ".b.work", ".stage.mine.work", "x.notetune.part"]
    for name in names:
        (tmp_path / "deep" / f"{name}-folder" / name).mkdir(parents=True)
        (tmp_path / "deep" / name).write_bytes(CANARY)
    before = everything_in(tmp_path)
    assert len(before) == 3 * len(names) + 1
    long_ago = time.time() - 3600
    for path in before:
        os.utime(path, (long_ago, long_ago))
    claims.clear_parts(tmp_path)
    stage = tmp_path / "deep" / "stage"
    with claims.claimed(stage), runs.work_folder(stage, 1):
        pass
    assert everything_in(tmp_path) == before
    assert all((tmp_path / "deep" / name).read_bytes() == CANARY for name in names)


def test_work_for_other_inputs_is_found_by_its_whole_name(tmp_path):
    mine = tmp_path / ".stage.mine.work"
    mine.mkdir()
    theirs = tmp_path / ".stage.more.0123456789abcdef.work"
    theirs.mkdir()
    old = tmp_path / ".stage.0123456789abcdef.work"
    old.mkdir()
    with runs.work_folder(tmp_path / "stage", 1) as work:
        assert {path.name for path in tmp_path.iterdir()} == {mine.name, theirs.name, work.name}


def test_a_damaged_manifest_still_says_whose_the_folder_is(tmp_path):
    with runs.new_folder(tmp_path / "stage", 1) as part:
        (part / "a").write_text("a")
    path = tmp_path / "stage" / "manifest.json"
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    assert not manifest.is_finished(tmp_path / "stage", 1)
    refuse_foreign(tmp_path / "stage")
    path.write_text("{}")
    with pytest.raises(RunError, match="was not made by notetune"):
        refuse_foreign(tmp_path / "stage")


def test_a_lease_that_is_given_back_while_it_is_looked_at_is_no_strangers(tmp_path, monkeypatch):
    path = tmp_path / ".stage.lease"
    path.write_text('{"token": "1"}')

    def gone(_):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", gone)
    refuse_foreign_lease(path)


def test_what_is_no_file_in_the_place_of_a_lease_is_refused(tmp_path):
    (tmp_path / ".stage.lease").mkdir()
    with pytest.raises(RunError, match="exists already"):
        refuse_foreign_lease(tmp_path / ".stage.lease")
