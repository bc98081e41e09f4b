"""A prepared folder has the same bytes whoever makes it."""

import os
import shutil

import pytest
from small_notes import bytes_below, recipe_in, small_notes

from notetune.errors import ConfigError
from notetune.model.backbone_folder import resolve_backbone
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


def test_other_settings_of_the_tokenizer_are_another_input(place):
    shutil.copytree(resolve_backbone("tiny"), place / "backbone")
    spec = recipe_in(place, f"backbone={place / 'backbone'}").preparation
    before = inputs(spec)
    (place / "backbone" / "tokenizer_config.json").write_text('{"bos_token": "</s>"}')
    assert inputs(spec)["backbone"] == before["backbone"]
    assert inputs(spec) != before


@pytest.mark.parametrize("path", ["split", "split/*.csv", "split/a.csv"])
def test_a_split_that_changed_is_another_input_however_its_files_are_named(place, path):
    file = place / "split" / "a.csv"
    file.parent.mkdir()
    file.write_text("note,split\nn000,train\n")
    split = f"prepare.split={{kind: column, path: {place / path}, patient_id: note}}"
    spec = recipe_in(place, split).preparation
    before = inputs(spec)
    assert [name for name, *_ in before["files"]] == ["notes.csv", "a.csv"]
    os.utime(file, (0, 0))
    assert inputs(spec) != before


def test_a_split_in_the_folder_that_is_written_is_refused(place):
    folder = recipe_in(place).folder.prepared
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("note,split\nn000,train\n")
    split = f"prepare.split={{kind: column, path: {folder}, patient_id: note}}"
    with pytest.raises(ConfigError, match=r"prepared: .*a\.csv lies in"):
        prepare(recipe_in(place, split).preparation)
