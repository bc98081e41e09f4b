"""JSON files and fingerprints: what is written is read back, and what depends on what is kept."""

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
from stages import everything_in

from notetune import storage
from notetune.config import Config
from notetune.errors import RunError, WriteError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


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
        storage.write_json(tmp_path / "new" / "a.json", value)
        assert storage.read_json(tmp_path / "new" / "a.json") == value
        assert everything_in(tmp_path) == {"new", "new/a.json"}

    @pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
    def test_a_value_without_a_json_form_leaves_the_old_file(self, tmp_path, bad):
        storage.write_json(tmp_path / "a.json", 1)
        with pytest.raises((TypeError, ValueError)):
            storage.write_json(tmp_path / "a.json", bad)
        assert storage.read_json(tmp_path / "a.json") == 1
        assert everything_in(tmp_path) == {"a.json"}

    @pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, step):
        storage.write_json(tmp_path / "a.json", 1)

        def fail(*_):
            raise OSError(errno.ENOSPC, "no space")

        monkeypatch.setattr(step, fail)
        with pytest.raises(WriteError, match=r"/a\.json cannot be written \(No space left"):
            storage.write_json(tmp_path / "a.json", 2)
        monkeypatch.undo()
        assert storage.read_json(tmp_path / "a.json") == 1
        assert everything_in(tmp_path) == {"a.json"}

    def test_a_reader_sees_the_old_file_or_the_new_one(self, tmp_path):
        path, sizes, stop = tmp_path / "a.json", (10, 200_000), threading.Event()
        storage.write_json(path, ["x"] * sizes[0])
        seen = []

        def read_until_stopped():
            while not stop.is_set():
                seen.append(len(storage.read_json(path)))

        reader = threading.Thread(target=read_until_stopped)
        reader.start()
        for round_number in range(10):
            storage.write_json(path, ["x"] * sizes[round_number % 2])
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
        storage.write_json(tmp_path / "a.json", value)
        assert storage.read_json(tmp_path / "a.json") == {
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
            storage.read_json(tmp_path / "a.json")
        (tmp_path / "a.json").write_text('{"note": "Quillfeather')
        with pytest.raises(RunError, match=r"a\.json is not JSON") as caught:
            storage.read_json(tmp_path / "a.json")
        assert "Quillfeather" not in str(caught.value)
        assert caught.value.__suppress_context__


class TestFingerprint:
    @given(JSON_VALUES, JSON_VALUES)
    def test_is_equal_exactly_when_the_json_is(self, one, two):
        same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
        assert (storage.fingerprint(one) == storage.fingerprint(two)) == same

    def test_ignores_the_order_of_keys_and_the_process(self):
        value = {"b": Path("x"), "a": Recipe(), "task": Task("death")}
        code = """
            import dataclasses
            from pathlib import Path
            from notetune import storage
            value = {"task": {"name": "death"}, "a": {"folder": "a", "seed": 0}, "b": "x"}
            print(storage.fingerprint(value))
        """
        other = subprocess.check_output(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | {"PYTHONHASHSEED": "5"},
            text=True,
        )
        assert other.strip() == storage.fingerprint(value)

    def test_a_field_of_a_later_release_counts_where_it_changes_what_was_done(self):
        now = storage.fingerprint([Recipe(), Task("death")])
        assert storage.fingerprint([LaterRecipe(), LaterTask("death")]) == now
        assert storage.fingerprint([LaterRecipe(share=0.5), LaterTask("death")]) != now
        assert storage.fingerprint([LaterRecipe(), LaterTask("death", Recipe())]) != now
        # One that was there before always counts, whatever its default becomes.
        assert storage.fingerprint(LaterRecipe(seed=0)) != storage.fingerprint({})

    @pytest.mark.parametrize("value", [{"a", "b"}, object(), lambda: 0])
    def test_refuses_what_differs_from_process_to_process(self, value):
        with pytest.raises(TypeError, match="has no JSON form"):
            storage.fingerprint(value)
