"""A bundle is loaded if it does something and is what was trained."""

import numpy as np
import pytest
import torch
from builders import random_llama
from saved_bundles import TEXTS, saved_bundle, trained

from notetune.errors import BundleError
from notetune.model.adapters.specs import Full, LoRA
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.serve.predictor import load_predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


def test_an_adapter_that_changes_after_loading_predicts_nothing(folder, tmp_path):
    predictor = load_predictor(saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=4))))
    predictor.predict(TEXTS)
    with torch.no_grad():
        next(iter(predictor.bundle.model.tensors(DOMAIN).values())).add_(1)
    with pytest.raises(BundleError, match="frozen adapter domain has changed"):
        predictor.predict(TEXTS)


def test_weights_that_are_all_trained_are_looked_at_when_loaded_and_then_no_more(
    folder, tmp_path, monkeypatch
):
    idle = stack(load_backbone(str(folder)), [Layer(DOMAIN, Full(), is_trained=True)])
    with pytest.raises(BundleError, match="adapter domain does not change the output"):
        load_predictor(saved_bundle(tmp_path / "idle", idle))
    predictor = load_predictor(saved_bundle(tmp_path / "cell", trained(folder, Full())))
    monkeypatch.setattr("notetune.model.adapters.full.load_backbone", None)
    assert predictor.predict(TEXTS).scores_NK.shape == (3, 2)


def test_a_bundle_can_be_shared_without_the_scores_of_its_patients(folder, tmp_path):
    bundle = saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=4)), scores="test.parquet")
    expected = load_predictor(bundle).predict(TEXTS).scores_NK
    (bundle / "test.parquet").unlink()
    assert np.array_equal(load_predictor(bundle).predict(TEXTS).scores_NK, expected)
    (bundle / "domain/adapter.json").unlink()
    with pytest.raises(BundleError, match=r"domain/adapter\.json is missing"):
        load_predictor(bundle)
