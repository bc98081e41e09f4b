"""Run folders: whole or absent, and private."""

import errno
import json
from pathlib import Path

import pytest
from stages import INPUTS, build, everything_in

from notetune import claims, manifest, runs, storage
from notetune.errors import RunError, WriteError


def mode(path):
    return path.stat().st_mode & 0o777


class TestNewFolder:
    def test_appears_whole_with_a_manifest_of_its_files(self, tmp_path):
        build(tmp_path / "stage")
        assert everything_in(tmp_path) == {
            "stage",
            "stage/manifest.json",
            "stage/weights.bin",
            "stage/sub",
            "stage/sub/notes.txt",
        }
        found = json.loads((tmp_path / "stage" / "manifest.json").read_text())
        assert set(found["files"]) == {"weights.bin", "sub/notes.txt"}
        assert found["format"] == manifest.FORMAT == 2
        assert {"notetune", "python", "numpy"} <= set(found["provenance"])

    def test_is_not_there_before_the_block_ends(self, tmp_path):
        with runs.new_folder(tmp_path / "stage", INPUTS) as part:
            assert part.parent == tmp_path
            assert not (tmp_path / "stage").exists()
        assert (tmp_path / "stage").is_dir()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_leaves_nothing_and_keeps_the_old_folder_on_an_error(self, tmp_path, error):
        build(tmp_path / "stage", "old")
        before = everything_in(tmp_path)

        def build_half():
            with runs.new_folder(tmp_path / "stage", INPUTS) as part:
                (part / "weights.bin").write_text("new")
                raise error

        with pytest.raises(error):
            build_half()
        assert everything_in(tmp_path) == before
        assert (tmp_path / "stage" / "sub" / "notes.txt").read_text() == "old"
        assert manifest.is_finished(tmp_path / "stage", INPUTS)

    def test_replaces_the_old_folder_whole(self, tmp_path):
        build(tmp_path / "stage", "old")
        build(tmp_path / "stage", "new", inputs={"other": 1})
        assert len(everything_in(tmp_path)) == 5
        assert not manifest.is_finished(tmp_path / "stage", INPUTS)
        assert manifest.is_finished(tmp_path / "stage", {"other": 1})

    def test_gives_the_old_folder_back_when_the_last_rename_fails(self, tmp_path, monkeypatch):
        build(tmp_path / "stage", "old")
        before = everything_in(tmp_path)
        rename, calls = Path.rename, []

        def failing_second(self, target):
            calls.append(target)
            if len(calls) == 2:
                raise OSError(errno.EIO, "disk went away")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing_second)
        with pytest.raises(
            WriteError, match=r"stage cannot be read or written \(Input/output error"
        ):
            build(tmp_path / "stage", "new")
        assert len(calls) == 3
        assert everything_in(tmp_path) == before
        assert (tmp_path / "stage" / "sub" / "notes.txt").read_text() == "old"

    def test_syncs_every_file_and_folder_before_the_rename(self, tmp_path, monkeypatch):
        synced, rename, sync = [], Path.rename, storage.sync
        monkeypatch.setattr(storage, "sync", lambda path: (synced.append(path.name), sync(path)))

        def checked(self, target):
            assert {"weights.bin", "sub", "notes.txt", self.name} <= set(synced)
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", checked)
        build(tmp_path / "stage")
        assert synced[-1] == tmp_path.name

    def test_refuses_a_file_with_the_name_of_the_manifest(self, tmp_path):
        with (
            pytest.raises(RunError, match=r"already holds manifest\.json"),
            runs.new_folder(tmp_path / "stage", INPUTS) as part,
        ):
            (part / "manifest.json").write_text("{}")
        assert everything_in(tmp_path) == set()


class TestPrivateFiles:
    @pytest.mark.usefixtures("umask")
    def test_who_calls_from_python_has_its_own_rights_again(self, tmp_path):
        with runs.private_files():
            (tmp_path / "ours").touch()
        (tmp_path / "theirs").touch()
        assert (mode(tmp_path / "ours"), mode(tmp_path / "theirs")) == (0o600, 0o644)

    @pytest.mark.usefixtures("umask")
    def test_only_the_owner_may_read_what_is_written(self, tmp_path):
        runs.make_files_private()
        run = tmp_path / "run"
        with claims.claimed(run / "stage"), claims.one_at_a_time(run / "features"):
            build(run / "stage")
            storage.write_json(run / "deep" / "result.json", {"value": 1})
            modes = {path: mode(path) for path in [run, *run.rglob("*")]}
        assert len(modes) == 10
        assert {value for path, value in modes.items() if path.is_dir()} == {0o700}
        assert {value for path, value in modes.items() if path.is_file()} == {0o600}
