"""JSON files of a run folder, fingerprints of values, and where a result comes from."""

import dataclasses
import datetime
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune import runs
from notetune.config import Config
from notetune.errors import RunError


class Recipe(Config):
    seed: int = 0
    folder: Path = Path("a")


@dataclasses.dataclass(frozen=True)
class Task:
    name: str


def everything_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


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
            raise OSError("no space")

        monkeypatch.setattr(step, fail)
        with pytest.raises(OSError, match="no space"):
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


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


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

    @pytest.mark.parametrize("value", [{"a", "b"}, object(), lambda: 0])
    def test_refuses_what_differs_from_process_to_process(self, value):
        with pytest.raises(TypeError, match="has no JSON form"):
            runs.fingerprint(value)


def test_provenance_names_the_versions_that_decide_a_result():
    found = runs.provenance()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"notetune", "torch", "transformers", "peft", "tokenizers", "polars"} <= set(found)
