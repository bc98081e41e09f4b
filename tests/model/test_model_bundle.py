"""A bundle of an earlier format is read as it was meant."""

import json
import shutil

import pytest
from builders import byte_tokenizer
from small_study import small_study
from study.one_job import train

from notetune import config, manifest, runs
from notetune.errors import BundleError
from notetune.model.cards import BUNDLE, read_card
from notetune.recipe.recipe import Recipe
from notetune.serve.files import predict_file
from notetune.sources.tables.source import TableSource

COLUMNS = {"text": "text", "note_id": "note", "patient_id": "patient"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small study whose tokenizer puts nothing in front of a text."""
    folder = small_study(tmp_path_factory.mktemp("intake"))
    byte_tokenizer().save(str(folder / "backbone/tokenizer.json"))
    return folder


def load(place, *settings):
    return config.load(Recipe, place / "recipe.yaml", settings)


def test_a_bundle_of_the_first_format_is_read_with_bos(place, tmp_path):
    recipe = load(place, "prepare.opener=bos", "name=old", "downstream.tasks=[died]")
    new = train(recipe, "died", "head-only")
    source = TableSource(kind="table", path=place / "notes.csv", columns=COLUMNS, tasks=())
    expected = predict_file(new, source, str(place / "backbone")).scores
    since = {"opener", "opener_id", "end_id", "ends_every_piece"}
    for number in (1, 99):
        with runs.new_folder(tmp_path / str(number), {}) as old:
            for path in new.iterdir():
                if path.name != manifest.MANIFEST:
                    shutil.copyfile(path, old / path.name)
            card = json.loads((new / BUNDLE).read_text())
            card = {name: value for name, value in card.items() if name not in since}
            (old / BUNDLE).write_text(json.dumps({**card, "format": number}))
    got = predict_file(tmp_path / "1", source, str(place / "backbone")).scores
    assert got.equals(expected)
    with pytest.raises(BundleError, match="has format 99; this version reads 1 and 2"):
        read_card(tmp_path / "99")
