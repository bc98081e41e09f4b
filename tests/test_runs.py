"""Run folders: whole or absent, private, verifiable; their JSON, and fingerprints of values."""

import dataclasses
import datetime
import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune import claims, runs
from notetune.config import Config
from notetune.errors import RunError, WriteError

INPUTS = {"notes": "abc", "seed": 3}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def build(folder, content="one", inputs=INPUTS):
    with runs.new_folder(folder, inputs) as part:
        (part / "weights.bin").write_bytes(content.encode() * 100)
        (part / "sub").mkdir()
        (part / "sub" / "notes.txt").write_text(content)


def everything_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


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
        manifest = json.loads((tmp_path / "stage" / "manifest.json").read_text())
        assert set(manifest["files"]) == {"weights.bin", "sub/notes.txt"}
        assert manifest["format"] == runs.FORMAT == 2
        assert {"notetune", "python", "numpy"} <= set(manifest["provenance"])

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
        assert runs.is_finished(tmp_path / "stage", INPUTS)

    def test_replaces_the_old_folder_whole(self, tmp_path):
        build(tmp_path / "stage", "old")
        build(tmp_path / "stage", "new", inputs={"other": 1})
        assert len(everything_in(tmp_path)) == 5
        assert not runs.is_finished(tmp_path / "stage", INPUTS)
        assert runs.is_finished(tmp_path / "stage", {"other": 1})

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
        synced, rename, sync = [], Path.rename, runs._sync
        monkeypatch.setattr(runs, "_sync", lambda path: (synced.append(path.name), sync(path)))

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


class TestIsFinished:
    @pytest.fixture
    def stage(self, tmp_path):
        build(tmp_path / "stage")
        assert runs.is_finished(tmp_path / "stage", INPUTS)
        return tmp_path / "stage"

    def test_sees_a_flipped_bit(self, stage):
        for path in (stage / name for name in ("weights.bin", "sub/notes.txt", "manifest.json")):
            good = path.read_bytes()
            for bit in range(0, len(good) * 8, 7):
                bad = bytearray(good)
                bad[bit // 8] ^= 1 << bit % 8
                path.write_bytes(bad)
                assert not runs.is_finished(stage, INPUTS)
                assert runs.damaged_files(stage) == [path.relative_to(stage).as_posix()]
            path.write_bytes(good)
        assert runs.is_finished(stage, INPUTS)

    @pytest.mark.parametrize("name", ["weights.bin", "sub/notes.txt", "manifest.json"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "short", "folder"])
    def test_sees_a_missing_or_cut_file(self, stage, name, damage):
        path = stage / name
        content = path.read_bytes()
        path.unlink()
        match damage:
            case "empty":
                path.touch()
            case "short":
                path.write_bytes(content[:-3])
            case "folder":
                path.mkdir()
        assert not runs.is_finished(stage, INPUTS)
        assert runs.damaged_files(stage) == [name]

    @pytest.mark.parametrize("text", ["[]", "{}", "3", '{"format": 1, "files": []}', "\xff"])
    def test_sees_a_manifest_that_is_not_one(self, stage, text):
        (stage / "manifest.json").write_text(text, encoding="latin-1")
        assert not runs.is_finished(stage, INPUTS)
        assert runs.damaged_files(stage) == ["manifest.json"]

    @pytest.mark.parametrize("inputs", [{"notes": "abc"}, {"notes": "abc", "seed": 4}, None, {}])
    def test_is_false_for_other_inputs(self, stage, inputs):
        assert not runs.is_finished(stage, inputs)

    def test_is_false_for_a_folder_that_does_not_exist(self, tmp_path):
        assert not runs.is_finished(tmp_path / "none", INPUTS)

    def test_what_an_earlier_version_made_is_whole_but_is_made_again(self, stage):
        of_format(stage, 1)
        assert runs.damaged_files(stage) == []
        assert runs.is_older(stage, runs.FORMAT)
        assert not runs.is_finished(stage, INPUTS)
        of_format(stage, runs.FORMAT)
        assert runs.is_finished(stage, INPUTS)
        assert not runs.is_older(stage, runs.FORMAT)

    def test_a_stage_counts_its_own_format(self, tmp_path):
        inputs = {**INPUTS, "format": 7}
        build(tmp_path / "stage", inputs=inputs)
        assert runs.read_json(tmp_path / "stage" / "manifest.json")["format"] == 7
        assert runs.is_finished(tmp_path / "stage", inputs)
        assert not runs.was_made_from(tmp_path / "stage", {**INPUTS, "format": 8})
        assert runs.is_older(tmp_path / "stage", 8)
        with pytest.raises(RunError, match="has format 7; this version reads up to 6"):
            runs.was_made_from(tmp_path / "stage", {**INPUTS, "format": 6})

    def test_refuses_the_format_of_a_later_version_by_name(self, stage):
        of_format(stage, 3)
        with pytest.raises(RunError, match="has format 3; this version reads up to 2"):
            runs.is_finished(stage, INPUTS)


def of_format(folder, number):
    manifest = runs.read_json(folder / "manifest.json") | {"format": number}
    del manifest["digest"]
    runs.write_json(folder / "manifest.json", manifest | {"digest": runs.fingerprint(manifest)})


class TestPrivateFiles:
    @pytest.mark.usefixtures("umask")
    def test_only_the_owner_may_read_what_is_written(self, tmp_path):
        runs.make_files_private()
        run = tmp_path / "run"
        with claims.claimed(run / "stage"), claims.one_at_a_time(run / "features"):
            build(run / "stage")
            runs.write_json(run / "deep" / "result.json", {"value": 1})
            modes = {path: mode(path) for path in [run, *run.rglob("*")]}
        assert len(modes) == 10
        assert {value for path, value in modes.items() if path.is_dir()} == {0o700}
        assert {value for path, value in modes.items() if path.is_file()} == {0o600}


class Recipe(Config):
    seed: int = 0
    folder: Path = Path("a")


@dataclasses.dataclass(frozen=True)
class Task:
    name: str


class LaterRecipe(Recipe):
    AS_BEFORE: ClassVar = {"share": 1.0}
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class LaterTask(Task):
    AS_BEFORE: ClassVar = {"recipe": None}
    recipe: Recipe | None = None


class TestJson:
    def test_a_value_is_read_back_as_it_was_written(self, tmp_path):
        value = {"text": "é\n", "list": [1, 2.5, None, True], "deep": {"a": {}}}
        runs.write_json(tmp_path / "new" / "a.json", value)
        assert runs.read_json(tmp_path / "new" / "a.json") == value
        assert everything_in(tmp_path) == {"new", "new/a.json"}

    @pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
    def test_a_value_without_a_json_form_leaves_the_old_file(self, tmp_path, bad):
        runs.write_json(tmp_path / "a.json", 1)
        with pytest.raises((TypeError, ValueError)):
            runs.write_json(tmp_path / "a.json", bad)
        assert runs.read_json(tmp_path / "a.json") == 1
        assert everything_in(tmp_path) == {"a.json"}

    @pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, step):
        runs.write_json(tmp_path / "a.json", 1)

        def fail(*_):
            raise OSError(errno.ENOSPC, "no space")

        monkeypatch.setattr(step, fail)
        with pytest.raises(WriteError, match=r"/a\.json cannot be written \(No space left"):
            runs.write_json(tmp_path / "a.json", 2)
        monkeypatch.undo()
        assert runs.read_json(tmp_path / "a.json") == 1
        assert everything_in(tmp_path) == {"a.json"}

    def test_a_reader_sees_the_old_file_or_the_new_one(self, tmp_path):
        path, sizes, stop = tmp_path / "a.json", (10, 200_000), threading.Event()
        runs.write_json(path, ["x"] * sizes[0])
        seen = []

        def read_until_stopped():
            while not stop.is_set():
                seen.append(len(runs.read_json(path)))

        reader = threading.Thread(target=read_until_stopped)
        reader.start()
        for round_number in range(10):
            runs.write_json(path, ["x"] * sizes[round_number % 2])
        stop.set()
        reader.join()
        assert seen
        assert set(seen) <= set(sizes)

    def test_values_of_the_project_become_plain(self, tmp_path):
        value = {
            "path": Path("a/b"),
            "date": datetime.date(2020, 1, 2),
            "recipe": Recipe(seed=3),
            "task": Task("death"),
            "real": np.float32(0.5),
            "whole": np.int64(7),
            "flag": np.bool_(True),
            "array": np.arange(3),
        }
        runs.write_json(tmp_path / "a.json", value)
        assert runs.read_json(tmp_path / "a.json") == {
            "path": "a/b",
            "date": "2020-01-02",
            "recipe": {"seed": 3, "folder": "a"},
            "task": {"name": "death"},
            "real": 0.5,
            "whole": 7,
            "flag": True,
            "array": [0, 1, 2],
        }

    def test_a_missing_file_and_a_damaged_one_are_named_without_their_content(self, tmp_path):
        with pytest.raises(RunError, match=r"a\.json is missing"):
            runs.read_json(tmp_path / "a.json")
        (tmp_path / "a.json").write_text('{"note": "Quillfeather')
        with pytest.raises(RunError, match=r"a\.json is not JSON") as caught:
            runs.read_json(tmp_path / "a.json")
        assert "Quillfeather" not in str(caught.value)
        assert caught.value.__suppress_context__


class TestFingerprint:
    @given(JSON_VALUES, JSON_VALUES)
    def test_is_equal_exactly_when_the_json_is(self, one, two):
        same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
        assert (runs.fingerprint(one) == runs.fingerprint(two)) == same

    def test_ignores_the_order_of_keys_and_the_process(self):
        value = {"b": Path("x"), "a": Recipe(), "task": Task("death")}
        code = """
            import dataclasses
            from pathlib import Path
            from notetune import runs
            value = {"task": {"name": "death"}, "a": {"folder": "a", "seed": 0}, "b": "x"}
            print(runs.fingerprint(value))
        """
        other = subprocess.check_output(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | {"PYTHONHASHSEED": "5"},
            text=True,
        )
        assert other.strip() == runs.fingerprint(value)

    def test_a_field_of_a_later_release_counts_where_it_changes_what_was_done(self):
        now = runs.fingerprint([Recipe(), Task("death")])
        assert runs.fingerprint([LaterRecipe(), LaterTask("death")]) == now
        assert runs.fingerprint([LaterRecipe(share=0.5), LaterTask("death")]) != now
        assert runs.fingerprint([LaterRecipe(), LaterTask("death", Recipe())]) != now
        # One that was there before always counts, whatever its default becomes.
        assert runs.fingerprint(LaterRecipe(seed=0)) != runs.fingerprint({})

    @pytest.mark.parametrize("value", [{"a", "b"}, object(), lambda: 0])
    def test_refuses_what_differs_from_process_to_process(self, value):
        with pytest.raises(TypeError, match="has no JSON form"):
            runs.fingerprint(value)


def test_provenance_names_the_versions_that_decide_a_result():
    found = runs.provenance()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"notetune", "torch", "transformers", "peft", "tokenizers", "polars"} <= set(found)
