"""Manifests: whether a folder is whole, of these inputs, of this format."""

import sys

import numpy as np
import pytest
from stages import INPUTS, build

from notetune import manifest, storage
from notetune.errors import RunError


class TestIsFinished:
    @pytest.fixture
    def stage(self, tmp_path):
        build(tmp_path / "stage")
        assert manifest.is_finished(tmp_path / "stage", INPUTS)
        return tmp_path / "stage"

    def test_sees_a_flipped_bit(self, stage):
        for path in (stage / name for name in ("weights.bin", "sub/notes.txt", "manifest.json")):
            good = path.read_bytes()
            for bit in range(0, len(good) * 8, 7):
                bad = bytearray(good)
                bad[bit // 8] ^= 1 << bit % 8
                path.write_bytes(bad)
                assert not manifest.is_finished(stage, INPUTS)
                assert manifest.damaged_files(stage) == [path.relative_to(stage).as_posix()]
            path.write_bytes(good)
        assert manifest.is_finished(stage, INPUTS)

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
        assert not manifest.is_finished(stage, INPUTS)
        assert manifest.damaged_files(stage) == [name]

    @pytest.mark.parametrize("text", ["[]", "{}", "3", '{"format": 1, "files": []}', "\xff"])
    def test_sees_a_manifest_that_is_not_one(self, stage, text):
        (stage / "manifest.json").write_text(text, encoding="latin-1")
        assert not manifest.is_finished(stage, INPUTS)
        assert manifest.damaged_files(stage) == ["manifest.json"]

    @pytest.mark.parametrize("inputs", [{"notes": "abc"}, {"notes": "abc", "seed": 4}, None, {}])
    def test_is_false_for_other_inputs(self, stage, inputs):
        assert not manifest.is_finished(stage, inputs)

    def test_is_false_for_a_folder_that_does_not_exist(self, tmp_path):
        assert not manifest.is_finished(tmp_path / "none", INPUTS)

    def test_what_an_earlier_version_made_is_whole_but_is_made_again(self, stage):
        of_format(stage, 1)
        assert manifest.damaged_files(stage) == []
        assert manifest.is_older(stage, manifest.FORMAT)
        assert not manifest.is_finished(stage, INPUTS)
        of_format(stage, manifest.FORMAT)
        assert manifest.is_finished(stage, INPUTS)
        assert not manifest.is_older(stage, manifest.FORMAT)

    def test_a_stage_counts_its_own_format(self, tmp_path):
        inputs = {**INPUTS, "format": 7}
        build(tmp_path / "stage", inputs=inputs)
        assert storage.read_json(tmp_path / "stage" / "manifest.json")["format"] == 7
        assert manifest.is_finished(tmp_path / "stage", inputs)
        assert not manifest.was_made_from(tmp_path / "stage", {**INPUTS, "format": 8})
        assert manifest.is_older(tmp_path / "stage", 8)
        with pytest.raises(RunError, match="has format 7; this version reads up to 6"):
            manifest.was_made_from(tmp_path / "stage", {**INPUTS, "format": 6})

    def test_refuses_the_format_of_a_later_version_by_name(self, stage):
        of_format(stage, 3)
        with pytest.raises(RunError, match="has format 3; this version reads up to 2"):
            manifest.is_finished(stage, INPUTS)


def of_format(folder, number):
    written = storage.read_json(folder / "manifest.json") | {"format": number}
    del written["digest"]
    storage.write_json(folder / "manifest.json", written | {"digest": storage.fingerprint(written)})


def test_provenance_names_the_versions_that_decide_a_result():
    found = manifest.provenance()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"notetune", "torch", "transformers", "peft", "tokenizers", "polars"} <= set(found)
